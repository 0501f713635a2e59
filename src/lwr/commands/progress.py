"""How the life of a job looks on the way: live on a terminal, as lines elsewhere. Draws events, decides nothing."""

from __future__ import annotations

import time
from types import TracebackType
from typing import Protocol

from rich.console import Console, RenderableType
from rich.live import Live
from rich.markup import escape
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.spinner import Spinner

from lwr.client import Event, GivingUp, Moved, Moving, Retrying, SetUp, StageBegun, StateChanged, Submitted
from lwr.commands.terminal import COLOURS, duration, plain, size

#: So many files have bars of their own at once.
_MOST_BARS = 5
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
    """The same lines on a terminal, and below them what goes on now: bars for all files together and those under way,
    or the state and its clock."""

    def __init__(self, console: Console) -> None:
        self._lines = Lines(console)
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=30),
            DownloadColumn(),
            TransferSpeedColumn(),
            TimeRemainingColumn(compact=True),
            console=console,
        )
        self._stage: _Stage | None = None
        self._spinner = Spinner("dots", "")
        self._state, self._since = "", time.monotonic()
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
            case StageBegun():
                self._stage = _Stage(self._progress, event) if event.files_count else None
            case Moving() | Moved() if self._stage is not None:
                self._stage.tell(event)
                if self._stage.over:
                    self._stage = None
            case StateChanged(state):
                self._state, self._since = state, time.monotonic()
        self._lines.tell(event)

    def _now(self) -> RenderableType:
        if self._stage is not None:
            return self._progress.get_renderable()
        if self._state:
            waited = int(time.monotonic() - self._since)
            clock = f" for {duration(waited)}" if waited else ""
            self._spinner.update(text=f"[dim]{escape(plain(self._state))}{clock}[/]")
        return self._spinner


class _Stage:
    """The bars of all files that go one way: one for all together, one for each that is under way, up to a few."""

    def __init__(self, progress: Progress, begun: StageBegun) -> None:
        self._progress, self._begun = progress, begun
        self._arrow = "[blue]↑[/]" if begun.upward else "[green]↓[/]"
        self._done_count = 0
        self._moved: dict[str, int] = {}
        self._moved_bytes = 0
        self._sized: set[str] = set()
        self._size_bytes = 0
        self._bars: dict[str, TaskID] = {}
        for task in progress.task_ids:
            progress.remove_task(task)
        self._all = progress.add_task(self._words(), total=begun.size_bytes, visible=begun.files_count > 1)

    @property
    def over(self) -> bool:
        return self._done_count == self._begun.files_count

    def tell(self, event: Moving | Moved) -> None:
        if isinstance(event, Moved):
            self._done_count += 1
            moved_bytes = event.receipt.size_bytes
            size_bytes: int | None = moved_bytes
            if event.name in self._bars:
                self._progress.remove_task(self._bars.pop(event.name))
        else:
            moved_bytes, size_bytes = event.moved_bytes, event.size_bytes
            self._show(event)
        self._moved_bytes += moved_bytes - self._moved.get(event.name, 0)
        self._moved[event.name] = moved_bytes
        if size_bytes is not None and event.name not in self._sized:
            self._sized.add(event.name)
            self._size_bytes += size_bytes
        total = self._begun.size_bytes
        if total is None and len(self._sized) == self._begun.files_count:
            total = self._size_bytes
        self._progress.update(self._all, description=self._words(), completed=self._moved_bytes, total=total)

    def _show(self, event: Moving) -> None:
        if event.name in self._bars:
            self._progress.update(self._bars[event.name], completed=event.moved_bytes, total=event.size_bytes)
        elif len(self._bars) < _MOST_BARS and event.moved_bytes != event.size_bytes:
            words = f"{self._arrow} {escape(plain(event.name))}"
            self._bars[event.name] = self._progress.add_task(words, completed=event.moved_bytes, total=event.size_bytes)

    def _words(self) -> str:
        return f"{self._arrow} {self._done_count} of {self._begun.files_count} files"


def view(console: Console) -> View:
    """The view that fits the console."""
    return Bars(console) if console.is_terminal and not console.quiet else Lines(console)
