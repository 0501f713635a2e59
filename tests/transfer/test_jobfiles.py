"""The files of a job, against jobs that plant links, FIFOs and odd names, and swap them while we look."""

from __future__ import annotations

import gc
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from lwr.core.places import PART_PREFIX, SETUP_AREAS, Area
from lwr.errors import BadName, NotFound, ServerError, Unavailable
from lwr.transfer.jobfiles import JobFiles, Part
from tests.support import DEADLINE_S
from tests.transfer.conftest import RunMounted


@pytest.fixture(params=[True, False], ids=["by_fd", "by_path"])
def files(request: pytest.FixtureRequest, tmp_path: Path) -> JobFiles:
    """A job that was set up; once as on POSIX, once as on systems without directory descriptors."""
    made = JobFiles(str(tmp_path / "staging" / "job1"), by_fd=request.param)
    made.make(SETUP_AREAS)
    return made


@pytest.fixture
def root(files: JobFiles) -> Path:
    return Path(files.root)


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    """A directory beside the job, with a file that no client must ever see or change."""
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / "secret").write_text("of the server")
    return folder


def content(files: JobFiles, *components: str) -> bytes:
    with files.open(components) as opened:
        return opened.file.read()


class TestWriting:
    def test_a_file_is_whole_under_its_name_or_not_there(self, files: JobFiles, root: Path) -> None:
        with files.part() as part:
            part.write(b"first ")
            part.write(memoryview(b"second"))
            assert part.size_bytes == 12
            assert list((root / "inputs").iterdir()) == []
            part.commit(("inputs", "sub", "deeper", "reads.fq"))
        assert (root / "inputs/sub/deeper/reads.fq").read_bytes() == b"first second"
        assert list(root.glob(PART_PREFIX + "*")) == []

    def test_a_part_that_is_not_committed_leaves_nothing(self, files: JobFiles, root: Path) -> None:
        with files.part() as part:
            part.write(b"cut")
        part.discard()
        assert [path for path in root.rglob("*") if path.is_file()] == []

    def test_the_newest_file_of_a_name_stays(self, files: JobFiles, root: Path) -> None:
        files.write(("inputs", "a"), b"old")
        files.write(("inputs", "a"), b"new")
        assert (root / "inputs/a").read_bytes() == b"new"

    def test_two_parts_for_one_name_do_not_mix(self, files: JobFiles, root: Path) -> None:
        with files.part() as one, files.part() as other:
            one.write(b"1" * 1000)
            other.write(b"2" * 1000)
            other.commit(("inputs", "a"))
            one.commit(("inputs", "a"))
        assert (root / "inputs/a").read_bytes() == b"1" * 1000

    def test_modes_follow_the_umask(self, files: JobFiles, root: Path) -> None:
        before = os.umask(0o027)
        try:
            files.write(("inputs", "a"), b"")
        finally:
            os.umask(before)
        assert (root / "inputs/a").stat().st_mode & 0o777 == 0o640

    def test_parts_of_a_process_that_died_are_dropped_and_never_shown(self, files: JobFiles, root: Path) -> None:
        (root / f"{PART_PREFIX}0").write_bytes(b"cut")
        assert files.listing(Area.JOB) == []
        assert f"{PART_PREFIX}0" not in files.top_level()
        files.write(("inputs", f"{PART_PREFIX}1"), b"a file of the job's own")
        files.settle()
        assert [path.name for path in root.rglob(PART_PREFIX + "*")] == [f"{PART_PREFIX}1"]
        assert files.listing(Area.INPUTS) == [f"{PART_PREFIX}1"]

    def test_a_part_does_not_land_in_a_job_that_was_set_up_anew(self, files: JobFiles, root: Path) -> None:
        with files.part() as part:
            part.write(b"old")
            root.rename(root.with_name("aside"))
            files.make(SETUP_AREAS)
            with pytest.raises(NotFound):
                part.commit(("inputs", "a"))
        assert files.listing(Area.INPUTS) == []

    def test_making_again_changes_nothing(self, files: JobFiles, root: Path) -> None:
        files.write(("inputs", "a"), b"x")
        files.make(SETUP_AREAS)
        assert content(files, "inputs", "a") == b"x"
        assert {path.name for path in root.iterdir()} == {area.value for area in SETUP_AREAS}

    def test_a_job_that_is_gone_takes_no_file(self, tmp_path: Path) -> None:
        with pytest.raises(NotFound, match="Job gone could not"):
            JobFiles(str(tmp_path / "gone")).part()

    @pytest.mark.parametrize("components", [("outputs", "d", "x"), ("outputs", "d", "new", "x")])
    def test_a_linked_directory_is_not_entered(
        self, files: JobFiles, root: Path, outside: Path, components: tuple[str, ...]
    ) -> None:
        (root / "outputs/d").symlink_to(outside)
        with pytest.raises(BadName, match="link"):
            files.write(components, b"evil")
        assert [path.name for path in outside.iterdir()] == ["secret"]
        assert list(root.glob(PART_PREFIX + "*")) == []

    def test_a_linked_root_is_not_entered(self, root: Path, outside: Path) -> None:
        (root.parent / "linked").symlink_to(outside)
        with pytest.raises(BadName):
            JobFiles(str(root.parent / "linked")).make(SETUP_AREAS)
        assert [path.name for path in outside.iterdir()] == ["secret"]

    def test_a_linked_file_is_replaced_not_written_through(self, files: JobFiles, root: Path, outside: Path) -> None:
        (root / "outputs/x").symlink_to(outside / "secret")
        files.write(("outputs", "x"), b"new")
        assert not (root / "outputs/x").is_symlink()
        assert (outside / "secret").read_text() == "of the server"

    def test_a_directory_or_a_file_in_the_way_is_a_bad_name(self, files: JobFiles, root: Path) -> None:
        (root / "inputs/d").mkdir()
        files.write(("inputs", "f"), b"")
        for components in [("inputs", "d"), ("inputs", "f", "x"), ("inputs", "n" * 300)]:
            with pytest.raises(BadName):
                files.write(components, b"x")

    def test_a_full_disk_may_pass(self, files: JobFiles) -> None:
        part = Part(files, "none", os.open("/dev/full", os.O_WRONLY))
        with pytest.raises(Unavailable, match=r"Job job1 could not take all of a file: the disk is full\."):
            part.write(b"x")
        part.discard()

    def test_a_disk_that_fills_leaves_the_old_file_and_no_part(self, tmp_path: Path, run_mounted: RunMounted) -> None:
        program = """
import os, sys
from lwr.core.places import Area
from lwr.errors import Unavailable
from lwr.transfer.jobfiles import JobFiles
files = JobFiles(sys.argv[1] + "/job")
files.make([Area.INPUTS])
files.write(("inputs", "a"), b"old")
try:
    files.write(("inputs", "a"), bytes(1 << 20))
except Unavailable as error:
    print(error.message)
print(files.read_text(("inputs", "a"), 100), [name for name in os.listdir(files.root) if name != "inputs"])
files.write(("inputs", "a"), b"new")
print(files.read_text(("inputs", "a"), 100))
"""
        assert run_mounted("-t tmpfs -o size=256k none", tmp_path, program, tmp_path).splitlines() == [
            "Job job could not take all of a file: the disk is full.",
            "old []",
            "new",
        ]

    @pytest.mark.parametrize(("point", "there"), [("upload.before_rename", False), ("upload.after_rename", True)])
    def test_killed_around_the_rename(self, tmp_path: Path, point: str, there: bool) -> None:
        program = (
            "import sys; from lwr.transfer.jobfiles import JobFiles; from lwr.core.places import Area;"
            "files = JobFiles(sys.argv[1]); files.make([Area.INPUTS]);"
            "files.write(('inputs', 'a'), b'1'); files.write(('inputs', 'b'), b'whole')"
        )
        environment = {**os.environ, "LWR_FAULT": f"{point}:2"}
        root = tmp_path / "job"
        ended = subprocess.run([sys.executable, "-c", program, str(root)], env=environment, check=False)
        assert ended.returncode == -signal.SIGKILL
        assert sorted(path.name for path in (root / "inputs").iterdir()) == (["a", "b"] if there else ["a"])
        assert not there or (root / "inputs/b").read_bytes() == b"whole"


