"""Copies on this machine: whole under their name or not there, regular files only, and only where it is allowed."""

from __future__ import annotations

import hashlib
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from lwr.errors import BadRequest, BadTransfer, NotFound, ServerError
from lwr.transfer.copying import copy_file, copy_in, copy_out
from lwr.transfer.interrupt import Interrupt, Interrupted
from lwr.transfer.jobfiles import JobFiles, OpenFile
from lwr.transfer.partial import Partial, Transferred
from lwr.transfer.reach import Reach
from lwr.transfer.runner import TooLargeForLane
from tests.transfer.conftest import RunMounted

#: More than one piece, and not a multiple of it.
DATA = os.urandom(2_500_000)
SHA256 = hashlib.sha256(DATA).digest()
ANYWHERE = Reach()


def _nothing() -> None:
    """What happens before a piece is written."""


class Memory:
    """A place for bytes. `on_write` is called before each piece."""

    def __init__(self, data: bytes = b"") -> None:
        self.data = data
        self.size_bytes = len(data)
        self.on_write: Callable[[], None] = _nothing

    def write(self, data: bytes | memoryview) -> None:
        self.on_write()
        self.data += bytes(data)
        self.size_bytes = len(self.data)

    def restart(self) -> None:
        self.data = b""
        self.size_bytes = 0

    def read(self, offset: int, size_bytes: int) -> bytes:
        return self.data[offset : offset + size_bytes]


@pytest.fixture
def source(tmp_path: Path) -> Iterator[OpenFile]:
    """A job's output, open."""
    files = JobFiles(str(tmp_path / "job"))
    files.make([])
    files.write(("output",), DATA)
    with files.open(("output",)) as opened:
        yield opened


def test_a_file_comes_in_counted_and_hashed(tmp_path: Path) -> None:
    (tmp_path / "input").write_bytes(DATA)
    place = Memory(b"what an earlier try left")
    moved = copy_in(str(tmp_path / "input"), Partial(place), Interrupt(), ANYWHERE)
    assert place.data == DATA
    assert moved == Transferred(len(DATA), SHA256, "size", wasted_bytes=24)


def test_an_empty_file_comes_in(tmp_path: Path) -> None:
    (tmp_path / "input").touch()
    moved = copy_in(str(tmp_path / "input"), Partial(Memory()), Interrupt(), ANYWHERE)
    assert moved == Transferred(0, hashlib.sha256().digest(), "size")


def test_a_file_goes_out_over_another_and_makes_directories(tmp_path: Path, source: OpenFile) -> None:
    target = tmp_path / "new" / "er" / "dataset 1.dat"
    for _ in range(2):
        assert copy_out(source, str(target), Interrupt(), ANYWHERE) == Transferred(len(DATA), SHA256, "size")
        assert target.read_bytes() == DATA
        assert os.listdir(target.parent) == [target.name]
    assert target.stat().st_mode & 0o777 == 0o644 & ~_umask()


def _umask() -> int:
    umask = os.umask(0o22)
    os.umask(umask)
    return umask


def test_a_link_at_the_target_is_replaced_and_not_followed(tmp_path: Path, source: OpenFile) -> None:
    precious, target = tmp_path / "precious", tmp_path / "target"
    precious.write_text("do not touch")
    target.symlink_to(precious)
    copy_out(source, str(target), Interrupt(), ANYWHERE)
    assert precious.read_text() == "do not touch"
    assert not target.is_symlink()
    assert target.read_bytes() == DATA


@pytest.mark.parametrize("what", ["fifo", "socket", "directory", "device"])
def test_what_is_no_regular_file_is_not_read(tmp_path: Path, what: str) -> None:
    path = tmp_path / what
    with socket.socket(socket.AF_UNIX) as listening:
        match what:
            case "fifo":
                os.mkfifo(path)
            case "socket":
                listening.bind(str(path))
            case "directory":
                path.mkdir()
            case "device":
                path = Path("/dev/zero")
        with pytest.raises(BadRequest, match="no regular file"):
            copy_in(str(path), Partial(Memory()), Interrupt(), ANYWHERE)


def test_a_missing_file_is_named_and_not_asked_for_again(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="nothing here") as raised:
        copy_in(str(tmp_path / "nothing here"), Partial(Memory()), Interrupt(), ANYWHERE)
    assert not raised.value.transient


@pytest.mark.usefixtures("refused", "as_owner")
def test_what_may_not_be_read_or_written_is_final(tmp_path: Path, source: OpenFile) -> None:
    with pytest.raises(ServerError, match="Permission denied") as raised:
        copy_in(str(tmp_path / "refused" / "file"), Partial(Memory()), Interrupt(), ANYWHERE)
    assert not raised.value.transient
    with pytest.raises(ServerError, match="Permission denied") as raised:
        copy_out(source, str(tmp_path / "refused" / "new"), Interrupt(), ANYWHERE)
    assert not raised.value.transient


