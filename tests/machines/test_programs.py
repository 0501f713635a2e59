"""A program that is missing skips at home and fails in CI; one that does not come up says why, and is not left."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.machines.programs import Program, needed
from tests.support import free_port


def test_a_missing_program_skips_at_home_and_fails_in_ci(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Path(needed("sh", "dash")).is_file()
    for environ, outcome in (("", pytest.skip.Exception), ("true", pytest.fail.Exception)):
        monkeypatch.setenv("CI", environ)
        with pytest.raises(outcome, match="apt-get install its-package"):
            needed("no-such-program", "its-package")


def test_a_program_that_ends_at_once_says_why(tmp_path: Path) -> None:
    program = Program(["sh", "-c", "echo no such option; exit 3"], free_port(), tmp_path / "log")
    with pytest.raises(AssertionError, match="ended with 3:\nno such option"):
        program.start()
    program.stop()
