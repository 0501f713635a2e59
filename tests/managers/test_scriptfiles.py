"""Script, start marker and exit file, read as what they are: files that a job can write."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from lwr.core.places import JobLayout
from lwr.core.script import Site, render
from lwr.core.ticket import Phase, Ticket
from lwr.errors import ManagerError
from lwr.managers.scriptfiles import last_words, read_exit_code, read_marker, take_marker, write_script


@pytest.fixture
def layout(tmp_path: Path) -> JobLayout:
    return JobLayout(str(tmp_path))


def test_a_script_is_whole_private_and_alone(layout: JobLayout) -> None:
    ticket = Ticket("a" * 32, "7", 1, layout, "true")
    for _ in range(2):
        write_script(ticket, Site())
    assert Path(layout.script).read_text() == render(ticket, Site())
    assert stat.S_IMODE(os.stat(layout.script).st_mode) == 0o700
    assert sorted(os.listdir(layout.root)) == ["command.sh", "home", "tmp"]


def test_a_script_that_cannot_get_its_name_leaves_nothing_and_says_why(layout: JobLayout) -> None:
    os.mkdir(layout.script)
    with pytest.raises(ManagerError, match="of job 7 could not be written") as caught:
        write_script(Ticket("a" * 32, "7", 1, layout, "true"), Site())
    assert not caught.value.transient
    assert sorted(os.listdir(layout.root)) == ["command.sh", "home", "tmp"]


def test_a_marker_is_taken_once(layout: JobLayout) -> None:
    assert read_marker(layout) is None
    assert take_marker(layout)
    assert not take_marker(layout)
    assert read_marker(layout) == 0
    with pytest.raises(FileNotFoundError):
        take_marker(JobLayout(layout.path("nowhere")))


@pytest.mark.parametrize(
    ("text", "code"),
    [("0\n", 0), ("255", 255), (" 7 ", 7), ("", None), ("256", None), ("-1", None), ("1 2", None), ("x" * 10**6, None)],
)
def test_an_exit_file_holds_a_number_or_nothing(layout: JobLayout, text: str, code: int | None) -> None:
    assert read_exit_code(layout) is None
    Path(layout.exit_file).write_text(text)
    assert read_exit_code(layout) == code


def test_what_is_not_a_file_is_neither_read_nor_waited_for(layout: JobLayout) -> None:
    os.mkfifo(layout.exit_file)
    os.symlink("/proc/self/stat", layout.start_marker)
    assert read_exit_code(layout) is None
    assert read_marker(layout) == 0
    os.unlink(layout.exit_file)
    os.mkdir(layout.exit_file)
    assert read_exit_code(layout) is None


def test_the_exit_file_wins_over_the_status_and_nothing_is_guessed() -> None:
    assert last_words(3, "", 4).exit_code == 3
    assert last_words(None, "", 4).exit_code == 4
    assert "SIGKILL" in last_words(None, "SIGKILL", -9).reason
    unknown = last_words(None)
    assert (unknown.phase, unknown.exit_code) == (Phase.GONE, None)
