"""`lwr jobs list | show | receipt | cancel | clean`: what a server has, for people and (`--json`) for programs."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from lwr.client import RemoteServer
from lwr.commands.terminal import COLOURS, connect, duration, moment, plain
from lwr.commands.verify import receipt_lines
from lwr.core.receipt import records_from_document

#: What is cut on a terminal's edge is whole in a pipe.
_PIPE_COLUMNS = 200


def run(args: argparse.Namespace) -> int:
    """Do what `args.what` says. Raises LwrError when the server cannot be asked, or knows no such job (show)."""
    console = Console(highlight=False, width=None if sys.stdout.isatty() else _PIPE_COLUMNS)
    with connect(args.url, args.token_file, manager=args.manager) as server:
        if args.what == "list":
            found = server.jobs(state=args.state, limit=args.limit)
            _print(console, found if args.json else None, _list(found) if found else "There are no such jobs.")
        elif args.what == "show":
            jobs = [server.job(job_id) for job_id in args.ids]
            for job in [] if args.json else jobs:
                _show(console, job)
            _print(console, jobs if args.json else None)
        elif args.what == "receipt":
            for document in (server.receipt(job_id) for job_id in args.ids):
                lines = "\n".join(receipt_lines(records_from_document(document)))
                _print(console, document if args.json else None, lines or "No file of it was moved.")
        else:
            done = [_end(server, args.what, job_id) for job_id in args.ids]
            for line in [] if args.json else done:
                console.print(f"[green]✓[/] {escape(line['job_id'])} {line['did']}")
            _print(console, done if args.json else None)
    return 0


def _print(console: Console, document: object | None, otherwise: Table | str = "") -> None:
    if document is not None:
        sys.stdout.write(json.dumps(document, indent=2) + "\n")
    elif otherwise:
        console.print(otherwise)


def _end(server: RemoteServer, what: str, job_id: str) -> dict[str, str]:
    # The calls say nothing of jobs that are not there, for the peers' sake; a person wants to know.
    server.job(job_id)
    (server.cancel if what == "cancel" else server.clean)(job_id)
    over = server.status(job_id).finished
    words = {"cancel": ("is being ended", "is over"), "clean": ("is being ended, and then removed", "is removed")}
    return {"job_id": job_id, "did": words[what][over]}


def _list(jobs: Sequence[Mapping[str, Any]]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for title in ("job", "state", "code", "tool", "manager", "set up", "ran for"):
        table.add_column(
            title, justify="right" if title in ("code", "ran for") else "left", no_wrap=True, overflow="fold"
        )
    now = time.time()
    for job in jobs:
        table.add_row(
            _text(job, "job_id"),
            _state(job),
            _text(job, "exit_code"),
            _text(job, "tool_id"),
            _text(job, "manager"),
            moment(_time(job, "created_at"), now),
            _ran(job, now),
        )
    return table


def _show(console: Console, job: Mapping[str, Any]) -> None:
    now = time.time()
    console.print(f"[bold]{_text(job, 'job_id')}[/]  {_state(job)}")
    if job.get("reason"):
        console.print(f"  {_text(job, 'reason')}")
    if job.get("trouble"):
        console.print(f"  [yellow]![/] {_text(job, 'trouble')} [dim]It is tried again.[/]")
    facts = Table.grid(padding=(0, 2))
    for title, value in (
        ("exit code", _text(job, "exit_code")),
        ("tool", f"{_text(job, 'tool_id')} {_text(job, 'tool_version') if job.get('tool_version') else ''}".strip()),
        ("manager", _text(job, "manager")),
        ("directory", _text(job, "directory")),
        ("ran for", _ran(job, now)),
    ):
        facts.add_row(f"  [dim]{title}[/]", value)
    console.print(facts)
    events = Table.grid(padding=(0, 2))
    began = _time(job, "created_at")
    for event in job.get("events") or []:
        at = _time(event, "at")
        after = f"+{duration(max(0.0, at - began))}" if at is not None and began is not None else ""
        clock = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(at)) if at is not None else ""
        events.add_row(f"  [dim]{clock}[/]", f"[dim]{after}[/]", _state(event), _text(event, "reason", ""))
    console.print(events)


def _state(job: Mapping[str, Any]) -> str:
    state = _text(job, "state")
    asked = " [dim](being cancelled)[/]" if job.get("cancel_requested") and not job.get("ended_at") else ""
    return f"[{COLOURS.get(state, 'default')}]{state}[/]{asked}"


def _ran(job: Mapping[str, Any], now: float) -> str:
    started, ended = _time(job, "started_at"), _time(job, "ended_at")
    return "-" if started is None else duration(max(0.0, (ended or now) - started))


def _text(values: Mapping[str, Any], key: str, absent: str = "-") -> str:
    value = values.get(key)
    return absent if value is None or value == "" else escape(plain(str(value)))


def _time(values: Mapping[str, Any], key: str) -> float | None:
    value = values.get(key)
    return float(value) if isinstance(value, int | float) else None
