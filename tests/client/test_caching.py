"""What is sent once and what is not: against a cache of a few lines, and against a real server."""

from __future__ import annotations

import hmac
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lwr.client.caching import SMALLEST_BYTES, CacheRoutes, Contents, Place, contents_from_environ
from lwr.client.endpoint import Endpoint
from lwr.client.http import Conversation
from lwr.client.remote import RemoteServer
from lwr.errors import PeerUnreachable
from lwr.transfer.interrupt import Interrupt, Interrupted
from lwr.transfer.partial import Transferred
from tests.client.scripted import Answer, Scripted, json_answer
from tests.server.http.served import Served, served
from tests.support import DEADLINE_S, wait_until

DATA = b"x" * SMALLEST_BYTES
SALT = b"s" * 32


class FakeCache:
    """A server's cache in memory; `send` is the upload that goes with it."""

    def __init__(self, url: str = "http://a/", *, salt: bytes | None = SALT, has_room: bool = True) -> None:
        self.url = url
        self.uploads = 0
        self.asked_for_salt = 0
        self.claims = 0
        self._salt = salt
        self._has_room = has_room
        self._brought: bytes | None = None
        self._kept: set[bytes] = set()

    def salt(self) -> bytes | None:
        self.asked_for_salt += 1
        return self._salt

    def claim(self, place: Place, claim: bytes) -> bool:
        self.claims += 1
        return claim in self._kept

    def keep(self, place: Place) -> bool:
        assert self._brought is not None
        if self._has_room:
            self._kept.add(hmac.digest(self._salt or b"", self._brought, "sha256"))
        return self._has_room

    def forget(self) -> None:
        self._kept.clear()

    def send(self, source: Path) -> Callable[[], Transferred]:
        def upload() -> Transferred:
            self.uploads += 1
            self._brought = source.read_bytes()
            return Transferred(len(self._brought), b"", "sha-256")

        return upload


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "source"
    path.write_bytes(DATA)
    return path


def send(contents: Contents, server: FakeCache, source: Path, job: str = "job") -> Transferred:
    return contents.send(server, Place(job, "input", "data"), source, server.send(source), Interrupt())


def test_a_content_is_sent_once_whatever_it_is_called(source: Path) -> None:
    contents, server = Contents(), FakeCache()
    other = source.with_name("other")
    other.write_bytes(DATA)
    moved = [send(contents, server, path, f"job-{path.name}") for path in (source, source, other)]
    assert server.uploads == 1
    assert {each.size_bytes for each in moved} == {len(DATA)}
    assert {each.checked for each in moved} == {"sha-256"}


def test_a_changed_file_is_sent_again(source: Path) -> None:
    contents, server = Contents(), FakeCache()
    for data in (DATA, b"y" * len(DATA), DATA):
        source.write_bytes(data)
        send(contents, server, source)
    assert server.uploads == 2


def test_what_another_process_brought_is_found(source: Path) -> None:
    server = FakeCache()
    for _ in range(2):
        send(Contents(), server, source)
    assert server.uploads == 1


def test_what_the_server_threw_out_is_sent_again(source: Path) -> None:
    contents, server = Contents(), FakeCache()
    send(contents, server, source)
    server.forget()
    send(contents, server, source)
    assert server.uploads == 2


def test_each_server_is_sent_its_own(source: Path) -> None:
    contents = Contents()
    servers = [FakeCache("http://a/"), FakeCache("http://b/"), FakeCache("http://c/", salt=b"t" * 32)]
    for server in servers * 2:
        send(contents, server, source)
    assert [server.uploads for server in servers] == [1, 1, 1]


def test_small_files_are_just_sent(source: Path) -> None:
    contents, server = Contents(), FakeCache()
    source.write_bytes(DATA[1:])
    for _ in range(2):
        send(contents, server, source)
    assert (server.uploads, server.asked_for_salt) == (2, 0)


def test_a_server_without_a_cache_is_asked_once(source: Path) -> None:
    contents, server = Contents(), FakeCache(salt=None)
    for _ in range(3):
        send(contents, server, source)
    assert (server.uploads, server.asked_for_salt, server.claims) == (3, 1, 0)


@pytest.mark.parametrize(("value", "asked"), [("0", 0), (" 0 ", 0), ("1", 1), ("", 1), (None, 1)])
def test_it_can_be_switched_off(source: Path, value: str | None, asked: int) -> None:
    server = FakeCache()
    contents = contents_from_environ({} if value is None else {"LWR_CACHE_TRANSFERS": value})
    send(contents, server, source)
    assert (server.uploads, server.asked_for_salt) == (1, asked)


