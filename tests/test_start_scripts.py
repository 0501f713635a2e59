"""run.sh and setup_venv.sh, in a copy of the checkout with a virtualenv that is there already."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.support import DEADLINE_S

ROOT = Path(__file__).parents[1]


def run(checkout: Path, *words: str, environ: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    """run.sh, called from somewhere else. The port is a free one."""
    return subprocess.run(
        [str(checkout / "run.sh"), *words], cwd="/", env={**os.environ, "LWR_CONFIG_PORT": "0", **(environ or {})},
        stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, timeout=DEADLINE_S,
    )  # fmt: skip


@pytest.fixture
def checkout(tmp_path: Path) -> Iterator[Path]:
    for name in ("run.sh", "setup_venv.sh", "server.ini.sample"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / ".venv").symlink_to(sys.prefix)
    yield tmp_path
    if (tmp_path / "lwr.pid").exists():
        run(tmp_path, "--stop-daemon")


@pytest.mark.parametrize("word", ["-h", "--help", "-?"])
def test_help_makes_nothing(checkout: Path, word: str) -> None:
    done = run(checkout, "--daemon", word)
    assert done.returncode == 0
    for option in ("--daemon", "--stop-daemon", "--mode", "TEST_GALAXY_LIBS"):
        assert option in done.stdout
    assert not (checkout / "server.ini").exists()


def test_it_copies_the_sample_and_starts_and_stops(checkout: Path) -> None:
    (checkout / "local_env.sh").write_text("UNSET=$NOT_SET\nfalse\nexport LWR_CONFIG_STAGING_DIRECTORY=elsewhere\n:\n")
    started = run(checkout, "-m", "paster", "--daemon")
    assert started.returncode == 0, started.stderr
    assert "LWR answers at http://localhost:" in started.stdout
    assert "--mode paster is not needed any more" in started.stderr
    assert "made server.ini" in started.stderr
    assert (checkout / "server.ini").read_text() == (checkout / "server.ini.sample").read_text()
    assert (checkout / "server.ini").stat().st_mode & 0o777 == 0o600
    assert (checkout / "lwr.log").exists()
    assert (checkout / "elsewhere").is_dir()
    stopped = run(checkout, "--stop-daemon")
    assert stopped.returncode == 0
    assert "Stopped the server" in stopped.stdout
    assert stopped.stderr == ""


def test_an_own_server_ini_is_kept(checkout: Path) -> None:
    (checkout / "server.ini").write_text("[server:main]\nprot = 1\n")
    done = run(checkout)
    assert done.returncode == 2
    assert "Did you mean port?" in done.stderr
    assert (checkout / "server.ini").read_text() == "[server:main]\nprot = 1\n"


@pytest.mark.parametrize("words", [["--mode", "apache"], ["--mode=apache"], ["-m"]])
def test_a_mode_that_never_was_is_refused(checkout: Path, words: list[str]) -> None:
    done = run(checkout, *words)
    assert done.returncode == 1
    assert "mode" in done.stderr


def test_words_with_blanks_arrive_whole_and_in_order(checkout: Path) -> None:
    done = run(checkout, "--mode=uwsgi", "--", "--status", "--pid-file", str(checkout / "a b" / "c *"))
    assert done.returncode == 3
    assert f"{checkout}/a b/c *" in done.stdout


def test_without_galaxys_code_nothing_starts_if_that_is_wanted(checkout: Path) -> None:
    environ = {"TEST_GALAXY_LIBS": "1", "GALAXY_HOME": str(checkout / "galaxy")}
    done = run(checkout, "--status", environ=environ)
    assert done.returncode == 1
    assert "Galaxy's code cannot be imported from GALAXY_HOME" in done.stderr
    (checkout / "galaxy" / "lib" / "galaxy").mkdir(parents=True)
    (checkout / "galaxy" / "lib" / "galaxy" / "__init__.py").touch()
    assert run(checkout, "--status", environ=environ).returncode == 3


def test_a_python_that_is_too_old_is_told(checkout: Path) -> None:
    old = checkout / "old-python"
    old.write_text("#!/bin/sh\nexit 1\n")
    old.chmod(0o755)
    (checkout / ".venv").unlink()
    done = run(checkout, environ={"PYTHON": str(old)})
    assert done.returncode == 1
    assert "LWR needs Python 3.11 or newer" in done.stderr
