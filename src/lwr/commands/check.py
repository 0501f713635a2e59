"""`lwr check`: sends a real job through every kind of file and compares what comes back. Exits with 0 or 1.

`check` is also what `run_client_tests.py`, its old name, calls.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from lwr.client import (
    Event,
    JobRequest,
    LocalFile,
    Moved,
    RemoteJob,
    RemoteServer,
    RemoteStatus,
    Retrying,
    SetUp,
    StateChanged,
    Submitted,
)
from lwr.commands.check_tool import TOOL_EXIT_CODE
from lwr.commands.terminal import connect, duration, plain, size
from lwr.errors import LwrError, PeerError, PeerRefused

#: A word that only survives when nothing on the way is careless with quotes or characters.
WORD = "Grüße, \"$HOME\" 'and' `x` \\ 日本"
_JOB_LIMIT_S = 300.0

_TEXTS = {
    "config": ("config", "settings.txt", "depth = 2\n"),
    "input": ("input", "données.txt", "Grüße aus dem Eingang\n"),
    "extra": ("extra", "données_files/sub/index.txt", "beside the input\n"),
    "unstructured": ("unstructured", "genomes/human.fa", ">chr1\nACGT\n"),
    "working directory": ("workdir", "before.txt", "there before the job\n"),
    "metadata": ("metadata", "known.txt", "known before\n"),
}


@dataclass(frozen=True, slots=True)
class StepResult:
    """One thing that was tried; `problem` is empty when it went well."""

    name: str
    seconds: float
    detail: str = ""
    problem: str = ""


class Stopped(Exception):
    """A step failed without which no other makes sense; it is in the results."""


@dataclass(slots=True)
class Report:
    """Collects steps and shows each as it ends."""

    console: Console
    results: list[StepResult] = field(default_factory=list)
    _since: float = field(default_factory=time.monotonic)

    def done(self, name: str, detail: str = "", problem: str = "", *, timed: bool = True) -> None:
        """A step ended; it took the time since the one before, which is shown if it is worth it."""
        now = time.monotonic()
        result = StepResult(name, now - self._since, detail, problem)
        self._since = now
        self.results.append(result)
        mark = "[red]✗[/]" if problem else "[green]✓[/]"
        told = f"[red]{escape(plain(problem))}[/]" if problem else f"[dim]{escape(plain(detail))}[/]"
        took = duration(result.seconds) if timed else ""
        self.console.print(f"{mark} {took:>8}  {escape(plain(name)):<40} {told}")

    def tell(self, event: Event) -> None:
        """Make steps of what happens in the job's life."""
        match event:
            case SetUp(job_id):
                self.done("set-up", job_id)
            case Moved(name, kind, upward, _, receipt):
                way = "sent" if upward else "fetched"
                self.done(f"{kind} {way}", f"{name}, {size(receipt.size_bytes)}, {receipt.checked} checked")
            case Submitted():
                self.done("submit")
            case StateChanged(state):
                self.done(f"the job is {state}")
            case Retrying(error):
                self.console.print(f"[yellow]![/] {escape(plain(error.message))}")

    @contextmanager
    def guarded(self, name: str) -> Iterator[None]:
        """What fails in it is a failed step, and the end."""
        try:
            yield
        except LwrError as error:
            self.done(name, problem=str(error))
            raise Stopped from error

    def same(self, name: str, found: object, expected: object) -> None:
        """A step that is a comparison."""
        problem = "" if found == expected else f"expected {expected!r}, found {found!r}"
        self.done(name, "as expected", problem, timed=False)

    @property
    def failed(self) -> int:
        return sum(bool(result.problem) for result in self.results)


def run(args: argparse.Namespace) -> int:
    """Raises LwrError when there is no server to check."""
    with connect(args.url, args.token_file, token=args.private_token or "") as server:
        report = check(server, quiet=args.quiet or args.json, test_errors=args.test_errors, keep=args.keep)
        if args.json:
            steps = [asdict(result) for result in report.results]
            document = {"ok": not report.failed, "url": server.url, "steps": steps}
            sys.stdout.write(json.dumps(document, indent=2) + "\n")
        else:
            verdict(server.url, report)
    return 1 if report.failed else 0


