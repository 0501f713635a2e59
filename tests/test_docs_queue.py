"""What `docs/message-queue.md` says to type and to write is typed and written: into a real broker, LWR, its parser."""

from __future__ import annotations

import re
import shlex
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
import yaml

from lwr.cli import parser
from lwr.config import load, options
from lwr.core.messages import DEAD, Address, Dialect, Kind, address
from lwr.errors import PeerRefused
from lwr.transfer.broker import BrokerOptions, Letter, Publisher, peek
from tests.machines.rabbitmq import RabbitMQ
from tests.support import DEADLINE_S, wait_until

PAGE = (Path(__file__).parents[1] / "docs" / "message-queue.md").read_text("utf-8")

#: What each user reads, and what it sends to. The rest of both is not its business.
SERVER_READS = (Kind.SETUP, Kind.KILL, Kind.STATUS, Kind.STATUS_UPDATE_ACK)
GALAXY_READS = (Kind.STATUS_UPDATE, Kind.SETUP_ACK, Kind.KILL_ACK, Kind.STATUS_ACK)


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


def commands(program: str) -> list[list[str]]:
    lines = "".join(blocks("sh")).splitlines()
    return [shlex.split(line)[1:] for line in lines if line.startswith(f"{program} ")]


def queues(kinds: tuple[Kind, ...], reply: str = "") -> Iterator[Address]:
    for dialect in Dialect:
        for manager, key_prefix in (("_default_", ""), ("long", ""), ("_default_", "pulsar_site7_")):
            for kind in kinds:
                yield address(dialect, manager, kind, key_prefix=key_prefix, reply=reply)


@pytest.fixture(scope="module")
def site() -> dict[str, BrokerOptions]:
    return {}


@pytest.fixture
def users(broker: RabbitMQ, site: dict[str, BrokerOptions]) -> dict[str, BrokerOptions]:
    """The two users of the page, made by its own commands."""
    if not site:
        for words in commands("rabbitmqctl"):
            password = ["s3cret"] if words[0] == "add_user" else []
            broker.ctl(*words, *password)
            if password:
                site[words[1]] = BrokerOptions(broker.url("lwr", user=f"{words[1]}:s3cret"))
    return site


def send(user: BrokerOptions, to: Address) -> None:
    with closing(Publisher(user, on_state=lambda _state: None)) as publisher:
        publisher.publish(Letter(to, b"{}"))


def test_each_side_may_do_what_it_needs(users: dict[str, BrokerOptions]) -> None:
    """Making all queues that it reads or sends to, first of all: whoever comes first does."""
    server, galaxy = users["lwr-server"], users["galaxy"]
    for there in (*queues(SERVER_READS), DEAD):
        peek(server, there, 1)
    for there in (*queues(GALAXY_READS), *queues((Kind.STATUS_UPDATE,), "run-1")):
        peek(galaxy, there, 1)
    for there in (*queues((Kind.STATUS_UPDATE, Kind.SETUP_ACK)), DEAD, *queues((Kind.STATUS_UPDATE,), "run-2")):
        send(server, there)
    for there in queues((Kind.SETUP, Kind.KILL, Kind.STATUS, Kind.STATUS_UPDATE_ACK)):
        send(galaxy, there)


def test_neither_side_reads_what_is_for_the_other(users: dict[str, BrokerOptions]) -> None:
    for user, forbidden in (
        ("lwr-server", (*queues(GALAXY_READS), *queues((Kind.STATUS_UPDATE,), "run-1"))),
        ("galaxy", (*queues((Kind.SETUP, Kind.KILL, Kind.STATUS)), DEAD)),
    ):
        for there in forbidden:
            send(BrokerOptions(users["lwr-server"].url), there)
            with pytest.raises(PeerRefused):
                peek(users[user], there, 1)


def test_the_first_job_of_the_page(users: dict[str, BrokerOptions], tmp_path: Path) -> None:
    """Its file, its users with what they may do, its commands; only names of places are ours."""
    token = tmp_path / "token"
    token.write_text("s3cret\n")
    place = users["galaxy"].url.rpartition("@")[2]
    ours = {
        "amqp://lwr-server:PASSWORD@broker.example.org/lwr": users["lwr-server"].url,
        "amqp://galaxy@broker.example.org/lwr": f"amqp://galaxy@{place}",
        "~/.lwr-broker": str(token),
        "/srv/lwr": str(tmp_path),
    }

    def here(text: str) -> str:
        for theirs, own in ours.items():
            text = text.replace(theirs, own)
        return text

    def lwr(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "lwr.cli", *map(here, words)]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=DEADLINE_S)

    (tmp_path / "server.ini").write_text(here(blocks("ini")[0]))
    (tmp_path / "server.ini").chmod(0o600)
    check, serve, status, run, *_ = commands("lwr")
    assert "message queue at amqp://lwr-server:**@" in lwr(*check).stdout
    serving = [sys.executable, "-m", "lwr.cli", *serve]
    with (tmp_path / "log").open("w") as log, subprocess.Popen(serving, cwd=tmp_path, stderr=log) as server:
        try:
            wait_until(lambda: lwr(*status).returncode == 0, "the server to be ready")
            done = lwr(*run)
            assert (done.returncode, done.stdout.strip()) == (0, socket.gethostname()), done.stderr
            send(users["galaxy"], address(Dialect.PULSAR, "_default_", Kind.SETUP))
            wait_until(lambda: "pulsar__setup" in lwr("mq", "dead").stdout, "a message without a job to be put aside")
            assert lwr("mq", "dead", "drop", "--all").returncode == 0
        finally:
            server.terminate()


def test_the_ini_files_are_read(tmp_path: Path) -> None:
    texts = blocks("ini")
    assert len(texts) == 3
    for text in texts:
        (tmp_path / "server.ini").write_text(text)
        (tmp_path / "server.ini").chmod(0o600)
        config = load(tmp_path / "server.ini", {})
        assert config.queue is not None
        assert config.notices == ()
        assert config.serves_http is ("host = none" not in text)


def test_the_commands_are_commands() -> None:
    lines = commands("lwr")
    assert {words[0] for words in lines} == {"config", "serve", "status", "run", "mq", "submit"}
    for words in lines:
        parser().parse_args(words)


def test_galaxys_parameters_are_options_here_too() -> None:
    (text,) = blocks("yaml")
    runner = yaml.safe_load(text)["runners"]["lwr_mq"]
    named = [name for name in runner if name.startswith("amqp_") and name != "amqp_url"]
    assert len(named) == 3
    assert all(options.known(name) for name in named)
    assert runner["amqp_url"].startswith("amqps://galaxy:")


def test_every_option_that_is_named_is_one() -> None:
    named = set(re.findall(r"`((?:amqp|message_queue)_\w+)`", PAGE)) - {"amqp_url"}
    assert named
    assert {name for name in named if not options.known(name)} == set()


def test_the_brokers_configuration_is_one_that_it_reads(broker: RabbitMQ) -> None:
    """Its names are those of the configuration that this broker was started with; values are other paths."""
    (text,) = (text for text in blocks("") if "listeners.tcp" in text)
    started = (Path(broker.evaluate('io:format(os:getenv("RABBITMQ_CONFIG_FILE"))'))).read_text()
    theirs = dict(line.split(" = ") for line in started.splitlines() if " = " in line)
    for name, value in (line.split(" = ") for line in text.splitlines()):
        assert name.startswith("listeners.") or name in theirs
        assert value.startswith("/") or name.startswith("listeners.") or theirs[name] == value
