"""The SQLite file: one holder, groups of writes, upgrades with a copy, refusal of a newer file."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from lwr.errors import StoreError, Unavailable
from lwr.server.database import MIGRATIONS, Database


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    database = Database(tmp_path / "lwr.sqlite")
    yield database
    database.close()


def count(database: Database, table: str) -> int:
    return int(database.read().execute(f"SELECT count(*) FROM {table}").fetchone()[0])  # noqa: S608


def add_law(state: str) -> str:
    return f"INSERT INTO transitions VALUES ('{state}', 'x')"  # noqa: S608


def test_a_write_that_raises_leaves_nothing_and_does_not_harm_its_group(database: Database) -> None:
    gate = threading.Event()
    results: list[object] = []

    def slow(connection: sqlite3.Connection) -> None:
        gate.wait(30)
        connection.execute(add_law("slow"))

    def failing(connection: sqlite3.Connection) -> None:
        connection.execute(add_law("failing"))
        raise ValueError("no")

    def run(work: object) -> None:
        try:
            database.write(work)  # type: ignore[arg-type]
            results.append("ok")
        except ValueError:
            results.append("failed")

    threads = [
        threading.Thread(target=run, args=(work,))
        for work in (slow, failing, lambda c: c.execute(add_law("good")), failing)
    ]
    for thread in threads:
        thread.start()
    gate.set()
    for thread in threads:
        thread.join()
    assert sorted(map(str, results)) == ["failed", "failed", "ok", "ok"]
    states = {row["state"] for row in database.read().execute("SELECT state FROM transitions")}
    assert states == {"slow", "good"}


def test_many_threads_share_commits_and_lose_nothing(database: Database) -> None:
    def work(number: int) -> None:
        for step in range(20):
            database.write(lambda connection, name=f"{number}-{step}": connection.execute(add_law(name)))  # type: ignore[misc]

    threads = [threading.Thread(target=work, args=(number,)) for number in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert count(database, "transitions") == 320


def test_a_second_server_on_the_same_directory_is_refused(database: Database, tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from lwr.server.database import Database\n"
        "from lwr.errors import StoreError\n"
        "try:\n    Database(Path(sys.argv[1]))\n"
        "except StoreError as error:\n    print(error); sys.exit(3)"
    )
    answer = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "lwr.sqlite")], capture_output=True, text=True, check=False
    )
    assert answer.returncode == 3, answer.stderr
    assert "Another LWR server (process " in answer.stdout
    assert "persistence_directory" in answer.stdout


def test_the_lock_ends_with_its_holder(tmp_path: Path) -> None:
    Database(tmp_path / "lwr.sqlite").close()
    again = Database(tmp_path / "lwr.sqlite")
    again.close()
    again.close()  # twice is harmless


def test_a_file_of_a_newer_lwr_is_refused_and_untouched(tmp_path: Path) -> None:
    path = tmp_path / "lwr.sqlite"
    Database(path).close()
    with sqlite3.connect(path) as newer:
        newer.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 2}")
    newer.close()
    before = path.read_bytes()
    with pytest.raises(StoreError, match="written by a newer LWR"):
        Database(path)
    assert path.read_bytes() == before


def test_an_upgrade_keeps_the_data_and_leaves_a_copy_of_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "lwr.sqlite"
    old = Database(path)
    old.write(lambda connection: connection.execute(add_law("kept")))
    old.close()
    later = (*MIGRATIONS, "CREATE TABLE novelty (n INTEGER); INSERT INTO novelty VALUES (7);")
    upgraded = Database(path, migrations=later)
    assert upgraded.read().execute("SELECT n FROM novelty").fetchone()[0] == 7
    assert count(upgraded, "transitions") == 1
    upgraded.close()
    backup = sqlite3.connect(tmp_path / f"lwr.sqlite.schema-{len(later)}.bak")
    assert backup.execute("SELECT count(*) FROM transitions").fetchone()[0] == 1
    assert backup.execute("PRAGMA user_version").fetchone()[0] == len(later)
    backup.close()


def test_an_upgrade_that_fails_changes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "lwr.sqlite"
    Database(path).close()
    with pytest.raises(Unavailable):
        Database(path, migrations=(*MIGRATIONS, "CREATE TABLE half (n); CREATE TABLE jobs (n);"))
    again = Database(path)
    tables = {row["name"] for row in again.read().execute("SELECT name FROM sqlite_master")}
    again.close()
    assert "half" not in tables


def test_a_file_that_is_no_database_says_so(tmp_path: Path) -> None:
    path = tmp_path / "lwr.sqlite"
    path.write_bytes(b"not a database at all, sorry. " * 100)
    with pytest.raises(StoreError, match="damaged"):
        Database(path)


def test_a_commit_is_synced(database: Database) -> None:
    pragmas = {
        name: database.read().execute(f"PRAGMA {name}").fetchone()[0] for name in ("synchronous", "journal_mode")
    }
    assert pragmas == {"synchronous": 2, "journal_mode": "wal"}
