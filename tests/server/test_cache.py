"""Contents are kept once, given whole, thrown out when they were changed, and make room for others.

Whether read-only files protect is asked of the system, so what holds for root and for others is tried as both.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from lwr.core.places import SETUP_AREAS
from lwr.errors import ConfigError, NotFound
from lwr.server.announcements import ANNOUNCED_S, MEANING_S, Announcements
from lwr.server.cache import Cache
from lwr.server.contents import Content, Identity
from lwr.server.database import Database
from lwr.transfer.jobfiles import JobFiles

PLACE = ("inputs", "data.bin")
ADDRESS = "192.0.2.1"


class Room:
    """A cache with all that it needs, to be closed and opened again."""

    def __init__(self, directory: Path, maximum_bytes: int = 0) -> None:
        self.now = 1_000_000.0
        self.directory = directory / "cache"
        self._jobs = directory / "jobs"
        self._database = Database(directory / "lwr.sqlite")
        self.cache = Cache(str(self.directory), maximum_bytes, self._database, clock=lambda: self.now)
        self.announcements = Announcements(self.cache, self._database, clock=lambda: self.now)

    def start(self) -> Room:
        try:
            self.cache.start()
        except BaseException:
            self.close()
            raise
        return self

    def close(self) -> None:
        self._database.close()

    def job(self, name: str) -> JobFiles:
        files = JobFiles(str(self._jobs / name))
        files.make(SETUP_AREAS)
        return files

    def bring(self, data: bytes) -> Content | None:
        """A content that was used now; each a second later than the one before."""
        self.now += 1
        with self.cache.arrival() as arrival:
            arrival.put([data[:3], data[3:]])
            return self.cache.keep(arrival)

    def give(self, data: bytes, job: str) -> Path | None:
        """Put a content into a job; its path there."""
        self.now += 1
        files = self.job(job)
        part = self.cache.part(sha256(data), files)
        if part is None:
            return None
        with part:
            part.commit(PLACE)
        return Path(files.root, *PLACE)

    def path(self, data: bytes) -> Path:
        name = hashlib.sha256(data).hexdigest()
        return self.directory / name[:2] / name

    def names(self) -> set[str]:
        return {path.name for path in self.directory.rglob("*") if not path.is_dir() and not path.name.startswith(".")}

    def parts(self) -> list[Path]:
        return list(self.directory.glob(".part-*"))


def sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


@pytest.fixture
def room(tmp_path: Path) -> Iterator[Room]:
    opened = Room(tmp_path).start()
    yield opened
    opened.close()


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Room]:
    """Room for ten bytes."""
    opened = Room(tmp_path, maximum_bytes=10).start()
    yield opened
    opened.close()


@pytest.mark.parametrize("data", [b"", b"content", bytes(range(256)) * 8192], ids=len)
def test_a_content_is_kept_once_and_given_whole(room: Room, data: bytes) -> None:
    kept = room.bring(data)
    assert kept == Content(sha256(data), hmac.digest(room.cache.salt, data, "sha256"), len(data))
    assert room.bring(data) == kept
    assert room.cache.claimed(kept.claim) == kept.sha256
    assert (room.names(), room.parts()) == ({kept.sha256.hex()}, [])
    assert room.path(data).stat().st_mode & 0o777 == 0o444
    assert room.directory.stat().st_mode & 0o777 == 0o700
    for job in ("one", "two"):
        given = room.give(data, job)
        assert given is not None
        assert given.read_bytes() == data
    counters = {"hits": 2, "misses": 0, "bytes_saved": 2 * len(data), "entries": 1, "size_bytes": len(data)}
    assert room.cache.counters() == counters | {"maximum_bytes": 0}


def test_nobody_is_given_what_is_not_there(room: Room) -> None:
    assert room.give(b"unknown", "job") is None
    assert room.cache.claimed(sha256(b"unknown")) is None
    assert room.cache.counters()["misses"] == 1
    kept = room.bring(b"content")
    assert kept is not None
    assert room.cache.claimed(kept.sha256) is None, "a digest is no claim"


def test_what_came_to_a_job_is_taken(room: Room) -> None:
    files = room.job("job")
    files.write(PLACE, b"content")
    for _ in range(2):
        with files.open(PLACE) as opened:
            assert room.cache.take(opened.file, opened.size_bytes)
    assert room.path(b"content").read_bytes() == b"content"


def test_several_bring_the_same_at_once(room: Room) -> None:
    data = b"x" * 500_000
    threads = [threading.Thread(target=room.bring, args=(data,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (room.names(), room.parts()) == ({sha256(data).hex()}, [])
    assert room.path(data).read_bytes() == data
    assert room.cache.holds(sha256(data))


def test_several_are_given_the_same_while_jobs_end(room: Room) -> None:
    """Each removal of a job's name changes the file's time; no thread may take that for damage."""
    data = b"x" * 200_000
    room.bring(data)
    missing: list[str] = []

    def work(thread: int) -> None:
        for number in range(10):
            given = room.give(data, f"job-{thread}-{number}")
            if given is None or given.read_bytes() != data:
                missing.append(f"{thread}-{number}")
            else:
                given.unlink()

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert missing == []
    assert room.cache.holds(sha256(data))


def test_an_unfinished_content_leaves_nothing(room: Room) -> None:
    with room.cache.arrival() as arrival:
        arrival.put([b"half"])
        assert room.parts() != []
    assert (room.names(), room.parts()) == (set(), [])


# -- changed contents --------------------------------------------------------------------------------------------


def _write_in_place(path: Path) -> None:
    path.chmod(0o644)
    path.write_bytes(b"CONTENT")
    path.chmod(0o444)


def _write_and_hide_it(path: Path) -> None:
    before = path.stat()
    _write_in_place(path)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def _replace(path: Path) -> None:
    other = path.with_name("other")
    other.write_bytes(b"CONTENT")
    other.chmod(0o444)
    other.replace(path)


@pytest.mark.parametrize(
    "change", [_write_in_place, _write_and_hide_it, _replace, Path.unlink, lambda path: path.chmod(0o644)]
)
def test_a_changed_content_is_thrown_out(room: Room, change: Callable[[Path], object]) -> None:
    room.bring(b"content")
    change(room.path(b"content"))
    assert room.give(b"content", "job") is None
    assert not Path(room.job("job").root, *PLACE).exists()
    assert room.names() == set()
    room.bring(b"content")
    assert room.give(b"content", "job") is not None


@pytest.mark.parametrize(
    ("changes", "explained"),
    [
        ({}, True),
        ({"ctime_ns": 6, "names_count": 2}, True),
        ({"ctime_ns": 6}, False),
        ({"ctime_ns": 6, "names_count": 4}, False),
        ({"ctime_ns": 6, "names_count": 2, "mtime_ns": 6}, False),
        ({"ctime_ns": 6, "names_count": 2, "size_bytes": 6}, False),
        ({"ctime_ns": 6, "names_count": 2, "inode": 6}, False),
    ],
)
def test_only_a_name_that_went_needs_no_other_look(changes: dict[str, int], explained: bool) -> None:
    known = Identity(size_bytes=5, inode=5, mtime_ns=5, ctime_ns=5, names_count=3)
    assert known.explains(replace(known, **changes)) is explained


def test_a_changed_content_is_replaced_when_it_is_brought_again(room: Room) -> None:
    room.bring(b"content")
    _write_and_hide_it(room.path(b"content"))
    room.bring(b"content")
    assert room.path(b"content").read_bytes() == b"content"


def test_a_job_that_writes_to_its_copy_changes_no_other(room: Room) -> None:
    """As the user that runs this, root perhaps: what it may do, a job may do."""
    room.bring(b"content")
    given = room.give(b"content", "one")
    assert given is not None
    try:
        given.write_bytes(b"CONTENT")
    except PermissionError:
        assert given.read_bytes() == b"content"
    other = room.give(b"content", "two")
    assert other is not None
    assert other.read_bytes() == b"content"


def test_the_same_as_a_user_whom_read_only_files_stop(tmp_path: Path) -> None:
    """Jobs get second names of the cache's files then. Root becomes such a user in a process of its own."""
    script = Path(__file__).with_name("cache_as_nobody.py")
    root = Path(__file__).parents[2]
    with tempfile.TemporaryDirectory() as directory:  # pytest's own may be entered by its user only
        done = subprocess.run(
            [sys.executable, script, directory], capture_output=True, text=True, timeout=50,
            env={**os.environ, "PYTHONPATH": os.pathsep.join([str(root), *sys.path])},
        )  # fmt: skip
    assert (done.returncode, done.stdout.splitlines()[-1:]) == (0, ["done"]), done.stdout + done.stderr


