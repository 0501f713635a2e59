"""How the life of a job looks on the way: live on a terminal, as lines elsewhere. Draws events, decides nothing."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Protocol

from rich.console import Console, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn
from rich.spinner import Spinner

from lwr.client import Event, GivingUp, Moved, Moving, Retrying, SetUp, StageBegun, StateChanged, Submitted
from lwr.commands.terminal import COLOURS, duration, plain, size

#: So many files are named one by one; of more, only the bar is seen.
_MOST_LINES = 20


class View(Protocol):
    """Shows events while it is open (`with`)."""

    def __enter__(self) -> View: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def tell(self, event: Event) -> None:
        """Show one event; quick."""


class Lines:
    """A line for each thing that is done; `console` of a file, a pipe, or one that shows nothing (`quiet`)."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._moved = 0
        self._trouble = ""
        self._began = time.monotonic()

    def __enter__(self) -> Lines:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def tell(self, event: Event) -> None:
        line = self._line(event)
        if line:
            self._console.print(line)

    def _line(self, event: Event) -> str:
        match event:
            case SetUp(job_id):
                return f"  [bold]job {escape(plain(job_id))}[/]"
            case Moved(name, kind, upward, _, receipt):
                self._moved += 1
                if self._moved > _MOST_LINES:
                    return ""
                arrow = "[blue]↑[/]" if upward else "[green]↓[/]"
                told = f"{size(receipt.size_bytes)}, {receipt.checked} checked"
                return f"{arrow} {escape(plain(name))}  [dim]{kind}, {told}[/]"
            case StateChanged(state):
                colour = COLOURS.get(state, "default")
                after = duration(time.monotonic() - self._began)
                return f"[{colour}]●[/] {escape(plain(state))} [dim]after {after}[/]"
            case Retrying(error, _):
                again, self._trouble = error.message == self._trouble, error.message
                return "" if again else f"[yellow]![/] {escape(plain(error.message))} [dim]Trying again ...[/]"
            case GivingUp():
                return "[yellow]![/] ending the job on the server ..."
            case StageBegun() | Submitted() | Moving():
                return ""


class Bars:
    """The same lines on a terminal, and below them what goes on now: a bar for a file, or the state and its clock."""

    def __init__(self, console: Console) -> None:
        self._lines = Lines(console)
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=30),
            DownloadColumn(),
            TransferSpeedColumn(),
            console=console,
        )
        self._task = self._progress.add_task("", visible=False)
        self._spinner = Spinner("dots", "")
        self._state, self._since, self._moving = "", time.monotonic(), ""
        self._live = Live(console=console, get_renderable=self._now, transient=True, refresh_per_second=12)

    def __enter__(self) -> Bars:
        self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.stop()

    def tell(self, event: Event) -> None:
        match event:
            case Moving(name, upward, moved_bytes, size_bytes):
                if name != self._moving:
                    arrow = "[blue]↑[/]" if upward else "[green]↓[/]"
                    self._progress.reset(self._task, description=f"{arrow} {escape(plain(name))}")
                self._moving = name
                self._progress.update(self._task, completed=moved_bytes, total=size_bytes, visible=True)
            case StateChanged(state):
                self._state, self._since = state, time.monotonic()
        if not isinstance(event, Moving):
            self._moving = ""
        self._lines.tell(event)

    def _now(self) -> RenderableType:
        if self._moving:
            return self._progress.get_renderable()
        if self._state:
            waited = int(time.monotonic() - self._since)
            clock = f" for {duration(waited)}" if waited else ""
            self._spinner.update(text=f"[dim]{escape(plain(self._state))}{clock}[/]")
        return self._spinner


def view(console: Console) -> View:
    """The view that fits the console."""
    return Bars(console) if console.is_terminal and not console.quiet else Lines(console)
