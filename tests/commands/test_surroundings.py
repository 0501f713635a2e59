"""local_env.sh: its resulting environment is taken, and nothing else of it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lwr.commands.surroundings import surroundings
from lwr.errors import ConfigError

ENVIRON = {"PATH": os.environ["PATH"], "KEPT": "as it was", "REMOVED": "x", "PWD": "/somewhere"}


def made_by(directory: Path, script: str) -> dict[str, str]:
    (directory / "local_env.sh").write_text(script)
    return surroundings(directory / "server.ini", ENVIRON)


def test_exported_variables_are_taken_whole(tmp_path: Path) -> None:
    made = made_by(tmp_path, 'echo noise; export NEW="a\nb=ü" KEPT2="$KEPT"\nLOCAL=1\nunset REMOVED\n')
    assert made == {
        "PATH": ENVIRON["PATH"], "KEPT": "as it was", "KEPT2": "as it was", "NEW": "a\nb=ü", "PWD": "/somewhere"
    }  # fmt: skip


def test_it_is_read_in_its_own_directory_without_a_terminal(tmp_path: Path) -> None:
    made = made_by(tmp_path, 'export WHERE="$PWD"; read -r LINE; export LINE="got:$LINE"')
    assert (made["WHERE"], made["LINE"]) == (str(tmp_path), "got:")


def test_without_the_file_nothing_changes(tmp_path: Path) -> None:
    assert surroundings(tmp_path / "server.ini", ENVIRON) == ENVIRON


@pytest.mark.parametrize(("script", "code"), [("exit 3", "3"), ("if", "2"), ("false", "1")])
def test_a_script_that_fails_keeps_the_server_from_starting(tmp_path: Path, script: str, code: str) -> None:
    with pytest.raises(ConfigError, match=rf"local_env\.sh failed with exit code {code}\."):
        made_by(tmp_path, script)
