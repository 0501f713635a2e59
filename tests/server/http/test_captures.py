"""The exchanges of LWR 2014's own clients, recorded against LWR 2014, replayed request by request.

Each request is sent as it was recorded; the answer must have the recorded status, at least the recorded keys with the
recorded values, and the recorded bytes. The tool is our own and writes what the recorded one wrote. A server without a
cache must say so to requests for it, and the files then go up the plain way; one with a cache answers as recorded, but
that it gives tokens of its own.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.recorded import CAPTURES, Exchange, read
from tests.server.http.served import Answer, Served, served
from tests.support import wait_until

SECRET = "open sesame/ü"

TOOL = """\
import os, sys
(config, source, out_1, literal, out_2, words, out_3, extra, version, index, out_4, shared) = sys.argv[1:]
assert open(source).read() == "Hello world input!!@!", source
assert open(extra).read() == "INPUT_EXTRA_CONTENTS", extra
assert [open(index + end).read() for end in ("", ".fai")] == ["AGTC", "AGTC"], index
assert literal == "/foo/bar/x", literal
os.mkdir(out_1.replace(".dat", "_files"))
for path, text in {
    out_1: open(config).read(),
    out_1.replace(".dat", "_files/extra"): "EXTRA_OUTPUT_CONTENTS",
    out_2: words,
    out_3: "moo_" + os.environ.get("MOO", "default"),
    out_4: index,
    version: "1.0.1",
    "env_test": os.environ.get("TEST_ENV", "DEFAULT"),
    "galaxy.json": "GALAXY_JSON",
    "rewrite_action_test": shared,
    "workdir_output": "WORK DIR OUTPUT",
}.items():
    with open(path, "w") as file:
        file.write(text)
"""

CACHE_PATHS = ("/cache", "/cache/status", "/cache_required", "/file_available", "/cache_insert")


def _read(name: str) -> Iterator[Exchange]:
    """With our tool for theirs. Their bodies all end without a line's end."""
    for exchange in read(name):
        if exchange.body is not None:
            exchange.body = TOOL if exchange.body.startswith("<the self test") else exchange.body.rstrip("\n")
        exchange.answer = exchange.answer.rstrip("\n")
        yield exchange


class _Replay:
    """Sends exchanges and compares."""

    def __init__(self, server: Served) -> None:
        self._server = server
        self.compared = 0

    def send(self, exchange: Exchange, query: dict[str, str], body: str | None) -> Answer:
        here = {name: self._here(value) for name, value in query.items()}
        return self._server.ask(
            exchange.method,
            exchange.path,
            None if body is None else body.encode(),
            query={**here, "private_key": SECRET},
        )

    def _here(self, text: str) -> str:
        return text.replace("/STAGING", str(self._server.staging))

    def play(self, exchange: Exchange) -> None:
        query = exchange.query
        answer = self.send(exchange, query, exchange.body)
        assert answer.status == exchange.status, (exchange, answer)
        recorded = self._here(exchange.answer)
        if recorded.startswith("{"):
            self._compare(exchange, json.loads(recorded), answer.json())
        else:
            assert answer.body.decode() == recorded, exchange
        self.compared += 1

    def _compare(self, exchange: Exchange, recorded: dict[str, Any], told: dict[str, Any]) -> None:
        if recorded.get("complete") == "false":
            # How far the job is by now is its own affair; the words and their types are not.
            assert told["complete"] in ("false", "true")
            assert told["status"] in ("preprocessing", "queued", "running", "postprocessing", "complete")
            return
        if recorded.get("complete") == "true":

            def over() -> bool:
                told.update(self.send(exchange, exchange.query, None).json())
                return bool(told["complete"] == "true")

            wait_until(over, "the job to end")
        for key, value in recorded.items():
            assert _unordered(told[key]) == _unordered(value), (key, told)


class _WithoutCache(_Replay):
    """For a server that keeps none: what went through the cache goes up directly."""

    def __init__(self, server: Served) -> None:
        super().__init__(server)
        self._cached: dict[str, str] = {}  # contents by the client's path, and by the token that LWR 2014 gave

    def play(self, exchange: Exchange) -> None:
        if exchange.path in CACHE_PATHS or "cache_token" in exchange.query:
            self.send(exchange, exchange.query, exchange.body).problem(404, "cache-not-configured")
        if exchange.path in CACHE_PATHS:
            self._remember(exchange)
            return
        token = exchange.query.pop("cache_token", None)
        if token is not None:
            exchange.body = self._cached[token]
            exchange.method = "POST"
        super().play(exchange)

    def _remember(self, exchange: Exchange) -> None:
        path = exchange.query["path"]
        if exchange.body is not None:
            self._cached[path] = exchange.body
        elif "token" in exchange.answer:
            token = json.loads(exchange.answer)["token"]
            self._cached[token] = self._cached.get(path, "")


def _inserts_first(exchanges: list[Exchange]) -> list[Exchange]:
    """Two threads of the client were recorded: a status that says `ready` may stand before the insert it tells of."""
    ordered: list[Exchange] = []
    for exchange in exchanges:
        place = len(ordered)
        if exchange.body is not None and exchange.path in CACHE_PATHS:
            told = [each for each in ordered if each.query.get("path") == exchange.query["path"]]
            place = next((ordered.index(each) for each in told if '"ready": true' in each.answer), place)
        ordered.insert(place, exchange)
    return ordered


class _WithCache(_Replay):
    """For a server that keeps one: its tokens stand in for the recorded ones."""

    def __init__(self, server: Served) -> None:
        super().__init__(server)
        self._tokens: dict[str, str] = {}

    def send(self, exchange: Exchange, query: dict[str, str], body: str | None) -> Answer:
        if "cache_token" in query:
            query = {**query, "cache_token": self._tokens[query["cache_token"]]}
        return super().send(exchange, query, body)

    def _compare(self, exchange: Exchange, recorded: dict[str, Any], told: dict[str, Any]) -> None:
        if "token" in recorded:
            theirs, ours = recorded.pop("token"), told["token"]
            assert self._tokens.setdefault(theirs, ours) == ours != theirs
        super()._compare(exchange, recorded, told)


def _unordered(value: object) -> object:
    return sorted(value) if isinstance(value, list) else value


@pytest.mark.parametrize("name", sorted(path.name for path in CAPTURES.glob("lwr2014-*.txt")))
def test_a_recorded_client_is_answered_as_it_was(locked: Served, name: str) -> None:
    exchanges = list(_read(name))
    replay = _WithoutCache(locked)
    for exchange in exchanges:
        replay.play(exchange)
    cached = sum(exchange.path in CACHE_PATHS for exchange in exchanges)
    assert replay.compared == len(exchanges) - cached == 22
    assert list(locked.staging.glob("[!.]*")) == []


@pytest.mark.parametrize("name", sorted(path.name for path in CAPTURES.glob("lwr2014-*-cache.txt")))
def test_a_recorded_client_finds_its_cache(tmp_path: Path, name: str) -> None:
    exchanges = _inserts_first(list(_read(name)))
    with served(tmp_path, secret=SECRET, options=f"file_cache_dir = {tmp_path / 'cache'}") as server:
        replay = _WithCache(server)
        for exchange in exchanges:
            replay.play(exchange)
    assert replay.compared == len(exchanges) > 22