# -- room --------------------------------------------------------------------------------------------------------


def test_what_was_used_longest_ago_makes_room(small: Room) -> None:
    small.bring(b"aaaa")
    small.bring(b"bbbb")
    assert small.give(b"aaaa", "job") is not None
    small.job("job")
    assert small.bring(b"cccc") is not None
    assert small.names() == {sha256(data).hex() for data in (b"aaaa", b"cccc")}


def test_what_cannot_fit_is_not_kept_and_nothing_goes_for_it(small: Room) -> None:
    small.bring(b"aaaa")
    assert small.bring(b"x" * 11) is None
    files = small.job("job")
    files.write(PLACE, b"y" * 11)
    with files.open(PLACE) as opened:
        assert not small.cache.take(opened.file, 11)
    assert (small.names(), small.parts()) == ({sha256(b"aaaa").hex()}, [])
    assert small.bring(b"x" * 10) is not None, "exactly full"


def test_a_content_goes_while_it_is_given(small: Room) -> None:
    """Who has it open keeps it."""
    small.bring(b"aaaa")
    with small.cache._opened(sha256(b"aaaa")) as file:
        small.bring(b"x" * 10)
        assert small.names() == {sha256(b"x" * 10).hex()}
        assert file is not None
        assert file.read() == b"aaaa"


