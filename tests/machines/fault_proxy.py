"""A TCP proxy on loopback that breaks what goes through it as planned, and counts the bytes of both directions.

Knows of HTTP only what two faults need: where the first answer of a connection has its headers. Nothing is decided by
chance: the first connection has the first fault of the plan, and so on; later ones have `otherwise`, which is harmless.
"""

from __future__ import annotations

import asyncio
import re
import socket
import struct
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from http import HTTPStatus
from types import TracebackType

from tests.machines.loop_thread import LoopThread

PIECE_BYTES = 256 * 1024
#: How long a client that was answered by the proxy itself has for going on to send; only a stuck test needs as much.
LINGER_S = 10.0


@dataclass(frozen=True)
class Fault:
    """What befalls one connection. "Up" goes to the server, "down" to the client; each part may stand with others.

    Attributes:
        cut_up_bytes: after so many bytes from the client both ends are cut; 0: as soon as it has connected.
        cut_down_bytes: after so many bytes of answers; 0: instead of the first, when the server has already worked.
        reset: cut by RST, as a router does, and not by FIN, as a program that ends does.
        delay_s: before the first byte of an answer.
        down_bytes_per_s: answers trickle at this rate; 0 for no bound.
        flip_up_at, flip_down_at: the byte of this number, from 0, in the body of the first request or answer has all
            its bits turned over. The framing of a chunked body counts: its first chunk begins after some 7 bytes.
        drop_content_length: the first answer loses its Content-Length, and the connection is closed after it.
        answer: said by the proxy as soon as a request's headers came; the server is not asked.
    """

    cut_up_bytes: int | None = None
    cut_down_bytes: int | None = None
    reset: bool = False
    delay_s: float = 0
    down_bytes_per_s: int = 0
    flip_up_at: int | None = None
    flip_down_at: int | None = None
    drop_content_length: bool = False
    answer: bytes = b""


HARMLESS = Fault()


def answering(status: int, *, headers: str = "", body: bytes = b"<html><body>from a proxy</body></html>\n") -> Fault:
    """The proxy answers by itself. `headers` are whole lines, each with its CRLF."""
    head = f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\nContent-Type: text/html\r\nConnection: close\r\n{headers}"
    return Fault(answer=f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)


@dataclass
class Line:
    """One connection: its fault, and the bytes that were passed on to the server and to the client."""

    fault: Fault
    up_bytes: int = 0
    down_bytes: int = 0


class _CutError(Exception):
    """The line has reached the end that its fault gives it."""


class FaultProxy:
    """A proxy before `host` and `port`; a context manager. Each new connection takes from `plan`, which may grow."""

    def __init__(
        self, port: int, plan: Iterable[Fault] = (), *, otherwise: Fault = HARMLESS, host: str = "127.0.0.1"
    ) -> None:
        self.port = 0
        self.plan = deque(plan)
        self.otherwise = otherwise
        self.lines: list[Line] = []
        self._target = (host, port)
        self._thread = LoopThread("fault proxy", self._serve)
        self._running: set[asyncio.Task[None]] = set()
        self._flows = asyncio.Event()
        self._flows.set()

    def __enter__(self) -> FaultProxy:
        self.port = self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._thread.stop()

    def url(self, path: str = "/") -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    @property
    def up_bytes(self) -> int:
        """All bytes that were passed on for clients, headers included, and those that an answer of ours swallowed."""
        return sum(line.up_bytes for line in list(self.lines))

    @property
    def down_bytes(self) -> int:
        """All bytes that were passed on to clients, headers included; a reset may have destroyed some on the way."""
        return sum(line.down_bytes for line in list(self.lines))

    def cut(self) -> None:
        """End all present connections, at once."""
        self._thread.call(lambda: [task.cancel() for task in self._running])

    def freeze(self) -> None:
        """Pass nothing on any more, on no connection, and end none: half open, for either side. `thaw` ends that."""
        self._thread.call(self._flows.clear)

    def thaw(self) -> None:
        """Pass on what was held back, and all that follows."""
        self._thread.call(self._flows.set)

    async def _serve(self, ready: Callable[[int], None], stop: asyncio.Event) -> None:
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0, limit=PIECE_BYTES)
        async with server:
            ready(server.sockets[0].getsockname()[1])
            await stop.wait()
            for task in self._running:
                task.cancel()
            await asyncio.gather(*self._running, return_exceptions=True)
            await asyncio.sleep(0)  # the sockets are closed in the next round of the loop

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        line = Line(self.plan.popleft() if self.plan else self.otherwise)
        self.lines.append(line)
        task = asyncio.current_task()
        assert task is not None
        self._running.add(task)
        try:
            if line.fault.answer:
                await _answer(reader, writer, line)
            elif line.fault.cut_up_bytes != 0:
                await self._join(reader, writer, line)
        except asyncio.CancelledError:
            writer.transport.abort()
        except (OSError, EOFError):
            pass  # one end is gone, and the other will learn it by the close
        finally:
            self._running.discard(task)
            _close(writer, reset=line.fault.reset)

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, line: Line) -> None:
        server_reader, server_writer = await asyncio.open_connection(*self._target, limit=PIECE_BYTES)
        fault = line.fault
        up = _Stream(fault.cut_up_bytes, fault.flip_up_at)
        down = _Stream(fault.cut_down_bytes, fault.flip_down_at, drops_length=fault.drop_content_length)
        ways = [
            asyncio.create_task(_pump_up(reader, server_writer, up, line, self._flows)),
            asyncio.create_task(_pump_down(server_reader, writer, down, line, self._flows)),
        ]
        try:
            # One way may end alone, by FIN, and the other goes on; a cut or a broken end is an exception and ends both.
            await asyncio.wait(ways, return_when=asyncio.FIRST_EXCEPTION)
        finally:
            for way in ways:
                way.cancel()
            try:
                await asyncio.gather(*ways, return_exceptions=True)
            finally:  # the proxy may be stopped at this very moment
                _close(server_writer, reset=fault.reset)