class TestReading:
    def test_what_is_opened_tells_its_identity(self, files: JobFiles, root: Path) -> None:
        files.write(("outputs", "a"), b"12345")
        status = (root / "outputs/a").stat()
        with files.open(("outputs", "a")) as opened:
            assert (opened.size_bytes, opened.mtime_ns, opened.inode) == (5, status.st_mtime_ns, status.st_ino)
            assert os.fstat(opened.fd).st_ino == status.st_ino
        assert opened.file.closed

    @pytest.mark.parametrize(
        "target",
        ["a", "./a", "d/../a", "../outputs/a", "{root}/outputs/a", "{root}/working/../outputs/./a", "to_outputs/a"],
    )
    def test_links_inside_the_job_are_followed(self, files: JobFiles, root: Path, target: str) -> None:
        files.write(("outputs", "a"), b"inside")
        (root / "outputs/d").mkdir()
        (root / "outputs/to_outputs").symlink_to(root)
        (root / "outputs/to_outputs").unlink()
        (root / "outputs/to_outputs").symlink_to("../outputs")
        (root / "outputs/link").symlink_to(target.format(root=root))
        assert content(files, "outputs", "link") == b"inside"

    def test_links_by_the_resolved_root_are_followed(self, tmp_path: Path) -> None:
        (tmp_path / "real").mkdir()
        (tmp_path / "configured").symlink_to("real")
        files = JobFiles(str(tmp_path / "configured" / "job"))
        files.make(SETUP_AREAS)
        files.write(("working", "a"), b"inside")
        (tmp_path / "real/job/outputs/link").symlink_to(tmp_path / "real/job/working/a")
        assert content(files, "outputs", "link") == b"inside"

    @pytest.mark.parametrize(
        "target",
        [
            "{outside}/secret",
            "../../../outside/secret",
            "{root}/../../outside/secret",
            "{root}x/f",
            "up/outside/secret",
        ],
    )
    def test_links_out_of_the_job_are_refused(self, files: JobFiles, root: Path, outside: Path, target: str) -> None:
        Path(f"{root}x").mkdir()
        (Path(f"{root}x") / "f").touch()
        (root / "outputs/up").symlink_to("../../..")
        (root / "outputs/link").symlink_to(target.format(root=root, outside=outside))
        with pytest.raises(BadName, match="leads out"):
            files.open(("outputs", "link"))

    def test_a_linked_directory_on_the_way_out_is_refused(self, files: JobFiles, root: Path, outside: Path) -> None:
        (root / "outputs").rmdir()
        (root / "outputs").symlink_to(outside)
        with pytest.raises(BadName, match="leads out"):
            files.open(("outputs", "secret"))
        assert files.listing(Area.OUTPUTS) == []

    def test_links_in_a_circle_end(self, tmp_path: Path) -> None:
        files = JobFiles(str(tmp_path / "job"))
        files.make(SETUP_AREAS)
        (tmp_path / "job/outputs/a").symlink_to("b")
        (tmp_path / "job/outputs/b").symlink_to("a")
        (tmp_path / "job/outputs/deep").symlink_to("d/" * 300 + "x")
        deepest = tmp_path / "job/outputs" / "/".join("d" * 300)
        deepest.mkdir(parents=True)
        for name in ("a", "deep"):
            with pytest.raises(BadName, match="leads out"):
                files.open(("outputs", name))

    def test_forty_links_are_followed_and_no_more(self, tmp_path: Path) -> None:
        files = JobFiles(str(tmp_path / "job"))
        files.make(SETUP_AREAS)
        files.write(("working", "0"), b"end")
        for number in range(1, 42):
            (tmp_path / f"job/working/{number}").symlink_to(str(number - 1))
        assert content(files, "working", "40") == b"end"
        with pytest.raises(BadName):
            files.open(("working", "41"))

    def test_only_regular_files_are_read_and_nothing_waits(self, files: JobFiles, root: Path) -> None:
        os.mkfifo(root / "outputs/fifo")
        (root / "outputs/dir").mkdir()
        (root / "outputs/dangling").symlink_to("nothing")
        (root / "outputs/to_fifo").symlink_to("fifo")
        (root / "outputs/to_root").symlink_to("..")
        files.write(("outputs", "file"), b"")
        with socket.socket(socket.AF_UNIX) as listener:
            folder = os.open(root / "outputs", os.O_RDONLY)
            try:
                # By descriptor: a socket's path may have 107 bytes only.
                listener.bind(f"/proc/self/fd/{folder}/socket")
            finally:
                os.close(folder)
            names = ["fifo", "dir", "dangling", "to_fifo", "to_root", "socket", "absent", "n" * 300]
            for components in [*(("outputs", name) for name in names), ("outputs", "file", "x"), ("none", "x")]:
                with pytest.raises(NotFound, match="job1"):
                    files.open(components)
            assert files.listing(Area.OUTPUTS) == ["file"]

    def test_what_may_not_be_read_is_an_error_and_stands_in_the_listing(
        self, files: JobFiles, root: Path, as_owner: None
    ) -> None:
        files.write(("outputs", "file"), b"x")
        files.write(("outputs", "dir", "inner"), b"x")
        (root / "outputs/file").chmod(0)
        (root / "outputs/dir").chmod(0)
        try:
            assert files.listing(Area.OUTPUTS) == ["dir", "file"]
            for name in ("dir", "file"):
                with pytest.raises(ServerError, match="Permission denied"):
                    files.open(("outputs", name))
        finally:
            (root / "outputs/dir").chmod(0o700)

    def test_descriptors_are_given_back(self, files: JobFiles, root: Path, outside: Path) -> None:
        files.write(("outputs", "a", "b", "c"), b"x")
        (root / "outputs/out").symlink_to(outside)
        (root / "outputs/in").symlink_to("a/b/c")
        os.mkfifo(root / "outputs/fifo")
        gc.collect()  # what earlier tests left behind closes now, and not on the way
        before = len(os.listdir("/proc/self/fd"))
        for components in [("outputs", "in"), ("outputs", "out", "x"), ("outputs", "fifo"), ("outputs", "a", "b", "d")]:
            with suppress(BadName, NotFound):
                files.open(components).close()
            with pytest.raises(BadName), files.part() as part:
                part.commit(("outputs", "out", "x"))
        files.listing(Area.JOB)
        files.top_level()
        files.settle()
        assert len(os.listdir("/proc/self/fd")) <= before


