"""Which bytes a request wants."""

from __future__ import annotations

import pytest

from lwr.server.http.ranges import Special, wanted

TAG = '"tag"'
WHOLE = range(100)


@pytest.mark.parametrize(
    ("field", "part"),
    [
        ("bytes=0-9", range(10)),
        ("bytes=90-", range(90, 100)),
        ("bytes=-10", range(90, 100)),
        ("bytes=-1000", WHOLE),
        ("bytes=99-99", range(99, 100)),
        ("bytes=10-1000", range(10, 100)),
        ("Bytes=0-0", range(1)),
        ("bytes=100-", Special.UNSATISFIABLE),
        ("bytes=200-300", Special.UNSATISFIABLE),
        ("bytes=-0", Special.UNSATISFIABLE),
        ("bytes=9-3", WHOLE),
        ("bytes=-", WHOLE),
        ("bytes=a-b", WHOLE),
        ("bytes=0-0,5-9", WHOLE),
        ("bytes=" + "0-," * 1000, WHOLE),
        ("lines=0-9", WHOLE),
        ("bytes=" + "9" * 30 + "-", WHOLE),
        ("", WHOLE),
    ],
)
def test_a_single_range_counts_and_everything_else_means_the_whole_file(field: str, part: range | Special) -> None:
    assert wanted({"Range": field}, TAG, 100) == part


def test_a_range_of_an_empty_file_is_unsatisfiable() -> None:
    assert wanted({"Range": "bytes=0-"}, TAG, 0) is Special.UNSATISFIABLE
    assert wanted({}, TAG, 0) == range(0)


def test_a_range_of_another_version_means_the_whole_file() -> None:
    assert wanted({"Range": "bytes=5-", "If-Range": TAG}, TAG, 100) == range(5, 100)
    assert wanted({"Range": "bytes=5-", "If-Range": '"old"'}, TAG, 100) == WHOLE
    assert wanted({"Range": "bytes=5-", "If-Range": "W/" + TAG}, TAG, 100) == WHOLE


@pytest.mark.parametrize("field", [TAG, "*", f'"old", {TAG}', "W/" + TAG])
def test_what_the_reader_has_is_not_sent(field: str) -> None:
    assert wanted({"If-None-Match": field}, TAG, 100) is Special.NOT_MODIFIED


def test_what_the_reader_has_not_is_sent() -> None:
    assert wanted({"If-None-Match": '"old"'}, TAG, 100) == WHOLE
