"""`lwr run` as a person runs it."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from lwr.client import Outcome, RemoteServer, RemoteStatus
from lwr.commands.run import exit_code, left_for_later
from lwr.errors import PeerUnreachable
from tests.commands.conftest import Lwr
from tests.machines.job_files import JobFilesServer
from tests.support import DEADLINE_S, RunningServer, wait_until


@pytest.fixture
def home(lwr: Lwr, tmp_path: Path) -> Path:
    return tmp_path / "home"


def test_what_works_here_works_there(lwr: Lwr, home: Path) -> None:
    (home / "in.txt").write_text("b\na\n")
    done = lwr(
        "run",
        "--input",
        "in.txt",
        "--output",
        "out.txt",
        "--",
        "sort in.txt > out.txt; echo said; echo wept >&2; exit 3",
    )
    assert (done.returncode, done.stdout) == (3, "said\n"), done.stderr
    assert (home / "out.txt").read_text() == "a\nb\n"
    assert "wept\n" in done.stderr
    assert "exit code 3" in done.stderr


def test_words_arrive_as_they_are(lwr: Lwr) -> None:
    done = lwr("run", "--quiet", "--", "printf", "%s|", "$HOME `x`", "it's", "a  b", "*", "日本")
    assert (done.stdout, done.stderr) == ("$HOME `x`|it's|a  b|*|日本|", "")


def test_scripts_configuration_extras_and_results(lwr: Lwr, home: Path) -> None:
    (home / "tool.sh").write_text(
        'cat "$1" "$1.idx" "$2"; mkdir -p "${3}_files"; echo e > "${3}_files/e"; echo o > "$3"; echo w > w.txt'
    )
    for name in ("d.fa", "d.fa.idx", "c.ini"):
        (home / name).write_text(f"{name}\n")
    files = ("--tool", "tool.sh", "--input", "d.fa", "--extra", "d.fa.idx", "--config", "c.ini")
    results = ("--output", "o", "--workdir-output", "*.txt", "--output-dir", "results")
    done = lwr("run", *files, *results, "--env", "A=1", "--", "sh", "tool.sh", "d.fa", "c.ini", "o")
    assert (done.returncode, done.stdout) == (0, "d.fa\nd.fa.idx\nc.ini\n"), done.stderr
    assert {str(path.relative_to(home / "results")) for path in (home / "results").rglob("*") if path.is_file()} == {
        "o",
        "o_files/e",
        "w.txt",
    }


def test_for_programs(lwr: Lwr) -> None:
    done = lwr("run", "--json", "--output", "o", "--output", "never", "--", "echo 1 > o; echo said")
    document = json.loads(done.stdout)
    assert (document["state"], document["exit_code"], document["stdout"]) == ("complete", 0, "said\n")
    assert document["outputs"] == [{"path": "o", "size_bytes": 2, "checked": "sha-256"}]
    assert document["missing"] == ["never"]
    assert done.returncode == 125
    assert done.stderr == ""


def test_a_death_by_signal_is_told_and_gives_128_and_more(lwr: Lwr) -> None:
    done = lwr("run", "--", "kill -9 $$")
    assert done.returncode == 137
    assert "SIGKILL" in done.stderr or "137" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--input", "none.txt", "--", "true"), "none.txt cannot be read"),
        (("--env", "A B=1", "--", "true"), "is not NAME=VALUE"),
        (("--manager", "none", "--", "true"), "no manager called 'none'"),
        (("--token-file", "none", "--", "true"), "cannot be read"),
        (("--url", "ftp://x/", "--", "true"), "is not the URL of a server"),
        (("--url", "http://127.0.0.1:9/", "--", "true"), "no connection"),
    ],
)
def test_what_lwr_cannot_do_is_125_and_two_lines(lwr: Lwr, arguments: tuple[str, ...], sentence: str) -> None:
    done = lwr("run", *arguments)
    assert done.returncode == 125
    assert sentence in done.stderr
    assert len([line for line in done.stderr.splitlines() if not line.startswith(("  job", "!"))]) == 2
    assert done.stdout == ""


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_ends_the_job_and_removes_it(
    how: signal.Signals, environ: dict[str, str], served: RunningServer, tmp_path: Path
) -> None:
    job_id = f"stopped-{how.name}"
    started = tmp_path / "started"
    command = ["run", "--id", job_id, "--", f"touch '{started}'; sleep 600"]
    process = subprocess.Popen([sys.executable, "-m", "lwr.cli", *command], env=environ, stderr=subprocess.DEVNULL)
    wait_until(started.exists, "the command to run")
    process.send_signal(how)
    assert process.wait(DEADLINE_S) == 130
    wait_until(lambda: not (served.staging / job_id).exists(), "the job to be removed")


def test_on_a_terminal(environ: dict[str, str]) -> None:
    """Bars and the live state are drawn there, and nothing of them goes to stdout."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "lwr.cli", "run", "--", "echo said"]
    process = subprocess.Popen(command, env={**environ, "TERM": "xterm"}, stdout=subprocess.PIPE, stderr=theirs)
    os.close(theirs)
    shown = b""
    while True:
        try:
            piece = os.read(ours, 4096)
        except OSError:  # what Linux says at the end
            break
        if not piece:
            break
        shown += piece
    os.close(ours)
    assert process.communicate(timeout=DEADLINE_S)[0] == b"said\n"
    assert process.returncode == 0
    assert b"\x1b[" in shown
    assert "✓".encode() in shown


