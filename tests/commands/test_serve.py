"""`lwr serve` in the background and in the foreground, as a real process each."""

from __future__ import annotations

import json
import os
import signal
import ssl
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.support import DEADLINE_S, wait_until

LWR = (sys.executable, "-m", "lwr.cli", "serve", "--json")
_DIRECT = urllib.request.ProxyHandler({})


def serve(directory: Path, *words: str, environ: Mapping[str, str] | None = None) -> tuple[int, dict[str, Any]]:
    """Run `lwr serve`; returns the exit code and what it said."""
    done = subprocess.run(
        [*LWR, *words], cwd=directory, env={**os.environ, **(environ or {})}, timeout=DEADLINE_S,
        stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.stderr == ""
    return done.returncode, json.loads(done.stdout)


def is_alive(url: str, trusted: Path | None = None) -> bool:
    tls = urllib.request.HTTPSHandler(context=ssl.create_default_context(cafile=str(trusted) if trusted else None))
    with urllib.request.build_opener(_DIRECT, tls).open(f"{url}livez", timeout=DEADLINE_S) as answer:
        return bool(answer.status == 200)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """A directory with a server.ini; a server in the background that a test left there is stopped."""
    ini = tmp_path / "server.ini"
    ini.touch(mode=0o600)
    ini.write_text("[server:main]\nhost = 127.0.0.1\nport = 0\n[app:main]\nprivate_key = hunter2-hunter2\n")
    yield tmp_path
    if (tmp_path / "lwr.pid").exists():
        serve(tmp_path, "--stop-daemon")


def test_the_life_of_a_server_in_the_background(place: Path) -> None:
    code, said = serve(place, "--daemon")
    assert code == 0
    assert is_alive(said["url"])
    assert serve(place, "--status") == (0, {"running": True, "pid": said["pid"]})
    assert (place / "lwr.pid").read_text() == f"{said['pid']}\n"
    assert said["log_file"] == str(place / "lwr.log")
    code, again = serve(place, "--daemon")
    assert (code, again["error"]) == (2, "bad-configuration")
    assert str(said["pid"]) in again["message"]
    assert serve(place, "--stop-daemon") == (0, {"stopped": True, "pid": said["pid"]})
    with pytest.raises(OSError, match="refused"):
        is_alive(said["url"])
    assert serve(place, "--stop-daemon") == (3, {"stopped": False})
    assert serve(place, "--status") == (3, {"running": False})
    log = (place / "lwr.log").read_text()
    assert "server ready" in log
    assert "hunter2" not in log


def test_a_server_that_cannot_start_says_why_to_who_started_it(place: Path) -> None:
    (place / "persisted_data").write_text("in the way")
    code, said = serve(place, "--daemon")
    assert code == 2
    assert "persisted_data" in said["message"]
    assert serve(place, "--status")[0] == 3
    code, said = serve(place, "--host", "0.0.0.0", environ={"LWR_CONFIG_PRIVATE_KEY": ""})  # noqa: S104
    assert (code, said["error"]) == (2, "bad-configuration")


def test_it_can_be_stopped_though_its_configuration_has_become_wrong(place: Path) -> None:
    assert serve(place, "--daemon")[0] == 0
    (place / "server.ini").write_text("[app:main]\nprivat_key = x\n")
    assert serve(place, "--stop-daemon")[1]["stopped"] is True


def test_files_can_be_elsewhere_and_https_makes_its_certificate(
    place: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    ini, elsewhere = str(place / "server.ini"), tmp_path_factory.mktemp("elsewhere")
    environ = {"LWR_CONFIG_SSL_PEM": "*", "LWR_CONFIG_LOG_FORMAT": "json", "LWR_CONFIG_HOST": "localhost"}
    files = ("--pid-file", "my.pid", "--log-file", "my.log")
    code, said = serve(elsewhere, ini, "--daemon", *files, environ=environ)
    assert code == 0
    try:
        assert is_alive(said["url"], trusted=place / "host.pem")
        assert sorted(entry.name for entry in elsewhere.iterdir()) == ["my.log", "my.pid"]
        events = [json.loads(line) for line in (elsewhere / "my.log").read_text().splitlines()]
        assert {"event": "server ready", "url": said["url"]}.items() <= events[-1].items()
    finally:
        assert serve(elsewhere, ini, "--stop-daemon", "--pid-file", "my.pid")[0] == 0


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_in_the_foreground_it_says_its_url_and_ends_well(place: Path, how: signal.Signals) -> None:
    (place / "local_env.sh").write_text("export LWR_CONFIG_LOG_LEVEL=warning\n")
    with subprocess.Popen(
        [*LWR, "--pid-file", "fore.pid"], cwd=place, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as server:
        assert server.stdout is not None
        assert server.stderr is not None
        assert is_alive(json.loads(server.stdout.readline())["url"])
        assert serve(place, "--status", "--pid-file", "fore.pid")[1]["pid"] == server.pid
        server.send_signal(how)
        assert server.wait(DEADLINE_S) == 0
        assert server.stderr.read() == ""
    assert not (place / "fore.pid").exists()


def test_jobs_do_not_inherit_the_secret_of_the_server(place: Path) -> None:
    secret = "from-the-environment"
    said = serve(place, "--daemon", environ={"LWR_CONFIG_PRIVATE_KEY": secret, "KEPT": "1"})[1]

    def ask(path: str, method: str = "POST") -> bytes:
        request = urllib.request.Request(said["url"] + path, method=method)  # noqa: S310  http, as we started it
        request.add_header("Authorization", f"Bearer {secret}")
        with urllib.request.build_opener(_DIRECT).open(request, timeout=DEADLINE_S) as answer:
            return bytes(answer.read())

    ask("jobs?job_id=1")
    ask("jobs/1/submit?command_line=env")
    wait_until(lambda: json.loads(ask("jobs/1/status", "GET"))["complete"] == "true", "the job to end")
    output = json.loads(ask("jobs/1/status", "GET"))["stdout"]
    assert "KEPT=1" in output
    assert "LWR_CONFIG" not in output
    assert secret not in output