@pytest.fixture
def refused(tmp_path: Path) -> Iterator[None]:
    """A directory that its owner may not enter."""
    (tmp_path / "refused").mkdir()
    (tmp_path / "refused" / "file").touch()
    (tmp_path / "refused").chmod(0)
    yield
    (tmp_path / "refused").chmod(0o700)


def test_a_directory_in_the_way_stays(tmp_path: Path, source: OpenFile) -> None:
    (tmp_path / "target" / "inner").mkdir(parents=True)
    with pytest.raises(BadRequest, match="target"):
        copy_out(source, str(tmp_path / "target"), Interrupt(), ANYWHERE)
    with pytest.raises(BadRequest, match="output"):
        copy_out(source, str(tmp_path / "job" / "output" / "below"), Interrupt(), ANYWHERE)
    assert sorted(os.listdir(tmp_path)) == ["job", "target"]


def test_a_relative_path_names_no_file(source: OpenFile) -> None:
    with pytest.raises(BadRequest, match="absolute"):
        copy_out(source, "target", Interrupt(), ANYWHERE)
    with pytest.raises(BadRequest, match="absolute"):
        copy_in("input", Partial(Memory()), Interrupt(), ANYWHERE)


@pytest.mark.parametrize("change", ["grow", "shrink", "rewrite"])
def test_a_file_that_changes_while_it_is_read_is_not_taken(tmp_path: Path, change: str) -> None:
    path = tmp_path / "input"
    path.write_bytes(DATA)
    place = Memory()

    def meddle() -> None:
        if place.size_bytes:
            return
        match change:
            case "grow":
                path.write_bytes(DATA + b"more")
            case "shrink":
                os.truncate(path, 1_500_000)
            case "rewrite":
                with path.open("r+b") as file:
                    file.write(b"x")
                os.utime(path, ns=(1, 1))

    place.on_write = meddle
    with pytest.raises(BadTransfer, match="changed") as raised:
        copy_in(str(path), Partial(place), Interrupt(), ANYWHERE)
    assert raised.value.transient


def test_an_endless_file_ends(tmp_path: Path) -> None:
    path = tmp_path / "input"
    path.write_bytes(DATA)
    place = Memory()

    def grow() -> None:
        with path.open("ab") as file:
            file.write(DATA)

    place.on_write = grow
    with pytest.raises(BadTransfer):
        copy_in(str(path), Partial(place), Interrupt(), ANYWHERE)
    assert place.size_bytes <= len(DATA) + (1 << 20)


def test_an_interrupt_ends_a_copy_and_leaves_what_was_there(tmp_path: Path, source: OpenFile) -> None:
    target = tmp_path / "out" / "target"
    target.parent.mkdir()
    target.write_text("before")
    interrupt = Interrupt()
    interrupt.set()
    with pytest.raises(Interrupted):
        copy_out(source, str(target), interrupt, ANYWHERE)
    with pytest.raises(Interrupted):
        copy_in(str(target), Partial(Memory()), interrupt, ANYWHERE)
    assert os.listdir(target.parent) == ["target"]
    assert target.read_text() == "before"


def test_the_lane_for_small_files_copies_nothing_of_a_large_one(tmp_path: Path) -> None:
    (tmp_path / "input").write_bytes(DATA)
    place = Memory()
    with pytest.raises(TooLargeForLane):
        copy_in(str(tmp_path / "input"), Partial(place), Interrupt(), ANYWHERE, most_bytes=1000)
    assert place.size_bytes == 0
    copy_in(str(tmp_path / "input"), Partial(place), Interrupt(), ANYWHERE, most_bytes=len(DATA))


def test_only_below_the_roots_and_not_through_links(tmp_path: Path, source: OpenFile) -> None:
    inside, outside = tmp_path / "inside", tmp_path / "outside"
    inside.mkdir()
    outside.mkdir()
    (outside / "secret").write_text("secret")
    (inside / "way-out").symlink_to(outside)
    (inside / "input").write_text("input")
    reach = Reach(roots=[str(inside)])
    place = Memory()
    copy_in(str(inside / "input"), Partial(place), Interrupt(), reach)
    assert place.data == b"input"
    for path in (outside / "secret", inside / "way-out" / "secret", inside / ".." / "outside" / "secret"):
        with pytest.raises(BadRequest, match="remote_copy_roots"):
            copy_in(str(path), Partial(Memory()), Interrupt(), reach)
        with pytest.raises(BadRequest, match="remote_copy_roots"):
            copy_out(source, str(path), Interrupt(), reach)
    assert os.listdir(outside) == ["secret"]


