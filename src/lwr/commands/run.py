"""`lwr run`: one command on a server, with its files there and its results back. Exits with the command's code."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from rich.console import Console
from rich.markup import escape

from lwr.client import Event, JobRequest, LocalFile, Moved, Outcome, RemoteServer, SetUp, Travel, resume_job, run_job
from lwr.client.job import STREAMS
from lwr.client.life import new_job_id
from lwr.client.rules import RuleSet, load_rules
from lwr.commands.progress import view
from lwr.commands.terminal import connect, connect_queue, duration, for_people, named_broker, plain
from lwr.core.receipt import FileRecord, FileState, receipt_document
from lwr.core.staging import Mover
from lwr.errors import BadRequest, PeerUnreachable, ServerError

if TYPE_CHECKING:
    from lwr.client.mq import QueueServer

#: LWR could not do its part. As `env`, `timeout` and container engines have it.
EXIT_NOT_DONE = 125
#: Of a longer stream a status has the two ends, with a mark between.
_WHOLE_STREAM_BYTES = 64 * 1024


def run(args: argparse.Namespace) -> int:
    """Run the command. Raises LwrError for whatever kept it from running or its results from coming back."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # the same tidying up as for Ctrl-C
    console = for_people()
    console.quiet = args.quiet or args.json
    began = time.monotonic()
    travel = _travel(args)
    moved: dict[str, Moved] = {}
    known: list[str] = []
    with (
        tempfile.TemporaryDirectory(prefix="lwr-run-") as streams,
        _server(args) as server,
    ):
        request = _request(args, Path(streams))
        server.greet()
        with view(console) as shown, left_for_later(known):

            def tell(event: Event) -> None:
                shown.tell(event)
                if isinstance(event, SetUp):
                    known.append(event.job_id)
                if isinstance(event, Moved) and not event.upward:
                    moved[event.place] = event

            if args.resume:
                known.append(args.resume)
                outcome = resume_job(server, request, args.resume, travel=travel, on_event=tell, keep=args.keep)
            else:
                outcome = run_job(server, request, job_id=args.id, travel=travel, on_event=tell, keep=args.keep)
        if args.receipt:
            _write_receipt(Path(args.receipt), outcome, args.manager or "_default_")
        if args.json:
            sys.stdout.write(json.dumps(_document(outcome, moved, Path(streams))) + "\n")
        else:
            _pass_on(outcome, Path(streams))
            for name in _shortened(outcome, Path(streams)):
                console.print(f"[yellow]![/] the middle of {name} is missing: have the command write it to an output")
    _verdict(console, outcome, time.monotonic() - began)
    return exit_code(outcome)


@contextlib.contextmanager
def left_for_later(known: Sequence[str]) -> Iterator[None]:
    """Within it, the error that nobody reaches the server also says how to go on with the job.

    `known`: ids that the server has given, the newest last.
    """
    try:
        yield
    except PeerUnreachable as error:
        if known:
            error.hint = f"`lwr run --resume {known[-1]}` with the same options goes on with the job. {error.hint}"
        raise


def _server(args: argparse.Namespace) -> RemoteServer | QueueServer:
    broker = named_broker(args.url)
    if not broker:
        if args.amqp:
            raise BadRequest("--amqp is for a server behind a broker.", "Give its URL: --url amqp://user@host/vhost.")
        return connect(args.url, args.token_file, manager=args.manager, memory=_memory(os.environ))
    args.id = args.id or new_job_id()  # it is part of the name of the job's own queue
    server = connect_queue(broker, args.token_file, args.amqp, job_id=args.resume or args.id, manager=args.manager)
    if not args.jobs_directory:
        raise BadRequest(
            "Over a queue nobody says where the server keeps its jobs.",
            "Give --jobs-directory DIR: the server's staging_directory.",
        )
    return server


def _travel(args: argparse.Namespace) -> Travel:
    if not args.file_actions and not args.remote_transfer:
        return Travel(jobs_directory=args.jobs_directory, at_a_time=args.at_a_time)
    rules = load_rules(Path(args.file_actions)) if args.file_actions else RuleSet()
    default = "remote_transfer" if args.remote_transfer else "transfer"
    mapper = rules.mapper(default, args.remote_transfer)
    return Travel(mapper, jobs_directory=args.jobs_directory, at_a_time=args.at_a_time)


def _memory(environ: Mapping[str, str]) -> Path:
    """Where a later run finds what it needs to go on with an upload, as the XDG base directories have it."""
    state = environ.get("XDG_STATE_HOME") or os.path.join(os.path.expanduser("~"), ".local", "state")
    return Path(state) / "lwr" / "uploads"


def _write_receipt(path: Path, outcome: Outcome, manager: str) -> None:
    state = outcome.status.state
    document = receipt_document(outcome.job_id, manager, os.getcwd(), state, outcome.records)
    try:
        path.write_text(json.dumps(document, indent=1) + "\n")
    except OSError as error:
        raise ServerError(f"The receipt {path} cannot be written: {error.strerror}.", "Correct --receipt.") from error