# -- restart -----------------------------------------------------------------------------------------------------


def test_a_restart_keeps_contents_and_removes_remains(tmp_path: Path) -> None:
    first = Room(tmp_path).start()
    kept, salt = first.bring(b"content"), first.cache.salt
    gone = first.bring(b"gone")
    first.announcements.brought(ADDRESS, "/g/1.dat", sha256(b"content"))
    token = first.announcements.status(ADDRESS, "/g/1.dat")[0]
    first.close()
    first.path(b"gone").unlink()
    stray = first.directory / "ab" / ("ab" * 32)
    stray.parent.mkdir(exist_ok=True)
    stray.write_bytes(b"never recorded")
    (first.directory / ".part-1").write_bytes(b"half")
    foreign = first.directory / "ab" / "README"
    foreign.write_text("not of LWR")
    second = Room(tmp_path).start()
    assert kept is not None
    assert gone is not None
    assert second.cache.salt == salt
    assert second.cache.claimed(kept.claim) == kept.sha256
    assert second.cache.claimed(gone.claim) is None
    assert second.announcements.status(ADDRESS, "/g/1.dat") == (token, True)
    assert second.names() == {kept.sha256.hex(), "README"}
    assert second.parts() == []
    second.close()


def test_the_directory_of_another_server_is_refused(tmp_path: Path) -> None:
    mine = Room(tmp_path).start()
    mine.bring(b"content")
    mine.close()
    (tmp_path / "lwr.sqlite").unlink()
    with pytest.raises(ConfigError, match="another LWR server"):
        Room(tmp_path).start()
    assert mine.path(b"content").exists()


# -- the older clients' words ------------------------------------------------------------------------------------


