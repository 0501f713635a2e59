"""The command line from outside: help, errors, how light it is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lwr.cli import main, parser

#: What `lwr --help` and the completion of a shell must not wait for.
HEAVY = ("aiohttp", "cryptography", "json", "psutil", "pydantic", "requests", "rich", "structlog", "typing", "yaml")


def lwr(*words: str, cwd: Path, stdout: int = subprocess.PIPE) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", "lwr.cli", *words],
        cwd=cwd, stdout=stdout, stderr=subprocess.PIPE, text=True, check=False,
    )  # fmt: skip


@pytest.mark.parametrize(
    "command", ["serve", "run", "jobs list", "check", "config check", "config show", "actions explain"]
)
def test_help_is_there_for_every_command(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([*command.split(), "--help"])
    assert ended.value.code == 0
    shown = capsys.readouterr().out
    assert shown.startswith(f"usage: lwr {command} ")
    assert "--json" in shown


@pytest.mark.parametrize("words", ["serve --daemon x.ini", "serve x.ini --daemon", "config check --json x.ini"])
def test_the_file_may_stand_anywhere(words: str) -> None:
    assert parser().parse_args(words.split()).ini == "x.ini"


def test_the_parser_imports_nothing_heavy(tmp_path: Path) -> None:
    seen = f"import sys; from lwr.cli import parser; parser(); print(sorted(set({HEAVY}) & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-I", "-c", seen], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


def test_an_error_is_a_sentence_and_a_hint(tmp_path: Path) -> None:
    (tmp_path / "server.ini").write_text("[server:main]\nprot = 1\n")
    done = lwr("config", "check", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == "lwr: prot (server.ini:2) is not an option.\n     Did you mean port?\n"


def test_an_error_in_json_is_an_object_with_its_code(tmp_path: Path) -> None:
    done = lwr("config", "check", "--json", "nowhere.ini", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr == ""
    found = json.loads(done.stdout)
    assert found["error"] == "bad-configuration"
    assert "nowhere.ini" in found["message"]


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    assert "Traceback" in lwr("--debug", "config", "check", "nowhere.ini", cwd=tmp_path).stderr


def test_a_reader_that_goes_away_is_not_an_error_to_talk_about(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    done = lwr("config", "show", cwd=tmp_path, stdout=writer)
    os.close(writer)
    assert done.stderr == ""
    assert done.returncode != 0


@pytest.mark.parametrize("words", [[], ["sreve"], ["serve", "--daemon", "--stop-daemon"], ["serve", "--dae"]])
def test_words_that_are_no_command_are_refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        parser().parse_args(words)
    assert ended.value.code == 2
    assert "usage: lwr" in capsys.readouterr().err


def test_config_show_tells_values_and_origins_but_no_secret(tmp_path: Path) -> None:
    (tmp_path / "server.ini").write_text("[app:main]\nprivate_key = hunter2-hunter2\nuse = x\n")
    (tmp_path / "local_env.sh").write_text("echo noise\nexport LWR_CONFIG_PORT=4711\n")
    plain, document = lwr("config", "show", cwd=tmp_path), lwr("config", "show", "--json", cwd=tmp_path)
    assert "hunter2" not in plain.stdout + document.stdout
    lines = [" ".join(line.split()) for line in plain.stdout.splitlines()]
    assert "port = 4711 (LWR_CONFIG_PORT)" in lines
    assert "private_key = ****** (server.ini:2)" in lines
    assert any(line.startswith("! use (server.ini:3)") for line in lines)
    found = json.loads(document.stdout)
    assert {"section": "server:main", "name": "port", "value": "4711", "origin": "LWR_CONFIG_PORT"} in found["settings"]
    assert len(found["notices"]) == 2


def test_config_check_says_good_and_makes_nothing(tmp_path: Path) -> None:
    (tmp_path / "server.ini").write_text("[server:main]\nssl_pem = *\n")
    done = lwr("config", "check", cwd=tmp_path)
    assert done.returncode == 0
    assert "good. https://localhost:8913/, managers: _default_ (queued_python)." in done.stdout
    assert [entry.name for entry in tmp_path.iterdir()] == ["server.ini"]


def test_config_check_looks_into_the_certificate(tmp_path: Path) -> None:
    (tmp_path / "server.ini").write_text("[server:main]\nssl_pem = my.pem\n")
    (tmp_path / "my.pem").write_text("nonsense")
    done = lwr("config", "check", cwd=tmp_path)
    assert done.returncode == 2
    assert "my.pem cannot be used" in done.stderr


def test_config_check_looks_at_the_brokers_certificates(tmp_path: Path) -> None:
    """And shows no password."""
    ini = tmp_path / "server.ini"
    ini.write_text("[app:main]\nmessage_queue_url = amqps://lwr:s3cret@broker/\namqp_connect_ssl_ca_certs = no.pem\n")
    done = lwr("config", "check", cwd=tmp_path)
    assert done.returncode == 2
    assert f"amqp_connect_ssl_ca_certs cannot be used: {tmp_path / 'no.pem'}" in done.stderr
    assert "s3cret" not in done.stdout + done.stderr
