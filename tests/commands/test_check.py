"""`lwr check` and its old name: that it passes where all is well, and can fail."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.client.scripted import Answer, json_answer, scripted
from tests.commands.conftest import SECRET, Lwr
from tests.support import DEADLINE_S, RunningServer

ROOT = Path(__file__).parents[2]


def test_everything_works(lwr: Lwr, served: RunningServer) -> None:
    done = lwr("check", "--test-errors")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "everything works" in done.stdout.splitlines()[-1]
    assert "✗" not in done.stdout
    assert SECRET not in done.stdout
    assert not [path for path in served.staging.glob("run-*") if (path / "inputs" / "données.txt").exists()]


def test_for_programs_and_below_a_manager(lwr: Lwr, served: RunningServer) -> None:
    done = lwr("check", "--json", "--url", served.url + "managers/second")
    document = json.loads(done.stdout)
    assert document["ok"] is True
    assert document["url"] == served.url + "managers/second/"
    names = {step["name"] for step in document["steps"]}
    sent = {f"{kind} sent" for kind in ("tool", "config", "input", "workdir", "metadata", "unstructured")}
    assert sent | {f"{kind} fetched" for kind in ("output", "output_workdir", "output_metadata")} <= names
    assert all(step["seconds"] >= 0 and not step["problem"] for step in document["steps"])


def test_a_server_that_is_down_is_two_lines(lwr: Lwr) -> None:
    done = lwr("check", "--url", "http://127.0.0.1:9/")
    assert (done.returncode, done.stdout) == (1, "")
    assert len(done.stderr.splitlines()) == 2


def test_a_wrong_secret(lwr: Lwr) -> None:
    done = lwr("check", "--private-token", "wrong-secret")
    assert done.returncode == 1
    assert "401" in done.stderr
    assert "wrong-secret" not in done.stderr


def test_a_job_that_is_lost_fails_the_check(lwr: Lwr) -> None:
    """A server that answers, but not well: each thing that is wrong is a step of its own."""
    places = {
        f"{name}_directory": f"/s/{name}" for name in ("working", "inputs", "outputs", "configs", "tools", "metadata")
    }
    setup = json_answer({"job_id": "j", **places, "unstructured_files_directory": "/s/u"})
    lost = json_answer({"complete": "true", "status": "lost"})
    with scripted(lost, setup, *[json_answer({})] * 7, Answer(), lost) as peer:
        done = lwr("check", "--url", peer.url)
    assert done.returncode == 1
    assert "steps failed" in done.stdout.splitlines()[-1]
    assert "expected 'complete', found 'lost'" in done.stdout


def test_a_refusal_in_between_ends_the_check(lwr: Lwr) -> None:
    status = json_answer({"complete": "true", "status": "lost"})
    with scripted(status, Answer(409)) as peer:
        done = lwr("check", "--url", peer.url)
    assert done.returncode == 1
    assert "409" in done.stdout


def old_name(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "run_client_tests.py"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_S, stdin=subprocess.DEVNULL)


def test_the_old_name_with_its_options(served: RunningServer) -> None:
    options = ("--private_token", SECRET, "--transport=curl", "--cache", "--test_errors")
    done = old_name(f"--url={served.url}", *options)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "everything works" in done.stdout
    silent = old_name(f"--url={served.url}", *options, "--suppress_output")
    assert (silent.returncode, silent.stdout) == (0, "")


def test_the_old_name_and_a_server_that_is_down() -> None:
    done = old_name("--url=http://127.0.0.1:9/")
    assert done.returncode == 1
    assert "no connection" in done.stderr
