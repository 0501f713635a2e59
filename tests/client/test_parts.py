"""Files that are not whole yet: what stays of them, and what is never seen."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from lwr.client.parts import Addresses, PartFile, discard
from lwr.errors import ServerError

BOOKMARK = '10 "tag"'


def begun(target: Path, *, keep: bool) -> None:
    with PartFile(target) as part:
        part.keep = keep
        part.remember(BOOKMARK)
        part.write(b"half")


def test_a_part_is_gone_on_with(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "target"
    begun(target, keep=True)
    assert not target.exists()
    with PartFile(target) as part:
        assert (part.size_bytes, part.bookmark) == (4, BOOKMARK)
        part.write(b" and half")
        assert part.read(2, 5) == b"lf an"
        part.commit()
    assert target.read_bytes() == b"half and half"
    assert os.listdir(target.parent) == ["target"]


def test_what_cannot_be_gone_on_with_is_not_kept(tmp_path: Path) -> None:
    begun(tmp_path / "target", keep=False)
    with PartFile(tmp_path / "other") as part:
        part.keep = True
        part.write(b"of nobody knows what")
    assert os.listdir(tmp_path) == []


def test_what_somebody_was_killed_over_is_begun_anew(tmp_path: Path) -> None:
    part = PartFile(tmp_path / "target")
    part.write(b"half")
    with PartFile(tmp_path / "target") as again:
        assert again.size_bytes == 0
    part.__exit__(None, None, None)


def test_nobody_goes_on(tmp_path: Path) -> None:
    begun(tmp_path / "target", keep=True)
    assert len(os.listdir(tmp_path)) == 2
    discard(tmp_path / "target")
    discard(tmp_path / "target")
    assert os.listdir(tmp_path) == []


def test_a_place_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ServerError, match="cannot be written"):
        PartFile(tmp_path / "file" / "target")
    discard(tmp_path / "file" / "target")


def test_addresses_are_known_to_a_later_process(tmp_path: Path) -> None:
    directory = tmp_path / "state" / "uploads"
    Addresses(directory).put("word", "jobs/1/files/secret")
    later = Addresses(directory)
    assert later.get("word") == "jobs/1/files/secret"
    assert later.get("other") == ""
    assert directory.stat().st_mode & 0o077 == 0
    later.forget("word")
    assert Addresses(directory).get("word") == ""


def test_addresses_without_a_directory(tmp_path: Path) -> None:
    addresses = Addresses(None)
    addresses.put("word", "there")
    assert addresses.get("word") == "there"
    addresses.forget("word")
    addresses.forget("word")
    assert addresses.get("word") == ""


def test_a_directory_that_cannot_be_written_is_no_error(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    addresses = Addresses(tmp_path / "file")
    addresses.put("word", "there")
    assert addresses.get("word") == "there"
