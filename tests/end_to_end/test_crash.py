"""P1, P3, P5: a server that is killed at any moment loses no job, starts none twice, and returns whole outputs.

Clients work on through `lwr.client`, which tries again by itself; a real server is killed with SIGKILL at random
moments, and kills itself at every named fault point. What each command did is counted in a file of its own, outside
LWR's reach.
"""

from __future__ import annotations

import ast
import hashlib
import random
import shutil
import subprocess
import threading
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest

from lwr.client import Patience, RemoteServer
from lwr.core.staging import FileAction, Step, step_to_wire
from tests.conftest import FULL
from tests.machines.job_files import JobFilesServer
from tests.support import DEADLINE_S, RunningServer, wait_until

SOURCE = Path(__file__).parents[2] / "src" / "lwr"
#: Where the points are that only messages reach: `test_queue_crash.py` is about them.
QUEUE_ROOMS = {"inbox.py", "outbox.py", "amqp.py", "brokerline.py"}
JOBS = 400 if FULL else 100
RANDOM_KILLS = 40 if FULL else 10
WORKERS = 6
SEED = 20140618

#: How a job's files travel, by its number: as the client sends and fetches them, or by the server's own actions.
WAYS = ("", "remote_transfer", "", "remote_transfer_tus", "", "remote_copy")

#: A few slots, so that jobs queue while the server dies.
MANAGERS = "[manager:_default_]\ntype = queued_python\nnum_concurrent_jobs = 4\n"


def fault_points(sources: Iterable[Path]) -> list[str]:
    """Every point named in these sources, in their order; a point without a literal name cannot be counted."""
    points = []
    for path in sorted(sources):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "fault":
                (argument,) = node.args
                assert isinstance(argument, ast.Constant), f"{path}: a fault point has no literal name"
                points.append(str(argument.value))
    assert len(points) == len(set(points)) > 2
    return points


class Clients:
    """Threads that send jobs until they are told to stop, each job checked to its end."""

    def __init__(self, url: str, directory: Path, galaxy: JobFilesServer) -> None:
        self.url, self.directory, self.galaxy = url, directory, galaxy
        self.problems: list[str] = []
        self.states: Counter[str] = Counter()
        self._next = 0
        self._mutex = threading.Lock()
        self._enough = threading.Event()
        self._pause = threading.Event()  # never set: something to wait on
        self._threads = [threading.Thread(target=self._work) for _ in range(WORKERS)]
        (directory / "effects").mkdir()
        for thread in self._threads:
            thread.start()

    @property
    def finished(self) -> int:
        return self.states.total()

    def stop(self) -> None:
        self._enough.set()
        for thread in self._threads:
            thread.join()

    def _work(self) -> None:
        patience = Patience(total_s=300.0, first_s=0.05, most_s=0.5)
        with RemoteServer(self.url, "", patience=patience) as server:
            while not self._enough.is_set():
                with self._mutex:
                    number, self._next = self._next, self._next + 1
                try:
                    state = self._one(server, number)
                except Exception as error:
                    state = "broken"
                    self.problems.append(f"job {number}: {error!r}")
                with self._mutex:
                    self.states[state] += 1

    def _one(self, server: RemoteServer, number: int) -> str:
        chance = random.Random(SEED + number)  # noqa: S311
        data = chance.randbytes(chance.randrange(1, 200_000))
        effects = self.directory / "effects" / str(number)
        way = WAYS[number % len(WAYS)]
        places = server.setup(f"job-{number}")
        if not way:
            server.upload(places.job_id, "input", "in.dat", data)
        server.submit(
            places.job_id,
            f"echo started >> '{effects}'; sleep 0.{chance.randrange(10)}; "
            "cat ../inputs/in.dat ../inputs/in.dat > ../outputs/out.dat; sha256sum < ../inputs/in.dat; "
            f"exit {number % 256}",
            remote_staging=self._staging(number, way, data) if way else None,
        )
        wants_cancel = number % 10 == 9
        if wants_cancel:
            server.cancel(places.job_id)
        status = server.status(places.job_id)
        while not status.finished:
            self._pause.wait(0.05)
            status = server.status(places.job_id)
        if wants_cancel and status.state == "cancelled":
            self._check(number, len(effects.read_bytes().split()) <= 1 if effects.exists() else True, "started twice")
        else:
            self._check(number, status.state == "complete", f"{status.state}: {status.stderr}")
            self._check(number, status.exit_code == number % 256, f"exit code {status.exit_code}")
            self._check(number, effects.read_text() == "started\n", f"effects: {effects.read_text()!r}")
            self._check(number, hashlib.sha256(data).hexdigest() in status.stdout, "stdout is not its own")
            target = self.galaxy.root / f"{number}.out"
            if not way:
                server.download(places.job_id, "output", "out.dat", target)
            self._check(number, target.read_bytes() == data + data, "output is not whole")
            target.unlink()
        server.clean(places.job_id)
        return status.state

    def _staging(self, number: int, way: str, data: bytes) -> dict[str, object]:
        """What the server is told to fetch from Galaxy before the job and to deliver after it."""
        source, target = self.galaxy.root / f"{number}.in", self.galaxy.root / f"{number}.out"
        source.write_bytes(data)
        steps = [
            Step(kind, name, FileAction(way, str(path), self.galaxy.url_of(path, kind)), required=kind == "output")
            for kind, name, path in (("input", "in.dat", source), ("output", "out.dat", target))
        ]
        return {"setup": [step_to_wire(steps[0])], "outputs": [step_to_wire(steps[1])]}

    def _check(self, number: int, fine: bool, what: str) -> None:
        if not fine:
            self.problems.append(f"job {number}: {what}")


