"""Pulsar's mapper, unmodified, and ours: the same rules must give the same actions on both sides of the wire."""

from __future__ import annotations

import json
import os
import random
import subprocess
from pathlib import Path
from typing import Any

import pytest

from lwr.core.mapper import ALL_KINDS, Mapper, Match, Rule, mapper_from_wire

pytestmark = pytest.mark.peer

ROOT = Path(__file__).parents[2]
DRIVER = Path(__file__).with_name("drive_mapper.py")
ENDPOINT = "https://galaxy/api/jobs/1/files?job_key=k"
COUNT = 300

ACTIONS = ("none", "transfer", "copy", "remote_copy", "remote_transfer", "remote_transfer_tus")
PATTERNS = {
    "prefix": ("/a", "/a/b", "/ab", "/", "/a/b.d"),
    "glob": ("/a/**/*.fa", "*.fa", "/a?[bc]", "/**/b/*", "/[!a]*"),
    "regex": (r"/a/\d+", r".*\.fa$", "/(a|ab)/"),
}
KINDS = ("*any*", "*defaults*", "unstructured", "input,output", "input, output", "output_workdir,container")
NAMES = ("a", "ab", "b", "c.fa", "12", "b.d", "ac")


@pytest.fixture(params=["pulsar-app-0.16.0", "pulsar-galaxy-lib-0.15.15"])
def python(request: pytest.FixtureRequest) -> Path:
    """A peer's Python."""
    found = ROOT / ".venv-peers" / str(request.param) / "bin" / "python"
    if not found.exists():
        why = f"{request.param} is not installed: `make peers` does it"
        if os.environ.get("CI"):
            pytest.fail(why)
        pytest.skip(why)
    return found


def decided(python: Path, cases: list[tuple[dict[str, Any], str, str]]) -> list[list[str | None]]:
    done = subprocess.run([python, DRIVER], input=json.dumps(cases), capture_output=True, text=True, check=True)
    answer: list[list[str | None]] = json.loads(done.stdout)
    return answer


def some_path(dice: random.Random) -> str:
    return "/" + "/".join(dice.choices(NAMES, k=dice.randint(1, 3)))


def test_a_peers_rules_mean_here_what_they_mean_there(python: Path) -> None:
    dice = random.Random(1)  # noqa: S311  (the same cases each time)
    cases = []
    for _ in range(COUNT):
        paths: list[dict[str, Any]] = []
        for match in dice.choices([*PATTERNS, ""], k=dice.randint(0, 4)):
            rule: dict[str, Any] = {"action": dice.choice(ACTIONS), "path_types": dice.choice(KINDS), "depth": "1"}
            paths.append(rule | ({"match_type": match, "path": dice.choice(PATTERNS[match])} if match else {}))
        mapper = {"default_action": dice.choice(ACTIONS), "files_endpoint": ENDPOINT, "paths": paths}
        cases.append((mapper, some_path(dice), dice.choice(ALL_KINDS)))
    ours = [mapper_from_wire(mapper).action(path, kind) for mapper, path, kind in cases]
    assert [[action.type, action.url or None] for action in ours] == decided(python, cases)


def test_our_rules_mean_there_what_they_mean_here(python: Path) -> None:
    dice = random.Random(2)  # noqa: S311
    ours, cases = [], []
    for _ in range(COUNT):
        rules = tuple(
            Rule(dice.choice(ACTIONS), dice.choice(PATTERNS[match]), Match(match), frozenset(dice.sample(ALL_KINDS, 4)))
            for match in dice.choices(list(PATTERNS), k=3)
        )
        mapper = Mapper(rules, dice.choice(ACTIONS), ENDPOINT)
        path, kind = some_path(dice), dice.choice(ALL_KINDS)
        ours.append(mapper.action(path, kind).type)
        cases.append((mapper.to_wire(), path, kind))
    assert ours == [action for action, _ in decided(python, cases)]