class _Stream:
    """One direction of a connection: what to send on for the bytes that came. Pure."""

    def __init__(self, cut_at: int | None, flip_at: int | None, *, drops_length: bool = False) -> None:
        #: The line ends after what was returned last.
        self.over = False
        self._left = cut_at
        self._flip_at = flip_at
        self._drops_length = drops_length
        self._head = b""
        self._in_body = flip_at is None and not drops_length
        self._body_bytes = 0
        self._body_left: int | None = None

    def feed(self, piece: bytes) -> bytes:
        out = self._body(piece) if self._in_body else self._heads(piece)
        if self._left is not None:
            out = out[: self._left]
            self._left -= len(out)
            self.over = self.over or self._left == 0
        return out

    def _heads(self, piece: bytes) -> bytes:
        """The headers of the first message, as soon as they are whole, and of any 1xx before it."""
        self._head += piece
        head, end, rest = self._head.partition(b"\r\n\r\n")
        if not end:
            return b""
        self._head = b""
        if re.match(rb"HTTP/1\.1 1\d\d", head):
            return head + end + self._heads(rest)
        self._in_body = True
        if self._drops_length:
            head = self._without_length(head)
        return head + end + self._body(rest)

    def _without_length(self, head: bytes) -> bytes:
        length = re.search(rb"(?i)\r\nContent-Length: *(\d+)", head)
        if length is None:
            return head
        self._body_left = int(length[1])
        return head.replace(length[0], b"\r\nConnection: close")

    def _body(self, piece: bytes) -> bytes:
        if self._flip_at is not None and 0 <= (at := self._flip_at - self._body_bytes) < len(piece):
            piece = piece[:at] + bytes([piece[at] ^ 0xFF]) + piece[at + 1 :]
        self._body_bytes += len(piece)
        if self._body_left is not None:
            self._body_left -= len(piece)
            self.over = self._body_left <= 0
        return piece


async def _pump_up(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, stream: _Stream, line: Line, flows: asyncio.Event
) -> None:
    while piece := await reader.read(PIECE_BYTES):
        await flows.wait()
        out = stream.feed(piece)
        line.up_bytes += len(out)
        writer.write(out)
        await writer.drain()
        if stream.over:
            raise _CutError
    await flows.wait()
    writer.write_eof()


async def _pump_down(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, stream: _Stream, line: Line, flows: asyncio.Event
) -> None:
    rate = line.fault.down_bytes_per_s
    step = max(1, rate // 20) if rate else PIECE_BYTES
    while piece := await reader.read(PIECE_BYTES):
        await flows.wait()
        if not line.down_bytes:
            await asyncio.sleep(line.fault.delay_s)
        out = stream.feed(piece)
        for start in range(0, len(out), step):
            part = out[start : start + step]
            line.down_bytes += len(part)
            writer.write(part)
            await writer.drain()
            await asyncio.sleep(len(part) / rate if rate else 0)
        if stream.over:
            raise _CutError
    await flows.wait()
    writer.write_eof()


async def _answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, line: Line) -> None:
    line.up_bytes += len(await reader.readuntil(b"\r\n\r\n"))
    writer.write(line.fault.answer)
    writer.write_eof()
    line.down_bytes += len(line.fault.answer)
    # Closed with something unread, the line would be reset, and the answer lost on a client that sends first.
    async with asyncio.timeout(LINGER_S):
        while piece := await reader.read(PIECE_BYTES):
            line.up_bytes += len(piece)


def _close(writer: asyncio.StreamWriter, *, reset: bool) -> None:
    """Close one end; what was written before is still sent, unless the line is reset."""
    if reset and not writer.is_closing() and (raw := writer.get_extra_info("socket")) is not None:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()
    else:
        writer.close()