def exit_code(outcome: Outcome) -> int:
    """The command's own; 128 + N after signal N; 125 when the job did not end by itself or a result did not come, be it
    that the command did not write it."""
    code = outcome.status.exit_code
    if outcome.status.state != "complete" or code is None:
        return EXIT_NOT_DONE
    if code == 0 and (outcome.refused or outcome.missing):
        return EXIT_NOT_DONE
    return code if code >= 0 else 128 - code


def _request(args: argparse.Namespace, streams: Path) -> JobRequest:
    kinds = {"input": args.input, "extra": args.extra, "tool": args.tool, "config": args.config}
    return JobRequest(
        command=args.argv[0] if len(args.argv) == 1 else tuple(args.argv),
        files=tuple(LocalFile(kind, path) for kind, paths in kinds.items() for path in paths),
        outputs=tuple(args.output),
        workdir_outputs=tuple(args.workdir_output),
        output_dir=Path(args.output_dir),
        streams_dir=streams,
        env=tuple(_variable(text) for text in args.env),
    )


def _variable(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals or not name.isidentifier() or not name.isascii():
        raise BadRequest(f"--env {name[:40]!r} is not NAME=VALUE.", "Names are of A-Z a-z 0-9 and _.")
    return name, value


def _pass_on(outcome: Outcome, streams: Path) -> None:
    status = outcome.status
    for name, text, stream in zip(STREAMS, (status.stdout, status.stderr), (sys.stdout, sys.stderr), strict=True):
        _copy(streams / name, text, stream)
    if status.job_stderr and (streams / STREAMS[1]).exists():
        sys.stderr.write(status.job_stderr)


def _shortened(outcome: Outcome, streams: Path) -> list[str]:
    """Streams that came only as a part of the status, which does not hold all of them."""
    texts = zip(STREAMS, (outcome.status.stdout, outcome.status.stderr), strict=True)
    return [
        name.removeprefix("tool_")
        for name, text in texts
        if not (streams / name).exists() and len(text.encode(errors="replace")) > _WHOLE_STREAM_BYTES
    ]


def _copy(whole: Path, text: str, stream: TextIO) -> None:
    if not whole.exists():
        stream.write(text)
        return
    stream.flush()
    with whole.open("rb") as file:
        shutil.copyfileobj(file, stream.buffer)
    stream.flush()


def _verdict(console: Console, outcome: Outcome, took_s: float) -> None:
    status = outcome.status
    for name in outcome.missing:
        console.print(f"[yellow]![/] {escape(plain(name))} was not written by the command")
    for name in outcome.refused:
        console.print(f"[red]✗[/] {escape(plain(name))} was refused by its receiver, or its name leaves its place")
    if outcome.not_cleaned:
        console.print(f"[yellow]![/] {escape(plain(outcome.not_cleaned))}")
    took = f"[dim]in {duration(took_s)}[/]"
    if status.state != "complete":
        console.print(f"[red]✗[/] job {escape(outcome.job_id)} is {escape(plain(status.state))} {took}")
    elif status.exit_code == 0:
        console.print(f"[green]✓[/] exit code 0, {_files(len(outcome.collected))} fetched{_delivered(outcome)} {took}")
    else:
        console.print(f"[red]✗[/] {_ending(status.exit_code)} {took}")


def _files(count: int) -> str:
    return f"{count} {'file' if count == 1 else 'files'}"


def _delivered(outcome: Outcome) -> str:
    count = sum(not record.upward and record.mover == Mover.SERVER for record in _whole(outcome))
    return f", {_files(count)} delivered by the server" if count else ""


def _whole(outcome: Outcome) -> list[FileRecord]:
    return [record for record in outcome.records if record.state in (FileState.WHOLE, FileState.EMPTY)]


def _ending(code: int | None) -> str:
    if code is None:
        return "no exit code"
    if code >= 0:
        return f"exit code {code}"
    with contextlib.suppress(ValueError):
        return f"ended by signal {-code} ({signal.Signals(-code).name})"
    return f"ended by signal {-code}"


def _document(outcome: Outcome, moved: Mapping[str, Moved], streams: Path) -> dict[str, Any]:
    status = outcome.status
    texts = dict(zip(STREAMS, (status.stdout, status.stderr), strict=True))
    for name in STREAMS:
        with contextlib.suppress(FileNotFoundError):
            texts[name] = (streams / name).read_text(errors="replace")
    return {
        "job_id": outcome.job_id,
        "state": status.state,
        "exit_code": status.exit_code,
        "stdout": texts[STREAMS[0]],
        "stderr": texts[STREAMS[1]],
        "outputs": [
            {"path": file.place, "size_bytes": file.receipt.size_bytes, "checked": file.receipt.checked}
            for file in (moved[str(path)] for path in outcome.collected)
        ],
        "delivered": [
            {"path": record.path, "size_bytes": record.size_bytes, "checked": record.checked}
            for record in _whole(outcome)
            if not record.upward and record.mover == Mover.SERVER
        ],
        "shortened": _shortened(outcome, streams),
        "missing": list(outcome.missing),
        "refused": list(outcome.refused),
    }
