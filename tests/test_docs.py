"""The documentation's own tools, and what its hand-written pages must name."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from types import ModuleType

from lwr.core.job import TRANSITIONS, JobState

DOCS = Path(__file__).parents[1] / "docs"


def program(name: str) -> ModuleType:
    """A program of docs/, which is no package: what it imports from beside it is found as when it is run."""
    if str(DOCS) not in sys.path:
        sys.path.append(str(DOCS))
    spec = importlib.util.spec_from_file_location(name, DOCS / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_generated_files_are_up_to_date() -> None:
    assert program("generate").main(["--check"]) == 0


def test_nothing_dangles() -> None:
    assert program("check_links").main() == 0


def test_a_dangling_pointer_is_found(tmp_path: Path) -> None:
    (tmp_path / "other.md").write_text("# A heading, with `code`\n")
    page = tmp_path / "page.md"
    page.write_text(
        "[good](other.md#a-heading-with-code) [gone](gone.md) [no heading](other.md#nothing) [site](https://example.org)\n"
        "`src/lwr/errors.py` `src/lwr/gone.py` `make test` `make gone`\n\n```\n[in a block](gone.md)\n```\n"
    )
    found = list(program("check_links").dangling(page, {"test"}))
    assert [sentence.split(" ")[0].rstrip(":") for sentence in found] == [
        "gone.md",
        "other.md#nothing",
        "`src/lwr/gone.py`",
        "`make",
    ]


def test_every_state_is_explained() -> None:
    explained = set(re.findall(r"^\| `(\w+)` \| \S", (DOCS / "states.md").read_text(), re.MULTILINE))
    assert explained == {state.value for state in JobState}


def test_the_picture_has_every_way() -> None:
    """A line or an arc for each move along the chain, a dot for each way to another end."""
    svg = program("generate").states_svg()
    ends = {JobState.FAILED, JobState.CANCELLED, JobState.LOST}
    moves = [to for onward in TRANSITIONS.values() for to in onward]
    assert svg.count("<circle ") == sum(to in ends for to in moves)
    assert svg.count('<path class="way"') == sum(to not in ends for to in moves) + len(ends)


def test_every_promise_has_its_row() -> None:
    rows = re.findall(r"^\| P(\d+) \|", (DOCS / "promises.md").read_text(), re.MULTILINE)
    assert [int(number) for number in rows] == list(range(1, 20))
