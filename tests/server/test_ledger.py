"""Receipts in the store: what is kept over a full disk, what is not written over, what is forgotten."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from lwr.core.job import Job, JobKey, JobState
from lwr.core.places import JobLayout
from lwr.core.receipt import FileRecord, FileState
from lwr.server import ledger as rules
from lwr.server.ledger import Ledger
from lwr.server.store import Store


def fetched(name: str = "x") -> FileRecord:
    return FileRecord(False, "output", name, FileState.WHOLE, "client", "transfer", size_bytes=0, tries=1)


def sent(name: str) -> FileRecord:
    return FileRecord(True, "input", name, FileState.WHOLE, "client", "transfer", size_bytes=1, tries=1)


class Bench:
    """One job and its ledger."""

    def __init__(self, directory: Path) -> None:
        self.store = Store(directory)
        self.ledger = Ledger(self.store)
        fresh = Job(0, JobKey("_default_", "7"), "first", JobState.NEW, "/staging/7", created_at=1.0)
        job = self.store.begin(fresh, None)
        assert job is not None
        self.job = job

    def told(self) -> list[FileRecord]:
        return self.ledger.receipt(self.job, JobLayout(self.job.directory))

    def disk_takes_writes(self, takes: bool) -> None:
        """Or SQLite refuses them, in the way in which it does on a full disk."""
        self.store.database._writer.execute(f"PRAGMA query_only={'OFF' if takes else 'ON'}")


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    bench.store.close()


def test_what_was_fetched_while_the_disk_was_full_is_written_down_later(bench: Bench) -> None:
    bench.ledger.fetched(bench.job, fetched())
    bench.disk_takes_writes(False)
    bench.ledger.flush()
    assert bench.told() == []
    bench.disk_takes_writes(True)
    assert [record.state for record in bench.told()] == [FileState.WHOLE]


@pytest.mark.parametrize(
    "known",
    [
        FileRecord(False, "output", "x", FileState.WHOLE, "server", "remote_transfer", peer="https://galaxy/x"),
        FileRecord(False, "output", "x", FileState.EMPTY, "nobody", "none", size_bytes=0),
    ],
    ids=lambda record: str(record.state),
)
def test_a_client_that_looks_at_a_result_changes_nothing_that_is_better_known(bench: Bench, known: FileRecord) -> None:
    bench.ledger.write(bench.job, [known])
    bench.ledger.fetched(bench.job, fetched())
    assert [(record.state, record.mover) for record in bench.told()] == [(known.state, known.mover)]


def test_a_client_may_fetch_what_galaxy_refused(bench: Bench) -> None:
    bench.ledger.write(bench.job, [FileRecord(False, "output", "x", FileState.REFUSED, "server", "remote_transfer")])
    bench.ledger.fetched(bench.job, fetched())
    assert [(record.state, record.mover) for record in bench.told()] == [(FileState.WHOLE, "client")]


def test_it_says_when_enough_was_fetched_and_keeps_no_more_than_that(bench: Bench) -> None:
    said = [bench.ledger.fetched(bench.job, fetched(f"{number}")) for number in range(rules._MOST_FETCHED_COUNT + 5)]
    assert said.index(True) == rules._FETCHED_COUNT - 1
    names = {record.name for record in bench.told()}
    assert len(names) == rules._MOST_FETCHED_COUNT
    assert str(rules._MOST_FETCHED_COUNT + 4) in names


def test_what_arrived_is_forgotten_with_its_attempt(bench: Bench) -> None:
    bench.ledger.arrived(bench.job, sent("a"))
    assert [record.name for record in bench.told()] == ["a"]
    bench.ledger.forget(bench.job)
    bench.ledger.forget(bench.job)
    assert bench.told() == []


def test_more_files_than_are_kept_in_memory_are_in_the_receipt_once_each(bench: Bench) -> None:
    names = [f"{number}" for number in range(rules._ARRIVED_COUNT + 1)]
    for name in names:
        bench.ledger.arrived(bench.job, sent(name))
    bench.ledger.flush()
    assert not bench.ledger._arrived
    bench.ledger.arrived(bench.job, sent("0"))  # again
    assert sorted(record.name for record in bench.told()) == sorted(names)
    bench.ledger.settle(bench.job)
    assert sorted(record.name for record in bench.told()) == sorted(names)
