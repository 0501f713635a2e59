"""`lwr jobs`: what people see and what programs get."""

from __future__ import annotations

import json

import pytest

from lwr.client import RemoteServer
from tests.client.scripted import json_answer, scripted
from tests.commands.conftest import SECRET, Lwr
from tests.support import RunningServer, wait_until


@pytest.fixture
def kept(lwr: Lwr, request: pytest.FixtureRequest) -> str:
    """A finished job that is still there."""
    job_id = "kept-" + "".join(c if c.isalnum() else "-" for c in request.node.name)
    assert lwr("run", "--keep", "--id", job_id, "--", "exit 3").returncode == 3
    return job_id


def test_list(lwr: Lwr, kept: str) -> None:
    listed = lwr("jobs", "list").stdout
    line = next(line for line in listed.splitlines() if kept in line)
    assert "complete" in line
    assert " 3 " in line
    document = json.loads(lwr("jobs", "list", "--json", "--state", "complete").stdout)
    assert kept in [job["job_id"] for job in document]


def test_an_empty_list_says_so(lwr: Lwr) -> None:
    assert "no such jobs" in lwr("jobs", "list", "--state", "lost").stdout
    assert json.loads(lwr("jobs", "list", "--state", "lost", "--json").stdout) == []


def test_show(lwr: Lwr, kept: str) -> None:
    shown = lwr("jobs", "show", kept).stdout
    states = ["new", "preprocessing", "queued", "complete"]
    assert [word for word in shown.split() if word in states][1:] == states
    assert json.loads(lwr("jobs", "show", kept, "--json").stdout)[0]["exit_code"] == 3


def test_clean(lwr: Lwr, kept: str) -> None:
    assert f"{kept} is removed" in lwr("jobs", "clean", kept).stdout
    again = lwr("jobs", "clean", "never-was")
    assert (again.returncode, again.stdout) == (2, "")
    assert "There is no job never-was" in again.stderr


def test_cancel_of_a_job_that_is_over(lwr: Lwr, kept: str) -> None:
    assert f"{kept} is over" in lwr("jobs", "cancel", kept).stdout
    assert json.loads(lwr("jobs", "cancel", kept, "--json").stdout)[0]["job_id"] == kept


def test_the_end_of_running_jobs(lwr: Lwr, served: RunningServer) -> None:
    names = ("goes-on-1", "goes-on-2")
    with RemoteServer(served.url, SECRET) as server:
        for job_id in names:
            server.setup(job_id)
            server.submit(job_id, "sleep 600")
        done = lwr("jobs", "cancel", *names)
        assert done.stdout.count("goes-on") == 2, done.stderr
        wait_until(lambda: all(server.status(job_id).state == "cancelled" for job_id in names), "their end")
    assert "goes-on-1 is removed" in lwr("jobs", "clean", "goes-on-1").stdout


def test_what_a_server_says_cannot_drive_the_terminal(lwr: Lwr) -> None:
    evil = {"job_id": "\x1b[2Jx[red]", "state": "\x07running", "reason": "\x1b]0;title\x07", "events": [{"at": 0}]}
    with scripted(json_answer({"jobs": [evil]})) as peer:
        listed = lwr("jobs", "list", "--url", peer.url)
    with scripted(json_answer(evil)) as peer:
        shown = lwr("jobs", "show", "x", "--url", peer.url)
    for done in (listed, shown):
        assert done.returncode == 0, done.stderr
        assert "x[red]" in done.stdout
        assert "\x1b" not in done.stdout
        assert "\x07" not in done.stdout


def test_a_server_without_the_list(lwr: Lwr) -> None:
    with scripted(json_answer([])) as peer:
        done = lwr("jobs", "list", "--url", peer.url)
    assert done.returncode == 2
    assert "does not offer it" in done.stderr
