"""The demonstration: `make demo`, or `python demo/run.py` where LWR is installed with its server.

Starts a real server on a free port with fresh state, sends it a real job by `lwr.client`, shows what happens, checks
the result by counting again in another way, and stops the server. Exits with 0 only when all of it was right.
"""

from __future__ import annotations

import json
import os
import random
import re
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from lwr.client import Event, JobRequest, LocalFile, Moved, Outcome, RemoteServer, Submitted, run_job
from lwr.commands.progress import view
from lwr.commands.terminal import size
from lwr.errors import LwrError

SEED = 2014
SEQUENCES_COUNT = 40
K = 5
ROWS = 8
_STOP_LIMIT_S = 30

console = Console(highlight=False, soft_wrap=True)


class Wrong(Exception):
    """Something is not as it should be."""


def main() -> int:
    """Run the demonstration; 0 when everything was right."""
    began = time.monotonic()
    try:
        with tempfile.TemporaryDirectory(prefix="lwr-demo-") as directory:
            home = Path(directory)
            make_input(home)
            with running_server(home) as server:
                demonstrate(server, home)
                if any((home / "staging").glob("run-*")):
                    raise Wrong("the job's directory is still on the server")
        console.print(
            f"\n[bold green]✓ All right[/] [dim]in {time.monotonic() - began:.1f} s; nothing is left behind.[/]"
        )
    except (Wrong, LwrError) as error:
        console.print(f"\n[bold red]✗ {escape(str(error))}[/]")
        return 1
    return 0


def demonstrate(server: RemoteServer, home: Path) -> None:
    """Send the job, show it, check what came back."""
    request = describe(home)
    heading("What is sent")
    show_files(request)
    heading("What happens")
    moved: list[Moved] = []
    with view(console) as shown:

        def tell(event: Event) -> None:
            shown.tell(event)
            if isinstance(event, Submitted):
                console.print(f"  [bold]{escape(event.command_line.splitlines()[0].removeprefix('{ '))}[/]")
            elif isinstance(event, Moved):
                moved.append(event)

        outcome = run_job(server, request, on_event=tell)
    heading("What came back")
    show_results(home, outcome)
    heading("Is it right?")
    for what in verify(home, outcome, moved):
        console.print(f"[green]✓[/] {what}")


def heading(text: str) -> None:
    console.print(f"\n[bold cyan]{text}[/]")


def make_input(home: Path) -> None:
    """Sequences from a seed, an index beside them, and the settings of the tool."""
    dice = random.Random(SEED)  # noqa: S311  # the same sequences every time
    fasta, index = [], []
    for number in range(1, SEQUENCES_COUNT + 1):
        sequence = "".join(dice.choices("ACGT", (3, 2, 2, 3), k=dice.randint(4_000, 12_000)))
        fasta += [f">contig_{number}", *re.findall(".{1,60}", sequence)]
        index.append(f"contig_{number}\t{len(sequence)}\n")
    (home / "genome.fa").write_text("\n".join(fasta) + "\n")
    (home / "genome.fa.fai").write_text("".join(index))
    (home / "settings.json").write_text(json.dumps({"k": K, "rows": ROWS}))


def describe(home: Path) -> JobRequest:
    """The job; the paths in its command are this machine's."""
    tool = Path(__file__).with_name("kmer_report.py")
    files = {
        kind: str(home / name)
        for kind, name in (("config", "settings.json"), ("input", "genome.fa"), ("extra", "genome.fa.fai"))
    }
    return JobRequest(
        command=("python", str(tool), files["config"], files["input"], "report.tsv"),
        files=(LocalFile("tool", str(tool)), *(LocalFile(kind, path) for kind, path in files.items())),
        outputs=("report.tsv",),
        workdir_outputs=("summary.json",),
        output_dir=home / "results",
        streams_dir=home / "results",
        tool_id="kmer_report",
    )


