"""The table of resumable uploads: what each one is to be, and until when it may be gone on with.

Knows the database, not the bytes: how far an upload is says the size of its part. No write is synced, since what came
is not, either, before the submit.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lwr.core.job import Job
from lwr.server.database import Database
from lwr.server.incoming import Wanted


@dataclass(slots=True)
class UploadRow:
    """One upload.

    Args:
        wanted: what the file is to be; its size is known.
        metadata: `Upload-Metadata` as it was sent.
        created_at, expires_at: seconds since the epoch.
        sure_bytes: what lies behind has a checksum that was not compared yet; None: all is sure. The whole size: the
            file was about to get its name.
        sha256: of the file, once it has its name.
    """

    upload_id: str
    job: Job
    wanted: Wanted
    metadata: str
    created_at: float
    expires_at: float
    sure_bytes: int | None = None
    sha256: bytes | None = None

    @property
    def size_bytes(self) -> int:
        return self.wanted.size_bytes or 0


class UploadRows:
    """One per server; methods are thread-safe."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def add(self, row: UploadRow) -> None:
        wanted = row.wanted
        self._write(
            "INSERT INTO uploads (id, seq, kind, name, size_bytes, sha256, metadata, created_at, expires_at) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
            row.upload_id, row.job.seq, wanted.kind, wanted.name, wanted.size_bytes, wanted.sha256, row.metadata,
            row.created_at, row.expires_at,
        )  # fmt: skip

    def find(self, job: Job, upload_id: str, now: float) -> UploadRow | None:
        """An upload of this attempt that has not expired."""
        found = (
            self._database.read()
            .execute("SELECT * FROM uploads WHERE id = ? AND seq = ? AND expires_at > ?", (upload_id, job.seq, now))
            .fetchone()
        )
        if found is None:
            return None
        return UploadRow(
            upload_id=upload_id,
            job=job,
            wanted=Wanted.of(found["kind"], found["name"], found["size_bytes"], found["sha256"]),
            metadata=found["metadata"],
            created_at=found["created_at"],
            expires_at=found["expires_at"],
            sure_bytes=found["sure_bytes"],
            sha256=found["sha256"] if found["whole"] else None,
        )

    def note(self, row: UploadRow) -> None:
        """Write down how much is sure, and when it expires."""
        self._write(
            "UPDATE uploads SET sure_bytes = ?, expires_at = ? WHERE id = ?",
            row.sure_bytes, row.expires_at, row.upload_id,
        )  # fmt: skip

    def whole(self, row: UploadRow) -> None:
        """Write down that the file has its name, and its digest."""
        self._write("UPDATE uploads SET whole = 1, sha256 = ? WHERE id = ?", row.sha256, row.upload_id)

    def remove(self, upload_id: str) -> None:
        """Forget an upload; one that is not there: nothing."""
        self._write("DELETE FROM uploads WHERE id = ?", upload_id)

    def expired(self, before: float) -> list[tuple[str, str]]:
        """(id, job's directory) of what expired before; the directory is empty where no part can be."""
        rows: Sequence[tuple[str, str]] = (
            self._database.read()
            .execute(
                "SELECT id, CASE WHEN state = 'new' AND NOT whole AND NOT superseded AND cleaned_at IS NULL "
                "THEN directory ELSE '' END FROM uploads JOIN jobs USING (seq) WHERE expires_at < ?",
                (before,),
            )
            .fetchall()
        )
        return [(upload_id, directory) for upload_id, directory in rows]

    def _write(self, statement: str, *values: Any) -> None:
        self._database.write(lambda connection: connection.execute(statement, values), durable=False)
