"""Bookmarks as text, and what counts as the same file."""

from __future__ import annotations

import pytest

from lwr.transfer.answers import retry_after_s
from lwr.transfer.bookmark import Bookmark, bookmark_of_answer, bookmark_of_text

DATE = "Sun, 22 Nov 2026 10:10:52 GMT"


@pytest.mark.parametrize(
    ("headers", "text", "asked"),
    [
        ({"Content-Length": "10", "ETag": '"a b"', "Last-Modified": DATE}, '10 "a b"', {"If-Range": '"a b"'}),
        ({"Content-Length": "10", "ETag": 'W/"weak"', "Last-Modified": DATE}, f"10 {DATE}", {"If-Range": DATE}),
        ({"Content-Length": "10", "Transfer-Encoding": "chunked"}, "-", {}),
        ({"Content-Length": "ten"}, "-", {}),
        ({}, "-", {}),
    ],
)
def test_what_an_answer_says(headers: dict[str, str], text: str, asked: dict[str, str]) -> None:
    made = bookmark_of_answer(headers)
    assert str(made) == text
    assert bookmark_of_text(text) == made
    assert made.request(5) == {"Range": "bytes=5-", **asked}


def test_a_version_is_told_by_a_validator_or_at_least_by_the_size() -> None:
    assert [Bookmark(9, "").tells_versions, Bookmark(None, '"a"').tells_versions] == [True, True]
    assert not Bookmark(None, "").tells_versions


@pytest.mark.parametrize("text", ["", "x", '"a"', "ten x", "-1 x"])
def test_other_texts_are_none(text: str) -> None:
    assert bookmark_of_text(text) is None


@pytest.mark.parametrize(
    ("known", "headers", "whole"),
    [
        (Bookmark(None, ""), {"Content-Range": "bytes */5"}, True),
        (Bookmark(5, '"a"'), {"Content-Range": "bytes */5", "ETag": '"a"'}, True),
        (Bookmark(5, '"a"'), {"Content-Range": "bytes */5", "ETag": '"b"'}, False),
        (Bookmark(7, ""), {"Content-Range": "bytes */5"}, False),
        (Bookmark(None, ""), {"Content-Range": "bytes */4"}, False),
        (Bookmark(None, ""), {"Content-Range": "bytes */*"}, False),
        (Bookmark(None, ""), {}, False),
    ],
)
def test_when_nothing_is_missing(known: Bookmark, headers: dict[str, str], whole: bool) -> None:
    assert known.is_whole(headers, 5) is whole


@pytest.mark.parametrize(
    ("known", "headers", "told"),
    [
        (Bookmark(None, ""), {"Content-Range": "bytes 5-8/9"}, Bookmark(9, "")),
        (Bookmark(9, ""), {"Content-Range": "bytes 5-8/*"}, Bookmark(9, "")),
        (Bookmark(None, ""), {"Content-Range": "bytes 5-8/9", "ETag": '"a"'}, Bookmark(9, '"a"')),
        (Bookmark(9, '"a"'), {"Content-Range": "bytes 5-8/9"}, Bookmark(9, '"a"')),
        (Bookmark(9, '"a"'), {"Content-Range": "bytes 5-8/9", "ETag": '"b"'}, None),
        (Bookmark(9, ""), {"Content-Range": "bytes 5-8/10"}, None),
        (Bookmark(9, ""), {"Content-Range": "bytes 4-8/9"}, None),
        (Bookmark(9, ""), {"Content-Range": "bytes */9"}, None),
        (Bookmark(9, ""), {}, None),
    ],
)
def test_when_a_part_goes_on(known: Bookmark, headers: dict[str, str], told: Bookmark | None) -> None:
    assert known.continued(headers, 5) == told


@pytest.mark.parametrize(
    ("value", "wait_s"),
    [("120", 120), ("0", 0), ("", 0), ("soon", 0), ("-5", 0), ("Thu, 01 Jan 1970 00:02:00 GMT", 20), (DATE[:-4], None)],
)
def test_how_long_to_wait(value: str, wait_s: float | None) -> None:
    told = retry_after_s(value, 100.0)
    assert told == wait_s if wait_s is not None else told > 0
