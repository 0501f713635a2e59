"""Removing trees that jobs wrote: everything of the job goes, nothing else is touched."""

from __future__ import annotations

import gc
import os
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from lwr.errors import ServerError, Unavailable
from lwr.transfer.removal import remove_tree, set_aside
from tests.support import wait_until
from tests.transfer.conftest import RunMounted


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    folder = tmp_path / "jobs" / "job1"
    folder.mkdir(parents=True)
    return folder


@pytest.fixture
def outside(tmp_path: Path) -> Path:
    folder = tmp_path / "outside"
    folder.mkdir()
    (folder / "file").write_text("stays")
    return folder


def nest(folder: Path, levels: int) -> None:
    """Directories in directories, deeper than any path may be long."""
    here = os.open(folder, os.O_RDONLY)
    for _ in range(levels):
        os.mkdir("dddddddd", dir_fd=here)
        inner = os.open("dddddddd", os.O_RDONLY, dir_fd=here)
        os.close(here)
        here = inner
    os.close(os.open("file", os.O_CREAT, dir_fd=here))
    os.close(here)


class TestSettingAside:
    def test_the_tree_moves_under_a_name_of_its_own(self, tree: Path, tmp_path: Path) -> None:
        trash = tmp_path / "jobs" / ".trash"
        moved = []
        for number in range(2):
            tree.mkdir(exist_ok=True)
            (tree / "file").write_text(str(number))
            moved.append(set_aside(str(tree), str(trash)))
        assert not tree.exists()
        assert [Path(path or "").joinpath("file").read_text() for path in moved] == ["0", "1"]
        assert {Path(path or "").parent for path in moved} == {trash}

    def test_what_is_not_there_is_none(self, tmp_path: Path) -> None:
        assert set_aside(str(tmp_path / "gone"), str(tmp_path / "trash")) is None

    def test_a_link_moves_itself(self, tree: Path, tmp_path: Path, outside: Path) -> None:
        link = tmp_path / "jobs" / "link"
        link.symlink_to(outside)
        moved = set_aside(str(link), str(tmp_path / "trash"))
        assert moved is not None
        assert Path(moved).is_symlink()
        remove_tree(moved)
        assert (outside / "file").read_text() == "stays"

    def test_a_trash_that_cannot_be_is_an_error(self, tree: Path, tmp_path: Path) -> None:
        (tmp_path / "trash").touch()
        with pytest.raises(ServerError, match="set aside"):
            set_aside(str(tree), str(tmp_path / "trash"))
        assert tree.exists()


class TestRemoving:
    def test_everything_goes_and_again_is_fine(self, tree: Path) -> None:
        (tree / "a/b/c").mkdir(parents=True)
        (tree / "a/b/file").touch()
        os.mkfifo(tree / "a/fifo")
        (tree / os.fsdecode(b"\xff\xfe\n")).mkdir()
        (tree / os.fsdecode(b"\xff\xfe\n") / os.fsdecode(b"\x80")).touch()
        remove_tree(str(tree))
        remove_tree(str(tree))
        remove_tree(str(tree / "in" / "nothing"))
        assert list(tree.parent.iterdir()) == []

    def test_links_go_and_what_they_point_at_stays(self, tree: Path, outside: Path) -> None:
        (tree / "to_folder").symlink_to(outside)
        (tree / "to_file").symlink_to(outside / "file")
        os.link(outside / "file", tree / "hard")
        remove_tree(str(tree))
        assert not tree.exists()
        assert (outside / "file").read_text() == "stays"

    def test_a_link_or_a_file_itself(self, tree: Path, outside: Path) -> None:
        (tree / "link").symlink_to(outside)
        (tree / "file").touch()
        remove_tree(str(tree / "link"))
        remove_tree(str(tree / "file"))
        assert list(tree.iterdir()) == []
        assert (outside / "file").exists()

    def test_closed_directories_are_opened(self, tree: Path, as_owner: None) -> None:
        for name, mode in {"closed": 0, "readable": 0o500, "writable": 0o300}.items():
            (tree / name / "inner").mkdir(parents=True)
            (tree / name / "inner/file").touch()
            (tree / name / "inner").chmod(mode)
            (tree / name).chmod(mode)
        tree.chmod(0)
        remove_tree(str(tree))
        assert not tree.exists()

    def test_what_cannot_go_is_named_and_not_touched(self, tree: Path, as_owner: None) -> None:
        (tree / "a").mkdir()
        tree.parent.chmod(0o500)
        with pytest.raises(ServerError, match=r"1 entries of .*job1.*Permission denied"):
            remove_tree(str(tree))
        tree.parent.chmod(0o700)
        assert (tree / "a").is_dir()

    def test_deep_nesting_takes_no_stack_and_no_descriptors(self, tree: Path) -> None:
        nest(tree, 1500)
        gc.collect()  # what earlier tests left behind closes now, and not on the way
        before = len(os.listdir("/proc/self/fd"))
        remove_tree(str(tree))
        assert not tree.exists()
        assert len(os.listdir("/proc/self/fd")) <= before

    def test_many_entries(self, tree: Path) -> None:
        for folder in range(4):
            (tree / str(folder)).mkdir()
            here = os.open(tree / str(folder), os.O_RDONLY)
            for number in range(500):
                os.close(os.open(str(number), os.O_CREAT, dir_fd=here))
            os.close(here)
        remove_tree(str(tree))
        assert not tree.exists()

    @pytest.mark.parametrize("same_file_system", [True, False])
    def test_what_is_mounted_in_it_stays(
        self, tree: Path, outside: Path, run_mounted: RunMounted, same_file_system: bool
    ) -> None:
        mounted = tree / "a/mounted"
        mounted.mkdir(parents=True)
        (tree / "b").mkdir()
        (tree / "b/file").touch()
        program = """
import os, sys
from lwr.errors import ServerError
from lwr.transfer.removal import remove_tree
tree, mounted = sys.argv[1:]
open(mounted + "/more", "w").close()
try:
    remove_tree(tree)
except ServerError as error:
    print(error)
print(os.path.exists(mounted + "/more"))
"""
        mount = f"--bind {outside}" if same_file_system else "-t tmpfs none"
        said, stays = run_mounted(mount, mounted, program, tree, mounted).splitlines()
        assert "'job1/a/mounted' (it is mounted or in use)" in said
        assert stays == "True"
        assert (outside / "file").read_text() == "stays"
        assert [str(path.relative_to(tree)) for path in tree.rglob("*")] == ["a", "a/mounted"]

    def test_a_tree_that_is_being_filled_or_moved_ends_one_way_or_the_other(self, tree: Path, outside: Path) -> None:
        """The filler may win for now (it is then told so) but not for long, and nothing outside is touched."""
        for number in range(20):
            (tree / f"d{number}/inner").mkdir(parents=True)
        filling, stop = threading.Event(), threading.Event()

        def fill() -> None:
            number = 0
            while not stop.is_set():
                number += 1
                with suppress(OSError):
                    (tree / f"d{number % 20}/inner/{number}").mkdir()
                    (tree / f"d{number % 20}/inner").rename(tree / f"d{(number + 7) % 20}/inner/moved")
                    (tree / f"d{number % 20}/inner").symlink_to(outside)
                filling.set()

        filler = threading.Thread(target=fill)
        filler.start()
        filling.wait()
        try:
            for _ in range(20):
                with suppress(Unavailable):
                    remove_tree(str(tree))
        finally:
            stop.set()
            filler.join()
        remove_tree(str(tree))
        wait_until(lambda: not tree.exists(), "the tree goes")
        assert (outside / "file").read_text() == "stays"
