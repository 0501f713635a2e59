"""What `test_cache` tries as a user whom a read-only file stops. Run with an empty directory; says `done` at the end.

Started by root it becomes nobody, once everything is imported and the databases are there: nobody may perhaps not
read this source.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from tests.server.test_cache import Room

NOBODY = 65534


def rooms(directory: Path) -> tuple[Room, Room]:
    """Of any size, and of ten bytes."""
    small = directory / "small"
    small.mkdir()
    both = Room(directory), Room(small, maximum_bytes=10)
    if os.geteuid() == 0:
        for path in (directory, *directory.rglob("*")):
            os.chown(path, NOBODY, NOBODY)
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
    return both[0].start(), both[1].start()


def may_write(path: Path) -> bool:
    try:
        path.write_bytes(b"CONTENT")
    except PermissionError:
        return False
    return True


def second_names(room: Room) -> None:
    room.bring(b"content")
    one, two = room.give(b"content", "one"), room.give(b"content", "two")
    assert one is not None
    assert two is not None
    assert one.stat().st_ino == room.path(b"content").stat().st_ino, "no second name"
    assert not may_write(one)
    assert room.give(b"content", "two") == two, "over itself"
    one.unlink()
    again = room.give(b"content", "three")
    assert again is not None, "the name of a job that went is no damage"
    assert again.stat().st_ino == two.stat().st_ino
    two.chmod(0o644)
    assert may_write(two)
    assert room.give(b"content", "four") is None, "what a job changed is not given to another"
    assert room.names() == set()
    room.bring(b"content")
    fresh = room.give(b"content", "five")
    assert fresh is not None
    assert fresh.read_bytes() == b"content"


def what_is_in_a_job_stays(small: Room) -> None:
    small.bring(b"in a job")
    given = small.give(b"in a job", "job")
    assert given is not None
    assert small.bring(b"no room") is None
    given.unlink()
    assert small.bring(b"room now") is not None


def main(directory: Path) -> None:
    room, small = rooms(directory)
    second_names(room)
    what_is_in_a_job_stays(small)
    room.close()
    small.close()
    print("done")  # noqa: T201


if __name__ == "__main__":
    main(Path(sys.argv[1]))