class TestLooking:
    def test_a_listing_is_recursive_sorted_and_of_files_only(self, files: JobFiles, root: Path, outside: Path) -> None:
        for name in ("b", "a/z", "a/b/c", "a b"):
            files.write(("working", *name.split("/")), b"")
        (root / "working/empty").mkdir()
        (root / "working/inside").symlink_to("a/z")
        (root / "working/outside").symlink_to(outside / "secret")
        (root / "working/folder").symlink_to("a")
        assert files.listing(Area.WORKING) == ["a b", "a/b/c", "a/z", "b", "inside"]

    def test_names_that_are_not_text_are_replaced(self, files: JobFiles, root: Path) -> None:
        (root / os.fsdecode(b"outputs/\xff.txt")).touch()
        (root / os.fsdecode(b"\xfe")).touch()
        assert files.listing(Area.OUTPUTS) == ["\ufffd.txt"]
        assert "\ufffd" in files.top_level()

    def test_what_is_not_there_is_empty(self, files: JobFiles, tmp_path: Path) -> None:
        gone = JobFiles(str(tmp_path / "gone"))
        assert files.listing(Area.UNSTRUCTURED) == gone.listing(Area.OUTPUTS) == gone.top_level() == []

    def test_the_job_itself_without_its_parts(self, files: JobFiles) -> None:
        files.write(("galaxy.json",), b"{}")
        files.write(("outputs", "o"), b"")
        with files.part():
            assert files.listing(Area.JOB) == ["galaxy.json", "outputs/o"]
            assert files.top_level() == [*sorted(["galaxy.json", *(area.value for area in SETUP_AREAS)])]

    def test_a_job_cannot_hide_the_end_of_a_listing_by_depth(self, tmp_path: Path) -> None:
        files = JobFiles(str(tmp_path / "job"))
        files.make(SETUP_AREAS)
        files.write(("working", *["d"] * 99, "deepest"), b"")
        assert files.listing(Area.WORKING) == ["d/" * 99 + "deepest"]

    @pytest.mark.parametrize(
        ("pattern", "first"),
        [
            ("*.txt", "a/b/c.txt"),  # a star crosses directories
            ("**/z.log", "z.log"),  # and two may match none
            ("a/**/c.txt", "a/b/c.txt"),
            ("a/**/**/b/**/c.txt", "a/b/c.txt"),
            ("[az]/?/c.*", "a/b/c.txt"),
            ("d.txt", "d.txt"),
            ("b/c.txt", None),
            ("*.TXT", None),
            ("", None),
        ],
    )
    def test_globs(self, files: JobFiles, pattern: str, first: str | None) -> None:
        for name in ("z.log", "d.txt", "a/b/c.txt"):
            files.write(("working", *name.split("/")), b"")
        assert files.glob(Area.WORKING, pattern) == first


