"""Uploads in pieces without HTTP: a model of them, servers killed at bad moments, and a clock of the test's."""

from __future__ import annotations

import hashlib
import itertools
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lwr.core.job import Job, JobKey, JobState
from lwr.core.places import PART_PREFIX, SETUP_AREAS
from lwr.core.receipt import FileRecord
from lwr.errors import Conflict, DigestMismatch, NotFound
from lwr.server.incoming import Wanted
from lwr.server.ledger import Ledger
from lwr.server.store import Store
from lwr.server.tus import LIFETIME_S, MARGIN_S, Appending, Checksum, ResumableUploads
from lwr.server.view import ManagerEntry, View
from lwr.testing import StagedManager

KEY = JobKey("_default_", "7")
DATA = bytes(range(251)) * 40


def sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


class Bench:
    """One job, its uploads, and the means to kill what keeps them."""

    def __init__(self, directory: Path) -> None:
        self.now = 1_000_000.0
        self.store = Store(directory / "state")
        self.root = directory / "staging" / KEY.job_id
        managers = {"_default_": ManagerEntry(StagedManager(), str(directory / "staging"))}
        self.view = View(self.store, managers, Ledger(self.store))
        self.arrived: list[FileRecord] = []
        self.job = self.set_up(None)
        self.start()

    def set_up(self, replaces: Job | None) -> Job:
        attempt = f"attempt-{0 if replaces is None else 1}"
        fresh = Job(0, KEY, attempt, JobState.NEW, str(self.root), created_at=self.now)
        job = self.store.begin(fresh, replaces)
        assert job is not None
        self.view.files(job).make(SETUP_AREAS)
        return job

    def start(self) -> None:
        """Forget what is in memory, as a server that was killed does."""
        self.uploads = ResumableUploads(
            self.store.database, self.view, lambda job, record: self.arrived.append(record), lambda: self.now
        )

    def begin(self, data: bytes = DATA, *, announced: bool = False) -> str:
        wanted = Wanted.of("input", "x", len(data), sha256(data) if announced else None)
        return self.uploads.create(KEY, wanted, "").upload_id

    def append(self, upload_id: str, offset: int, data: bytes, checksum: bytes | None = None) -> Appending:
        """One request up to the end of its body; the caller ends and closes it."""
        wanted = None if checksum is None else Checksum(hashlib.sha256(), checksum)
        appending = self.uploads.begin(KEY, upload_id, offset, wanted)
        appending.put([data[:7], data[7:]])
        return appending

    def offset(self, upload_id: str) -> int:
        return self.uploads.look(KEY, upload_id).offset_bytes

    def file(self) -> bytes | None:
        place = self.root / "inputs/x"
        return place.read_bytes() if place.exists() else None

    def parts(self) -> list[Path]:
        return list(self.root.glob(f"{PART_PREFIX}*"))


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    bench.store.close()


# -- any order of events -----------------------------------------------------------------------------------------------

EVENTS = st.tuples(
    st.sampled_from(["whole", "cut", "sure", "unsure cut", "changed", "elsewhere", "killed", "looked"]),
    st.integers(1, 4000),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(EVENTS, max_size=12))
def test_whatever_happens_the_offset_is_true_and_the_file_whole(events: list[tuple[str, int]]) -> None:
    with tempfile.TemporaryDirectory() as directory:
        bench = Bench(Path(directory))
        try:
            _play(bench, events)
        finally:
            bench.store.close()


