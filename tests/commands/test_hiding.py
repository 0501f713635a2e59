"""No secret of a message reaches a terminal, however it is wrapped."""

from __future__ import annotations

import json
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lwr.commands.hiding import hidden

SECRET = "S3CRET"


@pytest.mark.parametrize(
    "text",
    [
        '{"url": "http://g/x?access_token=S3CRET&job_key=S3CRET&path=/kept"}',
        '{"access_token": "S3CRET", "client_secret": "S3CRET", "x": "kept"}',
        '{"env": [{"name": "API_TOKEN", "value": "S3CRET"}], "x": "kept"}',
        '{"x": "kept", "remote_staging": {"ssh_key": "-----BEGIN KEY S3CRET',
        '{"x": "kept", "ssh_key": ["S3CRET',
        r'{"x": "{\"job_key\": \"S3CRET\"}", "y": "kept"}',
        r'{"x": "kept {\"job_key\": \"S3CRET',
        '{"u": "http://g/?next=%2Ffiles%3Fjob_key%3DS3CRET%26path=kept"}',
        '{"u": "http://g/?next=%2Ffiles%253Fjob_key%253DS3CRET", "x": "kept"}',
        r'{"u": "http\u003a//g?job\u005fkey=S3CRET", "x": "kept"}',
        r'{"command_line": "kept curl -H \"Authorization: Bearer S3CRET\""}',
        '{"ssh_key": ["S3CRET"], "x": "kept"}',
        r'{"url": "http://g/?job_key=\"S3CRET", "x": "kept"}',
        '{"x": "kept", "env": [{"name": "API_TOKEN", "value": "S3CRET',
        "kept job_key=S3CRET",
        r'{"x": "kept", "token": "a\"S3CRET"',
        r'"{\"x\": \"kept\", \"token\": \"a\\\"S3CRET',
        '{"token": "S3CRET", "token": "", "x": "kept"}',
        "kept amqp://user:S3CRET@host/",
        '[{"x": "kept", "PASSWORD": {"deep": "S3CRET"}}]',
    ],
)
def test_secrets_are_hidden_and_the_rest_is_not(text: str) -> None:
    assert SECRET not in hidden(text)
    assert "kept" in hidden(text)


@pytest.mark.parametrize("text", ['{"a": 1,\n  "b": [null, "x"]}', "no secret = here", "", "[", "{}"])
def test_what_has_no_secret_stays_as_it_is(text: str) -> None:
    assert hidden(text) == text


@given(st.lists(st.sampled_from(["json", "list", "query"]), max_size=3), st.sampled_from(["job_key", "Api-Token"]))
def test_however_it_is_wrapped(wraps: list[str], name: str) -> None:
    value = json.dumps({name: SECRET}) if wraps and wraps[0] == "json" else f"http://g/?{name}={SECRET}"
    for wrap in wraps:
        value = {
            "json": lambda text: json.dumps({"x": text}),
            "list": lambda text: json.dumps([text, 1]),
            "query": lambda text: f"http://g/?next={quote(text, safe='')}",
        }[wrap](value)
    assert SECRET not in hidden(value)


def test_a_body_that_is_nested_too_deeply_is_no_error() -> None:
    assert SECRET not in hidden("[" * 100_000 + '"job_key=S3CRET"')
    assert SECRET not in hidden("[" * 80 + '"S3CRET"' + "]" * 80)
