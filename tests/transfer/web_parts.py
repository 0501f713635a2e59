"""What the tests of files by URL share: places for bytes, files to send, raw answers."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from lwr.errors import LwrError
from lwr.transfer.http import Web
from lwr.transfer.jobfiles import OpenFile
from lwr.transfer.lines import Resolve, resolve
from lwr.transfer.reach import Reach
from tests.machines.fault_proxy import Fault


class Memory:
    """A place for the bytes of a partial file."""

    def __init__(self) -> None:
        self.data = b""
        self.size_bytes = 0

    def write(self, data: bytes | memoryview) -> None:
        self.data += data
        self.size_bytes = len(self.data)

    def restart(self) -> None:
        self.data = b""
        self.size_bytes = 0

    def read(self, offset: int, size_bytes: int) -> bytes:
        return self.data[offset : offset + size_bytes]


@contextmanager
def web(reach: Reach | None = None, *, read_timeout_s: float = 30.0, resolve: Resolve = resolve) -> Iterator[Web]:
    made = Web(reach or Reach(), read_timeout_s=read_timeout_s, resolve=resolve)
    try:
        yield made
    finally:
        made.close()


def open_file(path: Path) -> OpenFile:
    status = path.stat()
    return OpenFile(os.fdopen(os.open(path, os.O_RDONLY), "rb", 0), status.st_size, status.st_mtime_ns, status.st_ino)


def raw(status: str, *headers: str, body: bytes = b"") -> Fault:
    """The proxy answers exactly this, and closes."""
    lines = (f"HTTP/1.1 {status}", *headers, "Connection: close", "", "")
    return Fault(answer="\r\n".join(lines).encode("utf-8") + body)


def with_length(body: bytes, *headers: str, status: str = "200 OK") -> Fault:
    return raw(status, f"Content-Length: {len(body)}", *headers, body=body)


def tries(call: Callable[[], object], most: int = 50) -> list[LwrError]:
    """Call until it works, as a runner would; the errors on the way, which must all be transient."""
    errors: list[LwrError] = []
    while len(errors) < most:
        try:
            call()
        except LwrError as error:
            if not error.transient:
                raise
            errors.append(error)
        else:
            return errors
    raise errors[-1]