def _play(bench: Bench, events: list[tuple[str, int]]) -> None:
    upload_id, offset = bench.begin(announced=True), 0
    for what, size in [*events, ("whole", len(DATA))]:
        piece = DATA[offset : offset + size]
        if not piece:
            break
        if what == "killed":
            bench.start()
        elif what == "elsewhere":
            with pytest.raises(Conflict):
                bench.uploads.begin(KEY, upload_id, offset + size, None)
        elif what == "looked":
            assert bench.offset(upload_id) == offset
        elif what == "changed":
            with bench.append(upload_id, offset, piece, sha256(b"other")) as appending, pytest.raises(DigestMismatch):
                appending.end()
        elif what == "unsure cut":
            bench.append(upload_id, offset, piece, sha256(DATA)).close()
        else:
            with bench.append(upload_id, offset, piece, sha256(piece) if what == "sure" else None) as appending:
                offset += len(piece)
                if what != "cut" or offset == len(DATA):
                    assert appending.end().offset_bytes == offset
        assert (bench.file() is None) is (offset < len(DATA))
    assert bench.file() == DATA
    assert (bench.offset(upload_id), bench.parts()) == (len(DATA), [])
    (record,) = bench.arrived
    assert (record.size_bytes, record.sha256, record.checked) == (len(DATA), sha256(DATA), "sha-256")


# -- servers that are killed -------------------------------------------------------------------------------------------


def test_what_was_not_compared_when_the_server_was_killed_does_not_count(bench: Bench) -> None:
    upload_id = bench.begin()
    with bench.append(upload_id, 0, DATA[:100], sha256(DATA[:100])) as sure:
        sure.end()
    left = bench.append(upload_id, 100, b"flipped", sha256(DATA[100:]))  # it never ends
    bench.start()
    assert bench.offset(upload_id) == 100
    with bench.append(upload_id, 100, DATA[100:]) as rest:
        rest.end()
    assert bench.file() == DATA
    left.close()


def test_what_has_no_checksum_counts_though_the_server_was_killed(bench: Bench) -> None:
    upload_id = bench.begin()
    unsure = bench.append(upload_id, 0, DATA[:100], sha256(DATA))
    bench.start()
    plain = bench.append(upload_id, 0, DATA[:300])
    bench.start()
    assert bench.offset(upload_id) == 300
    for left in (unsure, plain):
        left.close()


def test_a_file_whose_server_was_killed_right_behind_its_last_byte(bench: Bench) -> None:
    upload_id = bench.begin(announced=True)
    left = bench.append(upload_id, 0, DATA)
    bench.start()
    standing = bench.uploads.look(KEY, upload_id)
    assert (standing.offset_bytes, standing.sha256, bench.file()) == (len(DATA), sha256(DATA), DATA)
    left.close()


def test_a_file_of_that_kind_that_is_not_what_was_announced(bench: Bench) -> None:
    upload_id = bench.begin(announced=True)
    left = bench.append(upload_id, 0, DATA[::-1])
    bench.start()
    standing = bench.uploads.look(KEY, upload_id)
    assert (standing.offset_bytes, standing.sha256, bench.file()) == (0, None, None)
    left.close()


def test_a_part_that_has_gone_is_begun_anew(bench: Bench) -> None:
    """As after a submit that removed it and then failed."""
    upload_id = bench.begin(announced=True)
    bench.append(upload_id, 0, DATA[:5000]).close()
    bench.view.files(bench.job).settle()
    assert bench.offset(upload_id) == 0
    with bench.append(upload_id, 0, DATA) as whole:
        whole.end()
    assert bench.file() == DATA


def interrupted(bench: Bench, data: bytes = DATA, *, announced: bool = False) -> str:
    """An upload whose file got its name from a server that was killed before it wrote that down."""
    upload_id = bench.begin(data, announced=announced)
    with bench.append(upload_id, 0, data) as whole:
        whole.end()
    bench.store.database.write(
        lambda connection: connection.execute(
            "UPDATE uploads SET whole = 0, sha256 = ? WHERE id = ?",
            (sha256(data) if announced else None, upload_id),
        )
    )
    bench.arrived.clear()
    bench.start()
    return upload_id


@pytest.mark.parametrize("announced", [True, False])
def test_a_file_whose_server_was_killed_when_it_had_just_got_its_name(bench: Bench, announced: bool) -> None:
    upload_id = interrupted(bench, announced=announced)
    for _ in range(2):
        standing = bench.uploads.look(KEY, upload_id)
        assert (standing.offset_bytes, standing.sha256, bench.file()) == (len(DATA), sha256(DATA), DATA)
    assert [(record.name, record.checked) for record in bench.arrived] == [("x", "sha-256" if announced else "size")]
    assert bench.parts() == []


