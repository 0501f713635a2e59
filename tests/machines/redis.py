"""A real redis on a loopback port of its own, which keeps nothing when it ends; a context manager."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType

from tests.machines.programs import Program, needed
from tests.support import free_port


class Redis:
    """redis-server with its log in `directory`."""

    def __init__(self, directory: Path) -> None:
        program = needed("redis-server", "redis-server")
        directory.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        command = [program, "--bind", "127.0.0.1", "--port", str(self.port), "--save", "", "--dir", str(directory)]
        self._program = Program(command, self.port, directory / "redis.log")

    def start(self) -> None:
        self._program.start()

    def stop(self) -> None:
        self._program.stop()

    def __enter__(self) -> Redis:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