@pytest.mark.crash
@pytest.mark.timeout(900 if FULL else 420)
def test_no_job_is_lost_or_started_twice_whenever_the_server_dies(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    chance = random.Random(SEED)  # noqa: S311
    points = fault_points(path for path in SOURCE.rglob("*.py") if path.name not in QUEUE_ROOMS)
    chance.shuffle(points)
    server = RunningServer(tmp_path, managers=MANAGERS)
    galaxy = JobFilesServer(tmp_path / "galaxy", "job-key")
    galaxy.root.mkdir()
    server.start()
    hit: Counter[str] = Counter()
    with galaxy:
        clients = Clients(server.url, tmp_path, galaxy)
        try:
            for _ in range(RANDOM_KILLS):
                threading.Event().wait(chance.uniform(0.05, 1.0))
                server.kill()
                server.start()
            for point in points:
                server.kill()
                # Jobs keep coming, so the server reaches the point by itself, and dies there.
                server.spawn(fault=f"{point}:{chance.randrange(1, 3)}")
                server.wait()
                hit[point] += 1
                server.start()
            wait_until(lambda: clients.finished >= JOBS, f"{JOBS} finished jobs", deadline_s=DEADLINE_S * 5)
        finally:
            clients.stop()
            server.stop()
    record_property(
        "crash test",
        f"{clients.finished} jobs ({dict(clients.states)}), {RANDOM_KILLS} random kills, "
        f"{len(hit)} of {len(points)} fault points hit: {', '.join(sorted(hit))}",
    )
    assert clients.problems == []
    assert sorted(hit) == sorted(points)
    assert clients.states["complete"] >= JOBS * 0.85
    left = [path.name for path in server.staging.iterdir() if path.name != ".trash"]
    assert left == []


@pytest.mark.crash
def test_a_submit_is_on_disk_before_the_first_byte_of_its_answer(tmp_path: Path) -> None:
    strace = shutil.which("strace")
    assert strace, "strace is needed: apt-get install strace"
    server = RunningServer(tmp_path)
    with server, RemoteServer(server.url) as client:
        client.setup("traced")
        client.upload("traced", "input", "in.dat", b"x" * 1000)
        trace = tmp_path / "trace"
        calls = "trace=fsync,fdatasync,sendto,sendmsg,write,writev,pwrite64"
        tracer = subprocess.Popen(
            [strace, "-f", "-y", "-s", "300", "-e", calls, "-o", str(trace), "-p", str(server.pid)],
            stderr=subprocess.PIPE,
        )
        assert tracer.stderr is not None
        assert b"attached" in tracer.stderr.readline()
        client.submit("traced", "echo a-command-to-find")
        tracer.terminate()
        tracer.communicate()
    lines = trace.read_text(errors="replace").splitlines()
    answered = next(n for n, line in enumerate(lines) if "HTTP/1.1 200" in line)
    before = lines[:answered]
    written = max(n for n, line in enumerate(before) if "lwr.sqlite-wal" in line and "pwrite64(" in line)
    synced = [n for n, line in enumerate(before) if "sync(" in line and "lwr.sqlite-wal" in line]
    assert synced, "the database was not synced before the answer"
    assert synced[-1] > written, "the answer left before the last sync"
    assert any("sync(" in line and "in.dat" in line for line in before), "the input was not synced before the answer"