@pytest.mark.parametrize(
    ("state", "code", "refused", "expected"),
    [
        ("complete", 0, (), 0),
        ("complete", 255, (), 255),
        ("complete", -15, (), 143),
        ("complete", None, (), 125),
        ("complete", 0, ("../x",), 125),
        ("complete", 2, ("../x",), 2),
        ("failed", 1, (), 125),
        ("lost", None, (), 125),
        ("cancelled", -15, (), 125),
    ],
)
def test_exit_codes(state: str, code: int | None, refused: tuple[str, ...], expected: int) -> None:
    assert exit_code(Outcome("j", RemoteStatus("j", state, True, code), refused=refused)) == expected


def test_files_travel_as_rules_say(lwr: Lwr, home: Path) -> None:
    (home / "in.txt").write_text("b\na\n")
    (home / "actions.yaml").write_text(f"paths:\n  - path: {home}/out.txt\n    action: remote_copy\n")
    done = lwr(
        "run", "--json", "--file-actions", "actions.yaml", "--receipt", "receipt.json",
        "--input", "in.txt", "--output", "out.txt", "--workdir-output", "w", "--",
        "sort in.txt > out.txt; echo w > w",
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    document = json.loads(done.stdout)
    assert document["outputs"] == [{"path": f"{home}/w", "size_bytes": 2, "checked": "sha-256"}]
    assert [file["path"] for file in document["delivered"]] == [f"{home}/out.txt"]
    assert (home / "out.txt").read_text() == "a\nb\n"
    receipt = json.loads((home / "receipt.json").read_text())
    assert {file["name"]: (file["action"], file["mover"]) for file in receipt["files"]} == {
        "in.txt": ("transfer", "client"),
        "out.txt": ("remote_copy", "server"),
        "w": ("transfer", "client"),
    }
    assert lwr("verify", "receipt.json").returncode == 0
    (home / "out.txt").write_text("?")
    assert lwr("verify", "receipt.json").returncode == 1


def test_the_server_fetches_and_delivers(lwr: Lwr, home: Path) -> None:
    (home / "in.txt").write_text("b\na\n")
    with JobFilesServer(home, "the-key") as galaxy:
        done = lwr(
            "run", "--remote-transfer", galaxy.endpoint, "--input", "in.txt", "--output", "out.txt", "--",
            "sort in.txt > out.txt",
        )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert "0 files fetched, 1 file delivered by the server" in done.stderr
    assert "the-key" not in done.stderr
    assert (home / "out.txt").read_text() == "a\nb\n"


def test_rules_that_cannot_be_read(lwr: Lwr, home: Path) -> None:
    (home / "actions.yaml").write_text("paths:\n  - pth: /x\n")
    done = lwr("run", "--file-actions", "actions.yaml", "--", "true")
    assert done.returncode == 125
    assert "actions.yaml" in done.stderr


@pytest.mark.parametrize("number", ["0", "-1", "x", "1000"])
def test_how_many_at_a_time(lwr: Lwr, number: str) -> None:
    done = lwr("run", "--at-a-time", number, "--", "true")
    assert done.returncode == 2
    assert "--at-a-time" in done.stderr


def test_a_run_that_was_killed_is_gone_on_with(
    lwr: Lwr, environ: dict[str, str], served: RunningServer, home: Path
) -> None:
    (home / "in.txt").write_text("b\na\n")
    go = home / "go"
    options = ("--input", "in.txt", "--output", "out.txt")
    command = ("--", f"while [ ! -e '{go}' ]; do sleep 0.02; done; sort in.txt > out.txt; echo said")
    began = subprocess.Popen(
        [sys.executable, "-m", "lwr.cli", "run", "--id", "mine", *options, *command],
        env=environ,
        cwd=home,
        stderr=subprocess.DEVNULL,
    )
    with RemoteServer(served.url, served.secret) as server:
        wait_until(lambda: server.status("mine").state == "running", "the job to run")
    began.kill()
    began.wait(DEADLINE_S)
    go.touch()
    done = lwr("run", "--resume", "mine", *options, *command)
    assert (done.returncode, done.stdout) == (0, "said\n"), done.stderr
    assert (home / "out.txt").read_text() == "a\nb\n"


def test_a_server_that_is_gone_leaves_a_job_to_be_gone_on_with() -> None:
    gone = PeerUnreachable("It is gone.", "Is it running?")
    with pytest.raises(PeerUnreachable) as caught, left_for_later(["first", "mine"]):
        raise gone
    assert caught.value.hint == ("`lwr run --resume mine` with the same options goes on with the job. Is it running?")
