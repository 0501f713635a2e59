"""The log: one line per event, no secret in it, nothing that a client writes can forge a line."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st

from lwr.errors import ConfigError
from lwr.server.logs import HIDDEN, Console, Redact, configure, printable

SECRET = "correct horse/battery+staple"


@pytest.fixture(autouse=True)
def restored() -> Iterator[None]:
    handlers, level = logging.getLogger().handlers, logging.getLogger().level
    yield
    structlog.reset_defaults()
    logging.getLogger().handlers = handlers
    logging.getLogger().setLevel(level)


def logged(form: str, event: str, level: str = "debug", **facts: object) -> str:
    stream = io.StringIO()
    configure(form, level, stream=stream, secrets=[SECRET])
    structlog.get_logger("lwr").info(event, **facts)
    return stream.getvalue()


def test_console_is_one_line_with_time_level_event_and_facts() -> None:
    line = logged("console", "job submitted", job="second/17", slots=4, reason="disk is full", note="")
    at, rest = line.split(" ", 1)
    assert at.endswith("Z")
    assert rest == "info     job submitted  job=second/17 slots=4 reason='disk is full' note=''\n"


def test_json_is_one_object_a_line() -> None:
    line = logged("json", "job ended", job="17", exit_code=0, path=Path("/x"), files=["a", "b"], more={"a": 1})
    assert line.count("\n") == 1
    found = json.loads(line)
    del found["timestamp"]
    assert found == {
        "event": "job ended", "level": "info", "job": "17", "exit_code": 0, "path": "/x", "files": ["a", "b"],
        "more": {"a": 1},
    }  # fmt: skip


@pytest.mark.parametrize("form", ["console", "json"])
@pytest.mark.parametrize(
    "hostile",
    [
        "1\n2026-11-22T00:00:00Z info     job deleted",
        "1\r\x1b[2J\x1b]0;owned\x07",
        "1\x85\u2028\u2029\x00\x7f\x9b31m",
        "\u202ecba",
        "\ud800",
    ],
)
def test_text_of_clients_forges_no_line_and_steers_no_terminal(form: str, hostile: str) -> None:
    line = logged(form, f"job {hostile}", job=hostile, ids=[hostile], by_name={hostile: hostile})
    assert line.endswith("\n")
    assert line[:-1].isprintable()


@given(st.text())
def test_printable_is_printable_and_leaves_the_rest_alone(text: str) -> None:
    assert printable(text).isprintable()
    if text.isprintable():
        assert printable(text) == text


@pytest.mark.parametrize("form", ["console", "json"])
@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("GET /jobs?job_id=1&private_key=s3cret&x=2", ["job_id=1", "x=2"]),
        ("GET /jobs?private_token=s3cret", []),
        ("POST https://galaxy/api/jobs/1/files?job_key=s3cret&path=/p", ["path=/p"]),
        ("{'job_key': 's3cret', \"PRIVATE_KEY\": \"s3cret\"}", []),
        ("amqp://user:s3cret@broker:5672//", ["broker:5672"]),
        ("Authorization: Bearer s3cret", ["Authorization"]),
        ("authorization=bearer  s3cret", []),
        (f"a header said {SECRET} today", ["a header said", "today"]),
        ("?x=correct%20horse%2Fbattery%2Bstaple", ["?x="]),
        ("?x=correct+horse%2Fbattery%2Bstaple", ["?x="]),
    ],
)
def test_secrets_are_hidden_in_every_place(form: str, text: str, kept: list[str]) -> None:
    for line in (
        logged(form, text),
        logged(form, "x", where=text),
        logged(form, "x", where=[{"a": text}]),
        logged(form, "x", where=ValueError(text)),
    ):
        assert "s3cret" not in line
        assert "horse" not in line
        assert HIDDEN in line
        for word in kept:
            assert word in line


def test_a_value_called_like_a_secret_is_hidden_whatever_it_is() -> None:
    line = logged("json", "x", private_key="abc", query={"job_key": "abc", "job_id": "7"}, Authorization="abc")
    assert "abc" not in line
    assert '"job_id": "7"' in line


def test_secrets_in_tracebacks_are_hidden_and_tracebacks_cannot_forge_lines() -> None:
    for form in ("console", "json"):
        stream = io.StringIO()
        configure(form, "info", stream=stream, secrets=[SECRET])
        try:
            raise ValueError(f"no {SECRET}\n2026 info forged")
        except ValueError:
            structlog.get_logger("lwr").exception("request failed", request_id="r1")
        first, *rest = stream.getvalue().splitlines()
        assert "request failed" in first
        assert "request_id" in first
        assert "horse" not in stream.getvalue()
        assert all(line.startswith("    | ") for line in rest)
        assert bool(rest) == (form == "console")


def test_a_short_secret_does_not_eat_innocent_words() -> None:
    assert Redact(["ob"]).text("job 1, private_key=ob") == f"job 1, private_key={HIDDEN}"
    assert Redact([""]).text("job") == "job"


def test_a_huge_value_is_cut_and_no_half_secret_survives_at_the_cut() -> None:
    text = Redact([SECRET]).text("x" * 15_990 + SECRET + "y" * 10_000_000)
    assert len(text) < 17_000
    assert "correct" not in text


def test_what_is_below_the_level_is_not_written() -> None:
    assert logged("console", "x", level="warning") == ""


def test_libraries_log_into_the_same_lines() -> None:
    stream = io.StringIO()
    configure("json", "info", stream=stream)
    logging.getLogger("aiohttp.server").error("Error %s", "private_key=abcdef\n")
    logging.getLogger("asyncio").debug("too much")
    found = json.loads(stream.getvalue())
    assert (found["logger"], found["level"], found["event"]) == (
        "aiohttp.server",
        "error",
        f"Error private_key={HIDDEN}\n",
    )


def test_the_file_is_appended_to_and_one_that_cannot_be_is_refused(tmp_path: Path) -> None:
    for word in ("first", "sécond \ud800"):
        output = configure("console", "info", str(tmp_path / "lwr.log"))
        structlog.get_logger("lwr").info(word)
        output.close()
        output.close()
        structlog.get_logger("lwr").info("too late")
    lines = (tmp_path / "lwr.log").read_text(encoding="utf-8").splitlines()
    assert [line.split("info     ")[1].strip() for line in lines] == ["first", "sécond \\ud800"]
    with pytest.raises(ConfigError, match="log_file"):
        configure("console", "info", str(tmp_path))


def test_a_full_disk_loses_lines_and_not_the_work() -> None:
    with io.TextIOWrapper(Path("/dev/full").open("wb", buffering=0), write_through=True) as full:
        configure("console", "info", stream=full)
        structlog.get_logger("lwr").info("job submitted")
        structlog.get_logger("lwr").info("x" * 100_000)


def test_levels_are_coloured_for_a_terminal_only() -> None:
    event = {"timestamp": "T", "level": "error", "event": "e"}
    assert Console(colours=True)(None, "error", dict(event)) == "T \x1b[31merror   \x1b[0m e"
    assert Console(colours=False)(None, "error", dict(event)) == "T error    e"