def check(server: RemoteServer, *, quiet: bool, test_errors: bool, keep: bool) -> Report:
    """Try everything; what fails stands in the report.

    Raises:
        LwrError: no server answers at all.
    """
    report = Report(Console(highlight=False, soft_wrap=True, quiet=quiet))
    server.greet()
    report.done("the server answers", server.url)
    over = False
    with tempfile.TemporaryDirectory(prefix="lwr-check-") as directory, suppress(Stopped):
        home = Path(directory)
        job = RemoteJob(server, _request(home), on_event=report.tell)
        try:
            with report.guarded("the job's life"):
                job.stage_in()
                job.submit()
                status = job.wait(_JOB_LIMIT_S)
                over = True
                outcome = job.collect(status)
            _compare(report, status, home / "results", outcome.missing + outcome.refused)
            if test_errors:
                _refusals(report, server, job.job_id)
        finally:
            if not keep:
                _clean(report, server, job, over)
    return report


def verdict(url: str, report: Report) -> None:
    """The last line: whether all is well."""
    count, took = len(report.results), duration(sum(result.seconds for result in report.results))
    console = Console(highlight=False, soft_wrap=True)
    if report.failed:
        console.print(f"[red]✗ {escape(url)}: {report.failed} of {count} steps failed ({took}).[/]")
    else:
        console.print(f"[green]✓ {escape(url)}: everything works[/] ({count} steps in {took}).")


def _request(home: Path) -> JobRequest:
    files = []
    paths: dict[str, str] = {}
    for what, (kind, name, text) in _TEXTS.items():
        path = home / ("idx" if kind == "unstructured" else "data") / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        paths[what] = str(path)
        files.append(LocalFile(kind, str(path)))
    tool = home / "check_tool.py"
    tool.write_bytes(Path(__file__).with_name("check_tool.py").read_bytes())
    named = [paths[what] for what in ("config", "input", "extra", "unstructured")]
    return JobRequest(
        command=("python", str(tool), *named, "report.json", WORD),
        files=(LocalFile("tool", str(tool)), *files),
        outputs=("report.json",),
        workdir_outputs=("left.txt",),
        metadata_outputs=("found.txt",),
        output_dir=home / "results",
        env=(("LWR_CHECK_WORD", "set by the client"),),
        tool_id="lwr_check",
    )


def _compare(report: Report, status: RemoteStatus, results: Path, missing: tuple[str, ...]) -> None:
    report.same("the job's state", status.state, "complete")
    report.same("exit code", status.exit_code, TOOL_EXIT_CODE)
    report.same("stdout", status.stdout.splitlines(), ["said on stdout"])
    report.same("stderr", status.stderr.splitlines(), ["said on stderr"])
    report.same("all outputs came back", missing, ())
    for name, text in (
        ("report_files/deep/plot.txt", "an extra file\n"),
        ("left.txt", "left behind\n"),
        ("found.txt", "metadata\n"),
    ):
        report.same(f"content of {name}", _text(results / name), text)
    try:
        seen = json.loads(_text(results / "report.json"))
    except ValueError:
        seen = {}
    texts = {what: text for what, (_, _, text) in _TEXTS.items()}
    for what, text in texts.items():
        report.same(f"the job read its {what}", seen.get(what), text)
    report.same("extra files lie beside their input", seen.get("extra lies beside its input"), True)
    report.same("quotes and Unicode in arguments", seen.get("argument"), WORD)
    report.same("the job's environment", seen.get("environment"), "set by the client")


def _text(path: Path) -> str:
    return path.read_text(encoding="utf-8") if path.exists() else ""


def _refusals(report: Report, server: RemoteServer, job_id: str) -> None:
    """Requests that must be answered no."""
    nowhere = Path(tempfile.gettempdir()) / "lwr-check-never-written"
    tries: dict[str, Callable[[], object]] = {
        "a name that leaves its directory": lambda: server.upload(job_id, "input", "../../evil.txt", b"evil"),
        "a type that does not exist": lambda: server.upload(job_id, "nonsense", "x.txt", b"x"),
        "an output that does not exist": lambda: server.download(job_id, "output", "no such file", nowhere),
        "an id that is no name": lambda: server.setup(".."),
    }
    for name, call in tries.items():
        try:
            call()
        except PeerRefused as error:
            report.done(f"refused: {name}", f"{error.status} {error.peer_code}")
        except PeerError as error:
            report.done(f"refused: {name}", problem=str(error))
        else:
            report.done(f"refused: {name}", problem="the server did it")


def _clean(report: Report, server: RemoteServer, job: RemoteJob, over: bool) -> None:
    try:
        with server.in_a_hurry(10.0):
            if not over:
                job.cancel()
            job.clean()
            gone = server.status(job.job_id)
    except LwrError as error:
        report.done("cleaned up", problem=str(error))
    else:
        report.done("cleaned up", problem="" if gone.state == "lost" else f"the job is still there: {gone.state}")