class Swapping(Reach):
    """Somebody who swaps a directory for a link right after its path was judged."""

    __slots__ = ("directory", "elsewhere")

    def __init__(self, root: Path, directory: Path, elsewhere: Path) -> None:
        super().__init__(roots=[str(root)])
        self.directory = directory
        self.elsewhere = elsewhere

    def check_path(self, path: str, writing: bool) -> str:
        real = super().check_path(path, writing)
        if not self.directory.is_symlink():
            self.directory.rename(f"{self.directory}.away")
            self.directory.symlink_to(self.elsewhere)
        return real


def test_a_directory_swapped_for_a_link_leads_nowhere(tmp_path: Path, source: OpenFile) -> None:
    outside = tmp_path / "outside"
    (outside / "deep").mkdir(parents=True)
    (outside / "deep" / "file").write_text("secret")
    place = Memory()

    def fetch(path: str, reach: Reach) -> None:
        copy_in(path, Partial(place), Interrupt(), reach)

    def deliver(path: str, reach: Reach) -> None:
        copy_out(source, path, Interrupt(), reach)

    for number, move in enumerate((fetch, deliver)):
        root = tmp_path / f"root-{number}"
        (root / "sub" / "deep").mkdir(parents=True)
        (root / "sub" / "deep" / "file").write_text("fine")
        reach = Swapping(root, root / "sub", outside)
        with pytest.raises(BadRequest, match="remote_copy_roots"):
            move(str(root / "sub" / "deep" / "file"), reach)
    assert place.data == b""
    assert os.listdir(outside / "deep") == ["file"]
    assert (outside / "deep" / "file").read_text() == "secret"


def test_a_disk_that_fills_leaves_the_old_file_and_no_part(tmp_path: Path, run_mounted: RunMounted) -> None:
    program = """
import os, sys
from pathlib import Path
from lwr.errors import Unavailable
from lwr.transfer.copying import copy_file
from lwr.transfer.interrupt import Interrupt
target = Path(sys.argv[1], "target")
target.write_text("old")
Path(sys.argv[1], "..", "large").write_bytes(bytes(1 << 20))
try:
    copy_file(Path(sys.argv[1], "..", "large"), target, Interrupt())
except Unavailable as error:
    print(error.transient, "the disk is full" in error.message)
print(target.read_text(), os.listdir(sys.argv[1]))
"""
    disk = tmp_path / "disk"
    disk.mkdir()
    said = run_mounted("-t tmpfs -o size=256k none", disk, program, disk)
    assert said.splitlines() == ["True True", "old ['target']"]


def test_killed_before_the_rename_and_again(tmp_path: Path) -> None:
    program = """
import sys
from lwr.transfer.copying import copy_out
from lwr.transfer.interrupt import Interrupt
from lwr.transfer.jobfiles import JobFiles
from lwr.transfer.reach import Reach
files = JobFiles(sys.argv[1])
with files.open(("output",)) as source:
    copy_out(source, sys.argv[2], Interrupt(), Reach())
"""
    files = JobFiles(str(tmp_path / "job"))
    files.make([])
    files.write(("output",), b"new")
    target = tmp_path / "there" / "target"
    target.parent.mkdir()
    target.write_text("old")
    command = [sys.executable, "-c", program, str(tmp_path / "job"), str(target)]
    for _ in range(2):
        ended = subprocess.run(command, env={**os.environ, "LWR_FAULT": "copy.before_rename"}, check=False)
        assert ended.returncode == -signal.SIGKILL
        assert target.read_text() == "old"
    subprocess.run(command, check=True)
    assert target.read_text() == "new"
    assert os.listdir(target.parent) == ["target"]


def test_path_to_path_follows_links_on_the_way(tmp_path: Path) -> None:
    real = tmp_path / "real"
    real.mkdir()
    (real / "input").write_bytes(DATA)
    (tmp_path / "link").symlink_to(real)
    (real / "alias").symlink_to("input")
    moved = copy_file(tmp_path / "link" / "alias", tmp_path / "link" / "new" / "copy", Interrupt())
    assert moved == Transferred(len(DATA), SHA256, "size")
    assert (real / "new" / "copy").read_bytes() == DATA
    assert os.listdir(real / "new") == ["copy"]


def test_path_to_path_onto_itself_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(DATA)
    copy_file(tmp_path / "file", tmp_path / "file", Interrupt())
    assert (tmp_path / "file").read_bytes() == DATA
