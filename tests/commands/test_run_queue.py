"""`lwr run` with a server behind a broker, as a person runs it: a real RabbitMQ, a real server, Galaxy's files."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.machines.job_files import JobFilesServer
from tests.machines.rabbitmq import RabbitMQ
from tests.support import DEADLINE_S, RunningServer, wait_until

KEY = "the-job-key"


class Desk:
    """A person's directory and environment, for a server behind a broker. The password is in a file."""

    def __init__(self, directory: Path, broker: RabbitMQ, vhost: str, staging: Path) -> None:
        self.home = directory
        self.home.mkdir()
        (directory / "password").write_text(broker.password + "\n")
        kept = {name: value for name, value in os.environ.items() if not name.startswith("LWR_")}
        self.environ = {**kept, "LC_ALL": "C.UTF-8", "LWR_TOKEN_FILE": str(directory / "password")}
        where = ["--url", broker.url(vhost, user="lwr"), "--jobs-directory", str(staging)]
        self._lwr = [sys.executable, "-m", "lwr.cli", "run", *where]

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [*self._lwr, *arguments],
            env=self.environ, cwd=self.home, text=True,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip

    def run(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        process = self.start(*arguments)
        out, err = process.communicate(timeout=2 * DEADLINE_S)
        return subprocess.CompletedProcess(process.args, process.returncode, out, err)


@pytest.fixture(scope="module")
def bound(tmp_path_factory: pytest.TempPathFactory, _rabbitmq: RabbitMQ) -> Iterator[tuple[RunningServer, str]]:
    vhost = _rabbitmq.vhost()
    options = f"message_queue_url = {_rabbitmq.url(vhost)}"
    with RunningServer(tmp_path_factory.mktemp("bound"), options=options) as server:
        yield server, vhost


@pytest.fixture
def desk(tmp_path: Path, broker: RabbitMQ, bound: tuple[RunningServer, str]) -> Desk:
    server, vhost = bound
    return Desk(tmp_path / "home", broker, vhost, server.staging)


@pytest.fixture
def galaxy(tmp_path: Path) -> Iterator[JobFilesServer]:
    with JobFilesServer(tmp_path, KEY) as endpoint:
        yield endpoint


def test_a_small_text_and_what_the_command_says(desk: Desk, broker: RabbitMQ, bound: tuple[RunningServer, str]) -> None:
    (desk.home / "in.txt").write_text("eins\nzwei\n")
    done = desk.run("--input", "in.txt", "--", "wc -l < in.txt; echo wept >&2; exit 3")
    assert (done.returncode, done.stdout.strip()) == (3, "2"), done.stderr
    assert "wept\n" in done.stderr
    assert "exit code 3" in done.stderr
    assert broker.password not in done.stderr
    depths = broker.queue_depths(bound[1])
    assert not [name for name in depths if "status_update_" in name]
    assert not any(depths.values())


def test_the_server_fetches_and_delivers(desk: Desk, galaxy: JobFilesServer) -> None:
    (desk.home / "in.bin").write_bytes(b"\xff\x00" * 50_000)
    done = desk.run(
        "--json", "--receipt", "receipt.json", "--remote-transfer", galaxy.endpoint,
        "--input", "in.bin", "--output", "out.bin", "--", "cat in.bin in.bin > out.bin",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr + done.stdout
    assert (desk.home / "out.bin").read_bytes() == b"\xff\x00" * 100_000
    document = json.loads(done.stdout)
    assert [(file["path"], file["size_bytes"]) for file in document["delivered"]] == [(f"{desk.home}/out.bin", 200_000)]
    receipt = json.loads((desk.home / "receipt.json").read_text())
    assert {file["name"]: file["state"] for file in receipt["files"]} == {"in.bin": "whole", "out.bin": "whole"}


@pytest.mark.parametrize(("size_bytes", "is_cut"), [(65536, False), (65537, True)])
def test_a_stream_that_comes_without_its_middle_is_told(desk: Desk, size_bytes: int, is_cut: bool) -> None:
    command = f"head -c {size_bytes} /dev/zero | tr '\\0' x"
    done = desk.run("--", command)
    assert done.returncode == 0
    assert ("the middle of stdout is missing" in done.stderr) == is_cut == (done.stdout != "x" * size_bytes)
    document = json.loads(desk.run("--json", "--", command).stdout)
    assert document["shortened"] == (["stdout"] if is_cut else [])


def test_a_result_that_was_not_written_is_seen(desk: Desk, galaxy: JobFilesServer) -> None:
    done = desk.run("--json", "--remote-transfer", galaxy.endpoint, "--output", "never", "--", "true")
    assert (done.returncode, json.loads(done.stdout)["missing"]) == (125, ["never"])


def test_a_result_that_cannot_be_delivered_fails_the_job(desk: Desk, galaxy: JobFilesServer) -> None:
    galaxy.active = False
    done = desk.run("--json", "--remote-transfer", galaxy.endpoint, "--output", "o", "--", "echo > o")
    document = json.loads(done.stdout)
    assert (done.returncode, document["state"]) == (125, "failed")
    assert "403" in document["stderr"]
    assert KEY not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (("--output", "o", "--", "true"), "o would be moved by the client"),
        (("--jobs-directory", "", "--", "true"), "where the server keeps its jobs"),
        (("--amqp", "connect_ssl_ca_certs", "--", "true"), "is not NAME=VALUE"),
        (("--amqp", "nonsense=1", "--", "true"), "amqp_nonsense is not an option"),
        (("--url", "amqp://lwr@127.0.0.1:9/", "--", "true"), "127.0.0.1:9"),
    ],
)
def test_what_cannot_be_done_is_125_and_two_lines(desk: Desk, arguments: tuple[str, ...], sentence: str) -> None:
    done = desk.run(*arguments)
    assert done.returncode == 125
    assert sentence in done.stderr
    assert len([line for line in done.stderr.splitlines() if not line.startswith(("  job", "!"))]) == 2, done.stderr
    assert done.stdout == ""