@contextmanager
def running_server(home: Path) -> Iterator[RemoteServer]:
    """`lwr serve` on a free port, with a secret of its own, until the end of the block."""
    secret = secrets.token_urlsafe(24)
    ini = home / "server.ini"
    ini.touch(mode=0o600)
    ini.write_text(f"[app:main]\nstaging_directory = staging\npersistence_directory = state\nprivate_key = {secret}\n")
    log = home / "server.log"
    process = subprocess.Popen(
        [sys.executable, "-m", "lwr.cli", "serve", "--json", "--port", "0", "--log-file", str(log), str(ini)],
        env={name: value for name, value in os.environ.items() if not name.startswith("LWR_")},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        said = process.stdout.readline()
        if not said:
            raise Wrong(f"the server did not start:\n{log.read_text() if log.exists() else ''}")
        url = json.loads(said)["url"]
        console.print(
            f"[green]✓[/] a server answers at [bold]{url}[/] [dim](process {process.pid}, state in {home})[/]"
        )
        with RemoteServer(url, secret) as server:
            yield server
    finally:
        process.send_signal(signal.SIGTERM)
        code = process.wait(_STOP_LIMIT_S)
        if process.stdout is not None:
            process.stdout.close()
    if code != 0:
        raise Wrong(f"the server ended with exit code {code}")
    console.print("\n[green]✓[/] the server is stopped")


def show_files(request: JobRequest) -> None:
    table = Table.grid(padding=(0, 3))
    for file in request.files:
        path = Path(file.path)
        table.add_row(f"  {path.name}", f"[dim]{file.kind}[/]", f"[dim]{size(path.stat().st_size)}[/]")
    console.print(table)


def show_results(home: Path, outcome: Outcome) -> None:
    console.print(
        f"  exit code {outcome.status.exit_code}, it said: [italic]{escape(outcome.status.stdout.strip())}[/]"
    )
    table = Table(box=None, padding=(0, 3, 0, 2), header_style="dim")
    table.add_column("word")
    table.add_column("count", justify="right")
    report = home / "results" / "report.tsv"
    for line in report.read_text().splitlines()[1:] if report.exists() else []:
        table.add_row(*line.split("\t"))
    console.print(table)


def verify(home: Path, outcome: Outcome, moved: list[Moved]) -> Iterator[str]:
    """Everything that must hold; raises Wrong at the first that does not."""
    results = home / "results"
    if outcome.status.state != "complete" or outcome.status.exit_code != 0:
        raise Wrong(f"the job is {outcome.status.state}: {outcome.status.stderr or outcome.status.job_stderr}")
    yield "the job is complete, with exit code 0"
    if outcome.missing or outcome.refused or len(outcome.collected) != 3:
        raise Wrong(f"not all results came: {outcome.missing + outcome.refused}")
    yield "three results came: the report, the file beside it, and one from the working directory"
    if any(file.receipt.checked != "sha-256" for file in moved):
        raise Wrong("a file was moved without its digest being compared")
    yield f"both sides agree on the SHA-256 of each of {len(moved)} files"
    counted = count_again(home / "genome.fa")
    best = sorted(counted.items(), key=lambda item: (-item[1], item[0]))[:ROWS]
    expected = "word\tcount\n" + "".join(f"{word}\t{count}\n" for word, count in best)
    if (results / "report.tsv").read_text() != expected:
        raise Wrong("the report is not what counting here gives")
    yield "the report is what counting here, in another way, gives"
    summary = json.loads((results / "summary.json").read_text())
    if summary != {"k": K, "different": len(counted), "total": sum(counted.values())}:
        raise Wrong(f"the summary is wrong: {summary}")
    if len((results / "report_files" / "gc.tsv").read_text().splitlines()) != SEQUENCES_COUNT:
        raise Wrong("the extra file has not a line for each sequence")
    yield "the summary and the extra file fit to it"


def count_again(fasta: Path) -> dict[str, int]:
    """The same count by searching for every possible word, overlapping."""
    counted: dict[str, int] = {}
    for record in fasta.read_text().split(">")[1:]:
        sequence = "".join(record.split("\n")[1:])
        for found in re.finditer(f"(?=([ACGT]{{{K}}}))", sequence):
            counted[found[1]] = counted.get(found[1], 0) + 1
    return counted


if __name__ == "__main__":
    sys.exit(main())