@pytest.mark.parametrize("other", [DATA[::-1], DATA[1:]])
def test_another_file_of_that_name_is_not_taken_for_it(bench: Bench, other: bytes) -> None:
    upload_id = interrupted(bench, announced=True)
    (bench.root / "inputs/x").write_bytes(other)
    assert bench.offset(upload_id) == 0


def test_nor_is_an_earlier_one_of_its_name_and_size(bench: Bench) -> None:
    (bench.root / "inputs/x").write_bytes(DATA[::-1])
    upload_id = bench.begin()
    bench.append(upload_id, 0, DATA[:5000]).close()
    bench.view.files(bench.job).settle()
    bench.start()
    assert bench.offset(upload_id) == 0


# -- how long an upload lives ------------------------------------------------------------------------------------------


def test_an_upload_expires_a_day_after_its_last_byte(bench: Bench) -> None:
    upload_id = bench.begin()
    bench.now += LIFETIME_S - 1
    bench.append(upload_id, 0, DATA[:100]).close()
    bench.now += LIFETIME_S - 1
    assert bench.offset(upload_id) == 100
    bench.now += LIFETIME_S + 1
    for refused in (lambda: bench.offset(upload_id), lambda: bench.uploads.terminate(KEY, upload_id)):
        with pytest.raises(NotFound, match="expired"):
            refused()
    with pytest.raises(NotFound, match="expired"):
        bench.uploads.begin(KEY, upload_id, 100, None)


def test_what_expired_is_removed_unless_it_is_written_to(bench: Bench) -> None:
    whole, idle, busy, young = (bench.begin() for _ in range(4))
    with bench.append(whole, 0, DATA) as all_of_it:
        all_of_it.end()
    bench.append(idle, 0, DATA[:100]).close()
    writing = bench.append(busy, 0, DATA[:100])
    bench.now += LIFETIME_S + MARGIN_S + 1
    young = bench.begin()
    bench.append(young, 0, b"y").close()
    for _ in range(2):
        bench.uploads.expire(bench.now)
        left = sorted(path.name for path in bench.parts())
        assert left == sorted([PART_PREFIX + busy, PART_PREFIX + young])
    writing.put([DATA[100:]])
    assert writing.end().offset_bytes == len(DATA)
    writing.close()
    assert bench.file() == DATA
    rows = bench.store.database.read().execute("SELECT id FROM uploads").fetchall()
    assert {row["id"] for row in rows} == {busy, young}


def test_small_pieces_are_not_written_down_one_by_one(bench: Bench) -> None:
    upload_id = bench.begin()
    changes = bench.store.database.read().execute("PRAGMA data_version").fetchone()[0]
    for offset in range(0, 50, 5):
        bench.now += 60
        with bench.append(upload_id, offset, DATA[offset : offset + 5]) as piece:
            piece.end()
    assert bench.store.database.read().execute("PRAGMA data_version").fetchone()[0] == changes
    bench.now += 3600
    bench.append(upload_id, 50, DATA[50:55]).close()
    assert bench.store.database.read().execute("PRAGMA data_version").fetchone()[0] != changes


def test_an_upload_belongs_to_one_attempt(bench: Bench) -> None:
    upload_id = bench.begin()
    bench.append(upload_id, 0, DATA[:100]).close()
    bench.set_up(bench.job)
    with pytest.raises(NotFound):
        bench.offset(upload_id)


def test_more_uploads_than_are_remembered(bench: Bench) -> None:
    """Their hashes are counted again from the disk."""
    begun = [bench.begin(announced=True) for _ in range(1100)]
    for upload_id in begun:
        bench.append(upload_id, 0, DATA[:10]).close()
    for upload_id in itertools.chain(begun[:2], begun[-2:]):
        with bench.append(upload_id, 10, DATA[10:]) as rest:
            rest.end()
    assert [record.tries for record in bench.arrived] == [2, 2, 2, 2]