def test_a_file_that_is_not_there_is_the_uploads_affair(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        send(Contents(), FakeCache(), tmp_path / "nothing")


# -- several at a time -------------------------------------------------------------------------------------------


class Slow(FakeCache):
    """One of whose uploads, the first unless told otherwise, waits until it may go on."""

    def __init__(self, *, has_room: bool = True, fails: bool = False, number: int = 1) -> None:
        super().__init__(has_room=has_room)
        self.go_on = threading.Event()
        self.begun = 0
        self._fails = fails
        self._number = number

    def send(self, source: Path) -> Callable[[], Transferred]:
        upload = super().send(source)

        def wait() -> Transferred:
            self.begun += 1
            if self.begun == self._number:
                assert self.go_on.wait(DEADLINE_S)
                if self._fails:
                    raise PeerUnreachable("It broke.")
            return upload()

        return wait


def _together(server: Slow, source: Path, count: int) -> list[object]:
    contents = Contents()
    results: list[object] = []

    def work() -> None:
        try:
            results.append(send(contents, server, source))
        except PeerUnreachable as error:
            results.append(error)

    threads = [threading.Thread(target=work) for _ in range(count)]
    for thread in threads:
        thread.start()
    wait_until(lambda: server.claims >= count, "all to have asked")
    server.go_on.set()
    for thread in threads:
        thread.join()
    return results


def test_the_second_waits_for_the_first(source: Path) -> None:
    server = Slow()
    assert len(_together(server, source, 4)) == 4
    assert server.uploads == 1


def test_a_failure_of_the_first_is_its_own(source: Path) -> None:
    server = Slow(fails=True)
    results = _together(server, source, 4)
    assert sum(isinstance(each, PeerUnreachable) for each in results) == 1
    assert server.uploads == 1


def test_nobody_waits_for_what_is_not_kept(source: Path) -> None:
    contents, server = Contents(), Slow(has_room=False, number=2)
    send(contents, server, source)
    slow = threading.Thread(target=send, args=(contents, server, source))
    slow.start()
    wait_until(lambda: server.begun == 2, "the second to be at it")
    send(contents, server, source)
    assert server.uploads == 2, "the third overtakes the second"
    server.go_on.set()
    slow.join()


def test_who_waits_can_be_interrupted(source: Path) -> None:
    contents, server, interrupt = Contents(), Slow(), Interrupt()
    first = threading.Thread(target=send, args=(contents, server, source))
    first.start()
    wait_until(lambda: server.claims == 1, "the first to have asked")
    wait_until(lambda: contents._under_way, "the first to be at it")
    interrupt.set()
    with pytest.raises(Interrupted):
        contents.send(server, Place("job", "input", "data"), source, server.send(source), interrupt)
    server.go_on.set()
    first.join()


# -- over HTTP ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    directory = tmp_path_factory.mktemp("cached")
    with served(directory, secret="open sesame", options=f"file_cache_dir = {directory / 'cache'}") as running:
        yield running


@pytest.mark.parametrize("size_bytes", [SMALLEST_BYTES, 9 << 20], ids=["plain", "in pieces"])
def test_a_real_server_gets_it_once(server: Served, tmp_path: Path, size_bytes: int) -> None:
    source = tmp_path / "source"
    source.write_bytes(b"%d" % size_bytes * (size_bytes // 7 + 1))
    with RemoteServer(server.url, "open sesame") as first, RemoteServer(server.url, "open sesame") as second:
        before = _counters(first)
        for number, remote in enumerate((first, first, second)):
            job_id = f"job-{size_bytes}-{number}"
            remote.setup(job_id)
            moved = remote.upload(job_id, "input", "a/data", source)
            assert (moved.size_bytes, moved.checked) == (source.stat().st_size, "sha-256")
            assert server.job_file(job_id, "inputs/a/data").read_bytes() == source.read_bytes()
        after = _counters(first)
    assert after["entries"] - before["entries"] == 1
    assert after["bytes_saved"] - before["bytes_saved"] == 2 * source.stat().st_size


def _counters(remote: RemoteServer) -> dict[str, int]:
    told = remote._http.ask_json("GET", "cache", {}, "look at the cache")
    assert isinstance(told, dict)
    return told


@pytest.mark.parametrize(
    "answer",
    [
        Answer(404, b"not found"),
        Answer(405),
        Answer(500),
        Answer(200, b"<html>"),
        json_answer(None),
        json_answer({}),
        json_answer({"salt": "x"}),
        json_answer({"salt": "00"}),
        json_answer({"salt": 7}),
        json_answer([1]),
    ],
)
def test_other_servers_have_no_cache(answer: Answer) -> None:
    other = Scripted(answer)
    http = Conversation(Endpoint(other.url))
    try:
        assert CacheRoutes(http, lambda call: call()).salt() is None
    finally:
        http.close()
        other.close()