class TestReadingText:
    def test_short_files_are_whole_and_others_have_two_ends(self, files: JobFiles) -> None:
        files.write(("stdout",), b"0123456789")
        assert files.read_text(("stdout",), 10) == "0123456789"
        assert files.read_text(("stdout",), 9) == "0123\n..\n56789"
        assert files.read_text(("stdout",), 0) == "\n..\n"

    def test_bytes_that_are_not_text_are_replaced(self, files: JobFiles) -> None:
        files.write(("stdout",), b"a\xffb\x00")
        assert files.read_text(("stdout",), 100) == "a\ufffdb\x00"

    def test_what_is_absent_or_must_not_be_read_is_none(self, files: JobFiles, root: Path, outside: Path) -> None:
        (root / "stdout").symlink_to(outside / "secret")
        os.mkfifo(root / "stderr")
        assert [files.read_text((name,), 100) for name in ("stdout", "stderr", "absent", "outputs")] == [None] * 4


class TestSyncing:
    def test_odd_trees_do_not_hold_it_up(self, files: JobFiles, root: Path, outside: Path) -> None:
        files.write(("inputs", "a", "b"), b"x")
        os.mkfifo(root / "inputs/fifo")
        (root / "inputs/dangling").symlink_to("nothing")
        (root / "inputs/out").symlink_to(outside)
        files.settle()
        files.settle()

    def test_a_job_that_is_gone_cannot_be_synced(self, tmp_path: Path) -> None:
        with pytest.raises(NotFound):
            JobFiles(str(tmp_path / "gone")).settle()