def test_ctrl_c_ends_the_job(desk: Desk, bound: tuple[RunningServer, str], tmp_path: Path) -> None:
    started, job_id = tmp_path / "started", "queue-stopped"
    process = desk.start("--id", job_id, "--", f"touch '{started}'; sleep 600")
    wait_until(started.exists, "the command to run")
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 130
    assert bound[0].ask_json("GET", f"jobs/{job_id}/status")["status"] == "cancelled"  # type: ignore[index]


def test_a_client_that_was_killed_is_gone_on_with(
    desk: Desk, galaxy: JobFilesServer, broker: RabbitMQ, bound: tuple[RunningServer, str], tmp_path: Path
) -> None:
    """Whether it was killed while the job ran, or after it was over and told."""
    started, go_on = tmp_path / "started", tmp_path / "go-on"
    command = f"touch '{started}'; while [ ! -e '{go_on}' ]; do sleep 0.05; done; echo said; echo 1 > out.txt"
    options = ("--remote-transfer", galaxy.endpoint, "--output", "out.txt", "--quiet", "--", command)
    process = desk.start("--id", "queue-killed", *options)
    wait_until(started.exists, "the command to run")
    process.kill()
    process.communicate()
    go_on.touch()
    for _ in range(2):  # the second finds nothing on its queue, and asks
        done = desk.run("--resume", "queue-killed", *options)
        assert (done.returncode, done.stdout, done.stderr) == (0, "said\n", "")
    assert (desk.home / "out.txt").read_text() == "1\n"
    assert not any(broker.queue_depths(bound[1]).values())


def test_a_job_that_nobody_knows(desk: Desk) -> None:
    done = desk.run("--json", "--resume", "never-begun", "--", "true")
    document = json.loads(done.stdout)
    assert (done.returncode, document["state"]) == (125, "failed")
    assert "no job never-begun" in document["stderr"]


def test_a_broker_that_is_restarted_meanwhile(tmp_path: Path) -> None:
    started, go_on = tmp_path / "started", tmp_path / "go-on"
    with RabbitMQ(tmp_path / "rabbitmq") as broker:
        vhost = broker.vhost()
        options = f"message_queue_url = {broker.url(vhost)}"
        with RunningServer(tmp_path / "server", options=options) as server:
            desk = Desk(tmp_path / "home", broker, vhost, server.staging)
            command = f"touch '{started}'; while [ ! -e '{go_on}' ]; do sleep 0.05; done; echo said"
            process = desk.start("--", command)
            wait_until(started.exists, "the command to run")
            broker.stop()
            go_on.touch()
            broker.start()
            out, err = process.communicate(timeout=4 * DEADLINE_S)
    assert (process.returncode, out) == (0, "said\n"), err
    assert "Trying again" in err
