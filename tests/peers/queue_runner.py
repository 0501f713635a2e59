"""Galaxy's runner as a process of a peer's own: `drive_queue.py`, told what to do, and heard."""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from tests.support import DEADLINE_S, wait_until

_DRIVER = Path(__file__).with_name("drive_queue.py")


class QueueRunner:
    """Submits jobs with one input and one output, both in a directory per job on Galaxy's disk; a context manager.

    Args:
        peer: the `bin` of the peer's virtualenv.
        manager: options of the client's manager.
        destination: parameters of every job's destination.
        disk: Galaxy's.
    """

    def __init__(self, peer: Path, manager: Mapping[str, Any], destination: Mapping[str, Any], disk: Path) -> None:
        self._destination = destination
        self._disk = disk
        self._log = disk.with_name(f"{disk.name}-runner.log")
        self._updates: list[dict[str, Any]] = []
        self._done_count = 0
        environ = {"PATH": "/usr/bin:/bin", "HOME": str(disk), "TMPDIR": str(disk), "LC_ALL": "C.UTF-8"}
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [peer / "python", _DRIVER, json.dumps(manager)],
                env=environ, cwd=disk, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True,
            )  # fmt: skip
        self._thread = threading.Thread(target=self._listen, name="runner")

    def __enter__(self) -> QueueRunner:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(DEADLINE_S)
        finally:
            self._process.kill()
            self._thread.join()
            self._process.stdout.close()

    def _listen(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if not line.startswith(("{", '"')):
                continue  # the client prints as well
            told = json.loads(line)
            if told == "done":
                self._done_count += 1
            else:
                self._updates.append(told)

    def _order(self, do: str, job_id: str, destination: Mapping[str, Any], **more: str) -> None:
        assert self._process.stdin is not None
        done_before = self._done_count
        order = {"do": do, "job_id": job_id, "destination": {**self._destination, **destination}, **more}
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        wait_until(lambda: self._done_count > done_before or self._process.poll() is not None, f"{do} of {job_id}")
        assert self._process.poll() is None, self._log.read_text()

    def result(self, job_id: str) -> Path:
        """Where the output has to be in the end."""
        return self._disk / job_id / "out.dat"

    def submit(self, job_id: str, script: str, **destination: str) -> None:
        """Publish a set-up; its command has `$in` and `$out`. Returns when the client believes it to be sent."""
        directory = self._disk / job_id
        directory.mkdir(exist_ok=True)
        (directory / "in.dat").write_text(f"input of {job_id}\n")
        command = f"in={directory}/in.dat; out={directory}/out.dat; {script}"
        self._order("submit", job_id, destination, command=command, directory=str(directory))

    def kill(self, job_id: str) -> None:
        self._order("kill", job_id, {})

    def ask(self, job_id: str) -> None:
        """The client's question for a job's state, on the queue that this release takes for it."""
        self._order("ask", job_id, {})

    def told(self) -> list[dict[str, Any]]:
        """All updates, in the order in which they came."""
        return list(self._updates)

    def updates(self, job_id: str) -> list[dict[str, Any]]:
        return [update for update in self.told() if update["job_id"] == job_id]

    def states(self, job_id: str) -> list[str]:
        """What was told of the job so far."""
        return [update["status"] for update in self.updates(job_id)]

    def wait(self, job_id: str, states: list[str]) -> dict[str, Any]:
        """The last update, as soon as these are the states that were told."""
        wait_until(lambda: len(self.states(job_id)) >= len(states), f"{job_id} to be told {states}")
        assert self.states(job_id) == states, self.states(job_id)
        return self.updates(job_id)[-1]