def test_the_first_who_asks_is_told_to_send(room: Room) -> None:
    said = room.announcements
    assert [said.required(ADDRESS, "/g/1.dat") for _ in range(3)] == [True, False, False]
    token, ready = said.status(ADDRESS, "/g/1.dat")
    assert (len(token), ready) == (64, False)
    assert said.content(ADDRESS, token) is None
    room.bring(b"content")
    said.brought(ADDRESS, "/g/1.dat", sha256(b"content"))
    assert said.status(ADDRESS, "/g/1.dat") == (token, True)
    assert not said.required(ADDRESS, "/g/1.dat")
    assert said.content(ADDRESS, token) == sha256(b"content")


def test_tokens_are_of_one_address_and_path_and_server(room: Room, tmp_path: Path) -> None:
    room.bring(b"content")
    room.announcements.brought(ADDRESS, "/g/1.dat", sha256(b"content"))
    token, _ = room.announcements.status(ADDRESS, "/g/1.dat")
    assert room.announcements.content("192.0.2.2", token) is None
    assert room.announcements.status("192.0.2.2", "/g/1.dat")[0] != token
    assert room.announcements.status(ADDRESS, "/g/2.dat") != (token, True)
    assert room.announcements.content(ADDRESS, hashlib.sha256(f"IP:{ADDRESS}:/g/1.dat".encode()).hexdigest()) is None
    for guess in ("../../etc/passwd", token.upper(), token[:-1], "", "%", token + "\0", sha256(b"content").hex()):
        assert room.announcements.content(ADDRESS, guess) is None
    (tmp_path / "other").mkdir()
    other = Room(tmp_path / "other").start()
    other.announcements.required(ADDRESS, "/g/1.dat")
    assert other.announcements.status(ADDRESS, "/g/1.dat")[0] != token
    other.close()


def test_what_is_brought_again_replaces_what_a_path_meant(room: Room) -> None:
    for data in (b"old", b"new"):
        room.bring(data)
        room.announcements.brought(ADDRESS, "/g/1.dat", sha256(data))
    token, ready = room.announcements.status(ADDRESS, "/g/1.dat")
    assert (room.announcements.content(ADDRESS, token), ready) == (sha256(b"new"), True)


def test_an_announcement_that_nobody_keeps_is_taken_over(room: Room) -> None:
    said = room.announcements
    assert said.required(ADDRESS, "/g/1.dat")
    room.now += ANNOUNCED_S - 1
    assert not said.required(ADDRESS, "/g/1.dat")
    assert said.status(ADDRESS, "/g/1.dat")[1] is False
    room.now += 2
    with pytest.raises(NotFound, match="Nobody sent the file"):
        said.status(ADDRESS, "/g/1.dat")
    assert [said.required(ADDRESS, "/g/1.dat") for _ in range(2)] == [True, False]
    assert said.status(ADDRESS, "/g/1.dat")[1] is False


def test_a_path_means_its_content_for_a_while_only(room: Room) -> None:
    said = room.announcements
    room.bring(b"content")
    said.brought(ADDRESS, "/g/1.dat", sha256(b"content"))
    room.now += MEANING_S - 1
    assert not said.required(ADDRESS, "/g/1.dat")
    room.now += 2
    assert said.required(ADDRESS, "/g/1.dat")
    assert said.status(ADDRESS, "/g/1.dat")[1] is False, "nothing stale is given while it is sent again"


def test_a_path_whose_content_is_gone_must_be_sent_again(small: Room) -> None:
    said = small.announcements
    small.bring(b"aaaa")
    said.brought(ADDRESS, "/g/1.dat", sha256(b"aaaa"))
    small.bring(b"x" * 10)
    with pytest.raises(NotFound):
        said.status(ADDRESS, "/g/1.dat")
    assert [said.required(ADDRESS, "/g/1.dat") for _ in range(2)] == [True, False]


def test_of_many_who_ask_at_once_one_sends(room: Room) -> None:
    said: list[bool] = []
    barrier = threading.Barrier(6)

    def ask() -> None:
        barrier.wait()
        said.append(room.announcements.required(ADDRESS, "/g/1.dat"))

    threads = [threading.Thread(target=ask) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(said) == [False] * 5 + [True]
