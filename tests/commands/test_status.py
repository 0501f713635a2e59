"""`lwr status`: the screen, the document, the exit code, and what a hostile server cannot do with them."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from typing import Any

import pytest

from tests.client.scripted import Answer, json_answer, scripted
from tests.commands.conftest import Lwr
from tests.support import DEADLINE_S

TOLD: dict[str, Any] = {
    "version": "1.2",
    "at": 10_000.0,
    "started_at": 2_800.0,
    "ready": False,
    "problems": ["The publisher has not reached the broker for 60 s: refused. LWR tries again by itself."],
    "managers": [
        {"name": "_default_", "type": "queued_python", "jobs": {"complete": 3, "running": 2}},
        {"name": "second", "type": "unqueued", "jobs": {}},
        {"name": "third", "type": "unqueued", "jobs": None},
    ],
    "staging": {"running": 4, "waiting": 5},
    "disks": [
        {"directory": "/srv/staging", "free_bytes": 5_000_000_000, "total_bytes": 100_000_000_000},
        {"directory": "/gone", "free_bytes": None, "total_bytes": None},
    ],
    "queue": {
        "broker": "amqp://lwr:***@broker/",
        "consumer": {"connected": True, "since": 9_995.0, "reason": ""},
        "publisher": {"connected": False, "since": 9_940.0, "reason": "refused"},
        "waiting": 3,
        "oldest_at": 9_950.0,
    },
}


def lines(screen: str) -> list[str]:
    """The lines of a screen, each with single blanks."""
    return [" ".join(line.split()) for line in screen.splitlines()]


def test_a_real_server_on_one_screen(lwr: Lwr) -> None:
    done = lwr("status")
    assert done.returncode == 0, done.stderr
    assert "● ready" in done.stdout
    assert "managers _default_ queued_python" in "\n".join(lines(done.stdout))
    assert "free of" in done.stdout
    assert "queue" not in done.stdout.replace("queued", "")


def test_the_document_of_a_real_server(lwr: Lwr) -> None:
    told = json.loads(lwr("status", "--json").stdout)
    assert (told["ready"], told["queue"], [each["name"] for each in told["managers"]]) == (
        True,
        None,
        ["_default_", "second"],
    )


def test_everything_that_can_be_wrong_is_seen(lwr: Lwr) -> None:
    with scripted(json_answer(TOLD)) as peer:
        done = lwr("status", "--url", peer.url)
    assert done.returncode == 1
    assert lines(done.stdout) == [
        f"LWR 1.2 ● not ready up 2 h 0 min {peer.url}",
        "managers _default_ queued_python 2 running, 3 complete",
        "second unqueued no jobs",
        "third unqueued unknown",
        "files moved by the server 4 under way, 5 waiting",
        "queue amqp://lwr:***@broker/",
        "consumer connected for 5 s",
        "publisher away for 1 min 0 s: refused",
        "updates to be sent 3, the oldest for 50 s",
        "disks /srv/staging 5.0 GB free of 100.0 GB (5%)",
        "/gone cannot be used",
        "! The publisher has not reached the broker for 60 s: refused. LWR tries again by itself.",
    ]


def test_a_link_that_is_not_configured(lwr: Lwr) -> None:
    queue = {**TOLD["queue"], "consumer": None, "oldest_at": None, "waiting": 0}
    with scripted(json_answer({**TOLD, "queue": queue, "ready": True, "problems": []})) as peer:
        done = lwr("status", "--url", peer.url)
    assert done.returncode == 0
    assert "consumer not configured" in lines(done.stdout)
    assert "updates to be sent 0" in lines(done.stdout)


def test_what_a_server_says_cannot_drive_the_terminal(lwr: Lwr) -> None:
    evil = "\x1b[2J\x07[red]x"
    told = {
        "ready": True,
        "version": evil,
        "at": float("nan"),
        "started_at": float("inf"),
        "problems": [evil],
        "managers": [{"name": evil, "type": evil, "jobs": {evil: 1, "running": 1}}, evil],
        "staging": {"running": evil, "waiting": None},
        "disks": [{"directory": evil, "free_bytes": evil, "total_bytes": 0}],
        "queue": {"broker": evil, "consumer": {"reason": evil, "since": evil}, "publisher": evil, "waiting": evil},
    }
    with scripted(json_answer(told)) as peer:
        done = lwr("status", "--url", peer.url)
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("[red]x") == 9
    assert not {"\x1b", "\x07"} & set(done.stdout)


def test_who_is_no_server_or_not_there(lwr: Lwr, tmp_path_factory: pytest.TempPathFactory) -> None:
    with scripted(json_answer([])) as peer:
        done = lwr("status", "--url", peer.url)
    assert (done.returncode, done.stdout) == (2, "")
    assert "it does not say" in done.stderr
    gone = lwr("status", "--url", f"unix:{tmp_path_factory.mktemp('gone')}/lwr.sock")
    assert (gone.returncode, gone.stdout) == (2, "")
    assert "no connection to unix:" in gone.stderr


@pytest.mark.parametrize("words", [("● ready",), ('"ready": true', "--json")])
def test_watching_goes_on_until_it_is_ended(environ: dict[str, str], words: tuple[str, ...]) -> None:
    with (
        scripted(json_answer({"ready": False}), Answer(announced_bytes=99), json_answer({"ready": True})) as peer,
        subprocess.Popen(
            [sys.executable, "-m", "lwr.cli", "status", "--watch", "--url", peer.url, *words[1:]],
            env=environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        ) as watching,
    ):
        assert watching.stdout is not None
        assert watching.stderr is not None
        seen: list[str] = []
        while not seen or words[0] not in seen[-1]:
            seen.append(watching.stdout.readline())
            assert seen[-1], "it ended"
        watching.send_signal(signal.SIGINT)
        assert watching.wait(DEADLINE_S) == 0
        assert watching.stderr.read() == ""
    assert len([line for line in seen if line.strip()]) == 3