class Swapper:
    """A job that swaps its directory `outputs/d` for a link out of the job and back, as fast as it can."""

    def __init__(self, root: Path, outside: Path) -> None:
        self._stop = threading.Event()
        self._paths = root / "outputs/d", root / "outputs/d.real", outside
        self._thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        name, real, outside = self._paths
        while not self._stop.is_set():
            name.rename(real)
            with suppress(FileExistsError):  # a writer made a new directory meanwhile
                name.symlink_to(outside)
                name.unlink()
            while not self._put_back(name, real):
                shutil.rmtree(name, ignore_errors=True)

    def _put_back(self, name: Path, real: Path) -> bool:
        try:
            real.rename(name)
        except OSError:
            return False
        return True

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


class TestRacing:
    """A folder is swapped for a link between the check and the opening: nothing leads out, ever."""

    ROUNDS = 500

    @pytest.fixture
    def racing(self, tmp_path: Path, outside: Path) -> JobFiles:
        files = JobFiles(str(tmp_path / "job"))
        files.make(SETUP_AREAS)
        files.write(("outputs", "d", "secret"), b"of the job")
        return files

    def _until_all_seen(self, wanted: set[str], attempt: Iterator[str]) -> None:
        seen: set[str] = set()
        end = time.monotonic() + DEADLINE_S
        rounds = 0
        while rounds < self.ROUNDS or not wanted <= seen:
            assert time.monotonic() < end, f"the race was not seen from all sides: {seen}"
            seen.add(next(attempt))
            rounds += 1
        assert seen <= wanted | {"absent", "d.real/secret"}

    def test_reading(self, racing: JobFiles, outside: Path) -> None:
        def attempts() -> Iterator[str]:
            while True:
                try:
                    yield content(racing, "outputs", "d", "secret").decode()
                except BadName:
                    yield "refused"
                except NotFound:
                    yield "absent"

        with Swapper(Path(racing.root), outside):
            self._until_all_seen({"of the job", "refused"}, attempts())

    def test_writing(self, racing: JobFiles, outside: Path) -> None:
        def attempts() -> Iterator[str]:
            while True:
                try:
                    racing.write(("outputs", "d", "new"), b"x")
                    yield "written"
                except BadName:
                    yield "refused"
                except NotFound:
                    yield "absent"

        with Swapper(Path(racing.root), outside):
            self._until_all_seen({"written", "refused"}, attempts())
        assert [path.name for path in outside.iterdir()] == ["secret"]

    def test_listing(self, racing: JobFiles, outside: Path) -> None:
        (outside / "other").touch()
        with Swapper(Path(racing.root), outside):
            self._until_all_seen(
                {"d/secret"}, (name for _ in iter(int, 1) for name in racing.listing(Area.OUTPUTS) or ["absent"])
            )
