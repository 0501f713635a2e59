"""What a server that is bound to a message queue must remember: its outbox, and which messages it has handled.

Keeps the tables of `schema-3.sql` in the store's database. The outbox is read in its order by one sender; a row stays
until the broker has it (or, where that was agreed, its reader), so that a server that is killed sends it again, with
the same bytes. Rows about jobs are written by a trigger when their states move. Must not know brokers.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

from lwr.core.job import Job, JobKey
from lwr.server.database import Database

#: The kind of rows that are dead letters.
DEAD_KIND = "dead"
#: How long a kill waits for the set-up that it overtook: both may have waited in the broker, and the set-up for room.
EARLY_KILL_S = 30 * 86400.0
#: How long handled messages are remembered, and those that came back.
HEARD_S = 30 * 86400.0
#: The longest pause before something is sent again that its reader did not answer.
_MOST_PAUSE_S = 3600.0

_COLUMNS = "number, seq, manager, job_id, route, kind, state, body, headers, message_id, tries"


class Where(NamedTuple):
    """What shares the fate of a row that is not taken: the others of its job, or all for that queue (no job)."""

    manager: str
    job_id: str
    route: str
    kind: str

    def of_all(self) -> Where:
        return self._replace(job_id="")


@dataclass(frozen=True, slots=True)
class Posted:
    """A row of the outbox.

    Args:
        seq: the attempt that it tells of; None when it is about no attempt, and then it has its body from the start.
        state: what is told of the attempt.
        body: None until it was made.
    """

    number: int
    seq: int | None
    key: JobKey
    route: str
    kind: str
    state: str
    body: bytes | None
    headers: Mapping[str, str]
    message_id: str
    tries: int


@dataclass(frozen=True, slots=True)
class Answer:
    """What the sender of a message is told of its arrival."""

    key: JobKey
    route: str
    kind: str
    body: bytes


class Mailbox:
    """One per server; methods are thread-safe. What they write is durable where losing it would lose a message."""

    def __init__(self, database: Database) -> None:
        self._database = database

    # -- the outbox ----------------------------------------------------------------------------------------------

    def first(self, now: float, blocked: Collection[Where] = ()) -> Posted | None:
        """The first row that is to be sent now.

        Args:
            blocked: manager, job, route and kind of rows to be passed over; an empty job stands for all.
        """
        rows = self._database.read().execute(
            # Further away than any pause: the clock was set back.
            f"SELECT {_COLUMNS} FROM outbox WHERE due_at <= ? OR due_at > ? ORDER BY number",  # noqa: S608
            (now, now + 2 * _MOST_PAUSE_S),
        )
        for row in rows:
            where = Where(row["manager"], row["job_id"], row["route"], row["kind"])
            if where not in blocked and where.of_all() not in blocked:
                rows.close()
                key = JobKey(row["manager"], row["job_id"])
                headers = json.loads(row["headers"])
                return Posted(row["number"], row["seq"], key, row["route"], row["kind"], row["state"], row["body"],
                              headers, row["message_id"], row["tries"])  # fmt: skip
        return None

    def next_due(self, now: float) -> float | None:
        """When something that is not to be sent now will be."""
        due: float | None = (
            self._database.read()
            .execute("SELECT min(due_at) FROM outbox WHERE due_at > 0 AND due_at > ?", (now,))
            .fetchone()[0]
        )
        return due

    def post(
        self,
        key: JobKey,
        route: str,
        kind: str,
        body: bytes,
        at: float,
        *,
        headers: Mapping[str, str] | None = None,
        message_id: str = "",
    ) -> None:
        """Have something sent that is about no attempt of the store's."""
        row = (*key, route, kind, body, json.dumps(headers or {}), message_id, at)
        self._database.write(partial(_post, row=row))

    def tell(self, job: Job, route: str, at: float) -> None:
        """Have the present state of an attempt told, behind all that was told before."""
        self._database.write(
            lambda connection: connection.execute(
                "INSERT INTO outbox (seq, manager, job_id, route, kind, state, created_at) "
                "SELECT seq, manager, job_id, ?, 'status_update', state, ? FROM jobs WHERE seq = ?",
                (route, at, job.seq),
            )
        )

    def keep(self, posted: Posted, body: bytes, message_id: str, last_word: bytes | None) -> None:
        """Remember what was made for a row: its body, the name by which its reader will answer (empty: it will not),
        and what it says last of its attempt, if that is over."""

        def work(connection: sqlite3.Connection) -> None:
            row = (body, message_id, posted.number)
            connection.execute("UPDATE outbox SET body = ?, message_id = ? WHERE number = ?", row)
            if last_word is not None:
                connection.execute(
                    "INSERT OR IGNORE INTO told SELECT seq, ?, ? FROM jobs WHERE seq = ?",
                    (posted.route, last_word, posted.seq),
                )

        self._database.write(work, durable=False)

    def last_word(self, seq: int, route: str) -> bytes | None:
        """What was told of an attempt that is over."""
        row = (
            self._database.read().execute("SELECT body FROM told WHERE seq = ? AND route = ?", (seq, route)).fetchone()
        )
        return None if row is None else row["body"]

    def sent(self, posted: Posted) -> None:
        """The broker has it: the row goes. (If that is forgotten it is sent again, which harms nobody.)"""
        self._database.write(
            lambda connection: connection.execute("DELETE FROM outbox WHERE number = ?", (posted.number,)),
            durable=False,
        )

    def awaits_answer(self, posted: Posted, now: float, pause_s: float) -> None:
        """The broker has it; unless its reader answers (`answered`) it is sent again, after a growing pause.

        What was told of the attempt before needs no answer any more."""
        pause_s = min(pause_s * 2.0 ** min(posted.tries, 20), _MOST_PAUSE_S)

        def work(connection: sqlite3.Connection) -> None:
            connection.execute(
                "UPDATE outbox SET due_at = ?, tries = tries + 1 WHERE number = ?", (now + pause_s, posted.number)
            )
            connection.execute(
                "DELETE FROM outbox WHERE seq = ? AND route = ? AND number < ? AND due_at > 0",
                (posted.seq, posted.route, posted.number),
            )

        self._database.write(work, durable=False)

    def answered(self, message_id: str) -> None:
        """Its reader has it. Unknown: nothing."""
        self._database.write(
            lambda connection: connection.execute(
                "DELETE FROM outbox WHERE message_id = ? AND due_at > 0", (message_id,)
            ),
            durable=False,
        )

    def waiting(self) -> tuple[int, float | None]:
        """How many rows the broker has not confirmed, and when the oldest was written."""
        row = self._database.read().execute("SELECT count(*), min(created_at) FROM outbox WHERE due_at = 0").fetchone()
        return row[0], row[1]

    # -- what came in --------------------------------------------------------------------------------------------

    def was_heard(self, uuid: str) -> bool:
        """Whether the message that its sender gave this name was handled."""
        return self._database.read().execute("SELECT 1 FROM heard WHERE uuid = ?", (uuid,)).fetchone() is not None

    def hear(self, uuid: str, at: float, answer: Answer | None = None) -> None:
        """A message was handled: remember its name and have its sender told, if it wants to be, at once."""

        def work(connection: sqlite3.Connection) -> None:
            connection.execute("INSERT OR IGNORE INTO heard VALUES (?, ?)", (uuid, at))
            if answer is not None:
                _post(connection, (*answer.key, answer.route, answer.kind, answer.body, "{}", "", at))

        self._database.write(work)

    def kill_early(self, key: JobKey, at: float) -> None:
        """A job is to be ended that did not come yet."""
        self._database.write(
            lambda connection: connection.execute("INSERT OR REPLACE INTO early_kills VALUES (?, ?, ?)", (*key, at))
        )

    def was_killed(self, key: JobKey, now: float) -> bool:
        """Whether a kill waits for this job."""
        row = (
            self._database.read().execute("SELECT at FROM early_kills WHERE manager = ? AND job_id = ?", key).fetchone()
        )
        return row is not None and row["at"] > now - EARLY_KILL_S

    def forget_kill(self, key: JobKey) -> None:
        """The job came, and is being ended."""
        self._database.write(
            lambda connection: connection.execute("DELETE FROM early_kills WHERE manager = ? AND job_id = ?", key)
        )

    def came_back(self, sha256: bytes, at: float) -> int:
        """How often a message of this digest came back unhandled, this time counted."""

        def work(connection: sqlite3.Connection) -> int:
            (row,) = connection.execute(
                "INSERT INTO returned VALUES (?, 1, ?) ON CONFLICT DO UPDATE SET times = times + 1, at = excluded.at "
                "RETURNING times",
                (sha256, at),
            ).fetchall()
            return int(row["times"])

        return self._database.write(work)

    def handled(self, sha256: bytes) -> None:
        """A message that had come back was handled after all."""
        self._database.write(
            lambda connection: connection.execute("DELETE FROM returned WHERE sha256 = ?", (sha256,)), durable=False
        )

    def expire(self, now: float) -> None:
        """Forget what is too old to matter."""

        def work(connection: sqlite3.Connection) -> None:
            connection.execute("DELETE FROM heard WHERE at < ?", (now - HEARD_S,))
            connection.execute("DELETE FROM returned WHERE at < ?", (now - HEARD_S,))
            connection.execute("DELETE FROM early_kills WHERE at < ?", (now - EARLY_KILL_S,))

        self._database.write(work, durable=False)


def _post(connection: sqlite3.Connection, row: tuple[object, ...]) -> None:
    connection.execute(
        "INSERT INTO outbox (manager, job_id, route, kind, body, headers, message_id, created_at) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
        row,
    )
