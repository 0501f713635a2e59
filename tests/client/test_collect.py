"""Which results are fetched, and that no name of the server's leads out of the directory of the results."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lwr.client.collect import written
from lwr.client.plan import JobRequest, plan
from lwr.client.status import RemoteStatus
from lwr.core.outputs import Collection, collect_declared

OUT = Path("/home/me/out")


def collect(
    *, outputs: tuple[str, ...] = (), workdir: tuple[str, ...] = (), there: tuple[str, ...] = (), separator: str = "/"
) -> Collection:
    request = JobRequest("true", outputs=outputs, workdir_outputs=workdir, output_dir=OUT)
    status = RemoteStatus("j", "complete", True, 0, outputs=there, working=there, separator=separator)
    return collect_declared(plan(request).staging.outputs, written(status))


def places(found: Collection) -> dict[str, str]:
    return {step.name: step.action.path for step in found.found}


def test_what_was_declared_and_written_is_fetched() -> None:
    found = collect(outputs=("a.txt", "b.txt"), there=("a.txt", "other.txt"))
    assert places(found) == {"a.txt": "/home/me/out/a.txt"}
    assert [step.name for step in found.missing] == ["b.txt"]


def test_extra_files_come_with_their_output() -> None:
    there = ("r.html", "r_files/a.png", "r.html_files/b/c.png", "rr_files/x", "files/r_files/x")
    found = collect(outputs=("sub/r.html",), there=there)
    assert places(found) == {
        "r.html": "/home/me/out/sub/r.html",
        "r_files/a.png": "/home/me/out/sub/r_files/a.png",
        "r.html_files/b/c.png": "/home/me/out/sub/r.html_files/b/c.png",
    }


def test_patterns_match_files_of_the_working_directory() -> None:
    found = collect(workdir=("plots/**/*.png", "none*.txt"), there=("plots/a.png", "plots/b/c.png", "a.png"))
    assert places(found) == {
        "plots/a.png": "/home/me/out/plots/a.png",
        "plots/b/c.png": "/home/me/out/plots/b/c.png",
    }
    assert [step.name for step in found.missing] == ["none*.txt"]


def test_names_of_a_windows_server() -> None:
    found = collect(outputs=("r.html",), there=("r.html", "r_files\\deep\\a.png"), separator="\\")
    assert places(found)["r_files/deep/a.png"] == "/home/me/out/r_files/deep/a.png"


@pytest.mark.parametrize(
    "name",
    ["r_files/../../../.bashrc", "r_files/../r.html", "r_files/a\0b", "r_files/a\\..\\b", "r_files/" + "x" * 999],
)
def test_a_name_that_leaves_is_refused_and_the_rest_is_fetched(name: str) -> None:
    found = collect(outputs=("r.html",), there=("r.html", name))
    assert places(found) == {"r.html": "/home/me/out/r.html"}
    assert found.refused == (name,)


@given(st.lists(st.text(alphabet="ar./\\\0 _files", max_size=20)))
def test_no_listing_ever_leads_out(names: list[str]) -> None:
    listing = (*names, *(f"r_files/{name}" for name in names))
    for separator in "/\\":
        found = collect(outputs=("r.html",), workdir=("*",), there=listing, separator=separator)
        for target in map(Path, places(found).values()):
            assert OUT in target.parents
            assert ".." not in target.parts
