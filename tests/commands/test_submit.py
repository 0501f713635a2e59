"""`lwr submit` as a process, against a real broker: told like any job, gone on with after a kill, nothing consumed."""

from __future__ import annotations

import base64
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lwr.core.messages import Dialect, Kind
from tests.machines.rabbitmq import RabbitMQ
from tests.server.test_amqp import Client, in_ini
from tests.support import free_port, wait_until, write_configuration


class Submitter:
    """Runs the command with a server.ini of its own."""

    def __init__(self, directory: Path, url: str) -> None:
        self.ini = write_configuration(directory, port=free_port(), options=f"message_queue_url = {in_ini(url)}")
        self.client = Client(url, dialect=Dialect.LWR)
        self.directory = directory

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "lwr.cli", "submit", str(self.ini), *arguments]
        return subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)

    def submit(self, *arguments: str) -> tuple[int, str]:
        process = self.start(*arguments)
        _, errors = process.communicate(timeout=60)
        return process.returncode, errors


@pytest.fixture
def submitter(tmp_path: Path, broker: RabbitMQ) -> Iterator[Submitter]:
    submitter = Submitter(tmp_path, broker.url(broker.vhost()))
    yield submitter
    submitter.client.close()


def message(command: str) -> str:
    return json.dumps({"job_id": "1", "command_line": command, "setup_params": {"job_id": "1"}})


@pytest.mark.parametrize(("command", "status", "code"), [("echo hi", "complete", 0), ("exit 3", "complete", 0)])
def test_a_job_in_base64_is_run_and_told(submitter: Submitter, command: str, status: str, code: int) -> None:
    submitter.client.setup("other")  # waits for a server that consumes; this one does not
    assert submitter.submit("--base64", base64.b64encode(message(command).encode()).decode())[0] == code
    assert submitter.client.until("1", status)["job_id"] == "1"
    assert {update["job_id"] for update in submitter.client.look()} == {"1"}


def test_the_same_again_is_told_as_before_and_runs_nothing(submitter: Submitter, tmp_path: Path) -> None:
    ran, file = tmp_path / "ran", tmp_path / "message.json"
    file.write_text(message(f"echo x >> {ran}"))
    for _ in range(2):
        assert submitter.submit("--file", str(file))[0] == 0
    assert [state for state in submitter.client.states("1") if state != "running"] == ["complete", "complete"]
    assert ran.read_text() == "x\n"


def test_what_is_long_over_is_removed_by_a_later_command(submitter: Submitter, tmp_path: Path) -> None:
    file = tmp_path / "message.json"
    file.write_text(message("true"))
    submitter.submit("--file", str(file))
    (record,) = (submitter.directory / "persisted" / "submit").iterdir()
    os.utime(record / "lwr.sqlite", (1.0, 1.0))
    assert (submitter.directory / "staging" / "1").exists()
    file.write_text(json.dumps({"job_id": "2", "command_line": "true"}))
    assert submitter.submit("--file", str(file))[0] == 0
    assert not record.exists()
    assert not (submitter.directory / "staging" / "1").exists()


def test_a_refused_job_is_told_as_failed(submitter: Submitter, tmp_path: Path) -> None:
    file = tmp_path / "message.json"
    file.write_text(json.dumps({"job_id": "1", "command_line": ["no text"]}))
    assert submitter.submit("--file", str(file))[0] == 1
    assert "command_line" in submitter.client.until("1", "failed")["stderr"]


def test_a_killed_command_goes_on_when_it_is_given_again(submitter: Submitter, tmp_path: Path) -> None:
    gate, ran, file = tmp_path / "gate", tmp_path / "ran", tmp_path / "message.json"
    file.write_text(message(f"echo x >> {ran}; while [ ! -e {gate} ]; do sleep 0.05; done"))
    first = submitter.start("--file", str(file))
    submitter.client.until("1", "running")
    first.send_signal(signal.SIGKILL)
    first.communicate()
    gate.touch()
    assert submitter.submit("--file", str(file))[0] == 0
    assert submitter.client.states("1")[-1] == "complete"
    assert ran.read_text() == "x\n"


def test_a_stopped_command_says_so_and_the_job_goes_on(submitter: Submitter, tmp_path: Path) -> None:
    gate, file = tmp_path / "gate", tmp_path / "message.json"
    file.write_text(message(f"while [ ! -e {gate} ]; do sleep 0.05; done"))
    first = submitter.start("--file", str(file))
    submitter.client.until("1", "running")
    first.terminate()
    first.communicate()
    assert first.returncode == 130
    gate.touch()
    assert submitter.submit("--file", str(file))[0] == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--base64", "%%%"], "base64"),
        (["--base64", base64.b64encode(b"[]").decode()], "object"),
        (["--base64", base64.b64encode(b'{"job_id": "../x"}').decode()], "names no job"),
        (["--file", "nowhere.json"], "nowhere.json"),
        (["--base64", base64.b64encode(b'{"job_id": "1"}').decode(), "--manager", "none"], "no manager none"),
    ],
)
def test_what_cannot_be_a_job_is_said(submitter: Submitter, arguments: list[str], said: str) -> None:
    code, errors = submitter.submit(*arguments)
    assert code == 2
    assert said in errors


def test_no_queue_no_submit(tmp_path: Path) -> None:
    ini = write_configuration(tmp_path, port=free_port())
    command = [
        sys.executable,
        "-m",
        "lwr.cli",
        "submit",
        str(ini),
        "--base64",
        base64.b64encode(b'{"job_id":"1"}').decode(),
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "message_queue_url" in done.stderr


def test_the_reader_of_the_message_is_told_in_its_own_words(submitter: Submitter) -> None:
    pulsar = Client(submitter.client.options.url, dialect=Dialect.PULSAR)
    assert (
        submitter.submit("--dialect", "pulsar", "--base64", base64.b64encode(message("true").encode()).decode())[0] == 0
    )
    assert wait_until(lambda: pulsar.states("1"), "updates")[-1] == "complete"
    assert submitter.client.look() == []
    assert pulsar.queue(Kind.STATUS_UPDATE).exchange == "pulsar"
    pulsar.close()
