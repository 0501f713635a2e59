"""`lwr mq dead`, against a real broker: what is shown, and that nothing gets lost."""

from __future__ import annotations

import json
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from lwr.cli import main
from lwr.core.messages import DEAD, Address
from lwr.transfer.broker import BrokerOptions, Letter, Publisher, peek
from tests.commands.conftest import Lwr
from tests.machines.rabbitmq import RabbitMQ
from tests.support import wait_until

SETUP = Address("lwr", "lwr__setup")
ANSI_AND_SECRETS = (
    b'{"job_id": "17",\n"url": "https://u:hunter2@g/api?job_key=hunter2&path=/x", "token": "hun\\"ter2",'
    b' "ssh_key": "hunter2", "text": "\x1b]0;title\x07\xff[bold]"}'
)


class Done(NamedTuple):
    """What a command said, and its exit code."""

    returncode: int
    stdout: str
    stderr: str


Mq = Callable[..., Done]


@pytest.fixture
def site(broker: RabbitMQ) -> BrokerOptions:
    """A virtual host of a test's own."""
    return BrokerOptions(broker.url(broker.vhost()))


@pytest.fixture
def mq(site: BrokerOptions, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Mq:
    """mq("list") is `lwr mq dead list` on that broker, named by a server.ini."""
    ini = tmp_path / "server.ini"
    ini.write_text(f"[app:main]\nmessage_queue_url = {site.url.replace('%', '%%')}\n")

    def call(*arguments: str) -> Done:
        code = main(["mq", "dead", *arguments, "--config", str(ini)])
        return Done(code, *capsys.readouterr())

    return call


@contextmanager
def publishing(options: BrokerOptions) -> Iterator[Publisher]:
    with closing(Publisher(options, on_state=lambda _state: None)) as publisher:
        yield publisher


def bury(options: BrokerOptions, body: bytes, *, name: str = "", **headers: str) -> str:
    """A dead letter, as a server leaves it; returns its id."""
    told = {
        "lwr-reason": "The message is no JSON object.",
        "lwr-exchange": SETUP.exchange,
        "lwr-queue": SETUP.queue,
        "lwr-job": "17",
        "lwr-at": "2026-11-22T14:31:03+00:00",
        "lwr-content-type": "application/json",
    }
    name = name or str(uuid.uuid4())
    changed = {f"lwr-{key.replace('_', '-')}": value for key, value in headers.items()}
    with publishing(options) as publisher:
        publisher.publish(Letter(DEAD, body, headers=told | changed, message_id=name))
    return name


def bodies(options: BrokerOptions, address: Address) -> list[bytes]:
    return [delivery.body for delivery in peek(options, address, 100)]


def test_nothing_is_dead(mq: Mq) -> None:
    assert mq("list").stdout == "There are no dead letters.\n"
    assert json.loads(mq("list", "--json").stdout) == []
    assert mq("drop", "--all").returncode == 0
    missing = mq("show", "abc")
    assert missing.returncode == 2
    assert "There is no dead letter abc." in missing.stderr


def test_list(mq: Mq, site: BrokerOptions) -> None:
    first, second = bury(site, b"[]"), bury(site, b"{", reason="Evil \x1b[31m[red]", job="", queue="pulsar_a__kill")
    listed = mq("list")
    lines = listed.stdout.splitlines()
    assert [line.split()[0] for line in lines[3:5]] == [first[:8], second[:8]]
    assert "lwr__setup" in lines[3]
    assert "The message is no JSON object." in lines[3]
    assert "pulsar_a__kill" in lines[4]
    assert "Evil ?[31m[red]" in lines[4]
    (one, two) = json.loads(mq("list", "--json").stdout)
    assert (one["id"], one["job_id"], one["queue"], one["size_bytes"]) == (first, "17", "lwr__setup", 2)
    assert one["at"] == "2026-11-22T14:31:03+00:00"
    assert two["id"] == second
    assert bodies(site, DEAD) == [b"[]", b"{"]


def test_the_list_is_what_the_command_does_alone(lwr: Lwr, tmp_path: Path) -> None:
    (tmp_path / "home" / "server.ini").write_text("[app:main]\nmessage_queue_url = memory://\n")
    assert lwr("mq", "dead").stdout == "There are no dead letters.\n"


def test_show_makes_it_harmless(mq: Mq, site: BrokerOptions) -> None:
    name = bury(site, ANSI_AND_SECRETS, reason="job_key=hunter2 is bad")
    shown = mq("show", name[:12])
    assert shown.returncode == 0, shown.stderr
    for word in (name, "lwr__setup", "2026-11-22", '"job_id": "17"', "path=/x", "]0;title", "[bold]"):
        assert word in shown.stdout
    document = mq("show", "--json", name).stdout
    assert json.loads(document)[0]["body"].startswith('{\n "job_id": "17",')
    for text in (shown.stdout, document):
        assert "hunter2" not in text
        assert "ter2" not in text
        assert "\x1b" not in text


def test_replay_takes_it_out_after_it_arrived(mq: Mq, site: BrokerOptions) -> None:
    kept, replayed = bury(site, b"[1]"), bury(site, b"[2]")
    done = mq("replay", replayed)
    assert done.returncode == 0, done.stderr
    assert "replayed to lwr__setup" in done.stdout
    assert bodies(site, DEAD) == [b"[1]"]
    (delivery,) = peek(site, SETUP, 5)
    assert (delivery.body, delivery.content_type, dict(delivery.headers)) == (b"[2]", "application/json", {})
    assert mq("replay", replayed).returncode == 2
    assert json.loads(mq("replay", "--all", "--json").stdout)[0]["id"] == kept
    assert bodies(site, SETUP) == [b"[2]", b"[1]"]


def test_what_cannot_be_replayed_stays(mq: Mq, site: BrokerOptions) -> None:
    bury(site, b"x" * 100, cut="1")
    bury(site, b"[]", exchange="amq.direct")
    bury(site, b"[good]")
    done = mq("replay", "--all")
    assert done.returncode == 1
    assert "only its beginning was kept" in done.stdout
    assert "does not say where it came from" in done.stdout
    assert bodies(site, DEAD) == [b"x" * 100, b"[]"]
    assert bodies(site, SETUP) == [b"[good]"]


def test_drop(mq: Mq, site: BrokerOptions) -> None:
    names = [bury(site, body) for body in (b"1", b"2", b"3")]
    assert "dropped" in mq("drop", names[1]).stdout
    assert bodies(site, DEAD) == [b"1", b"3"]
    for verb in ("show", "replay", "drop"):
        unnamed = mq(verb)
        assert unnamed.returncode == 2
        assert "--all" in unnamed.stderr
    assert mq("drop", "--all").returncode == 0
    assert bodies(site, DEAD) == []


def test_a_beginning_that_two_have_names_none(mq: Mq, site: BrokerOptions) -> None:
    bury(site, b"1", name="abcdefgh-1")
    bury(site, b"2", name="abcdefgh-2")
    assert "2 dead letters begin with abc." in mq("drop", "abc").stderr
    assert [line.split()[0] for line in mq("list").stdout.splitlines()[3:5]] == ["abcdefgh-1", "abcdefgh-2"]
    assert bodies(site, DEAD) == [b"1", b"2"]


def test_one_that_says_nothing_of_itself_has_an_id_too(mq: Mq, site: BrokerOptions) -> None:
    with publishing(site) as publisher:
        publisher.publish(Letter(DEAD, b"\xff"))
    (one,) = json.loads(mq("list", "--json").stdout)
    assert not one["can_be_replayed"]
    assert mq("drop", one["id"]).returncode == 0
    assert bodies(site, DEAD) == []


def test_a_replay_that_the_broker_refuses_leaves_it_dead(mq: Mq, site: BrokerOptions, broker: RabbitMQ) -> None:
    """The same as a command that is killed before the confirm: the message is taken out after it, never before."""
    bury(site, b"[]", queue="x" * 300)
    assert mq("replay", "--all").returncode == 2
    assert bodies(site, DEAD) == [b"[]"]


def test_a_replay_that_is_killed_loses_none(
    site: BrokerOptions, broker: RabbitMQ, environ: dict[str, str], record_property: Callable[[str, object], None]
) -> None:
    """Killed somewhere among them; one may be there twice."""
    sent = {b"%d" % number for number in range(300)}
    with publishing(site) as publisher:
        letters = [Letter(DEAD, body, headers={"lwr-exchange": "lwr", "lwr-queue": "lwr__setup"}) for body in sent]
        assert publisher.publish_all(letters) == [None] * len(sent)
    vhost = site.places[0].vhost
    command = [sys.executable, "-m", "lwr.cli", "mq", "dead", "replay", "--all", "--url", site.url]
    with subprocess.Popen(command, env=environ, stdout=subprocess.DEVNULL) as process:
        wait_until(lambda: broker.queue_depths(vhost).get(SETUP.queue, 0) > 0, "the first to be replayed")
        process.kill()
    left, replayed = ({delivery.body for delivery in peek(site, there, 2 * len(sent))} for there in (DEAD, SETUP))
    record_property("replayed before the kill", f"{len(replayed)} of {len(sent)}")
    assert left | replayed == sent


def test_a_broker_that_says_no(lwr: Lwr, broker: RabbitMQ) -> None:
    done = lwr("mq", "dead", "list", "--url", broker.url(user="lwr:hunter2"))
    assert done.returncode == 2
    assert "hunter2" not in done.stderr + done.stdout
    assert "lwr" in done.stderr
