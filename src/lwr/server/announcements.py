"""What the older cache routes know: which content a client means by a path of its own.

Those clients ask whether a path must be sent (`required`), send it (`brought`), ask whether it is there (`status`) and
name its token when a job needs it (`content`). A token stands for the client's address and the path, and is good for
nothing else; nobody without this server's key can compute one, and it is only ever looked up.

Such a client says nothing of the file's time or bytes, so what it changed under the same path goes unnoticed. That is
bounded: a path means its content for `MEANING_S`; then it is sent again.
"""

from __future__ import annotations

import hmac
import time
from collections.abc import Callable

from lwr.errors import NotFound
from lwr.server.cache import Cache
from lwr.server.database import Database

#: How long a path means the content that was brought for it.
MEANING_S = 3600.0
#: How long others wait for the one who announced a file, before the next who asks sends it.
ANNOUNCED_S = 600.0
#: Clients that wait for what never came are told so at least this long; then the row goes.
_FORGET_S = 86400.0


class Announcements:
    """One per server. Methods block, and may be called from any thread.

    Args:
        clock: seconds since the epoch.
    """

    def __init__(self, cache: Cache, database: Database, *, clock: Callable[[], float] = time.time) -> None:
        self._cache = cache
        self._database = database
        self._clock = clock

    def required(self, address: str, path: str) -> bool:
        """Whether this caller must send the file now. Of several who ask, one is told so until it gives up."""
        token, now = self._token(address, path), self._clock()
        known = self._row(token)
        sha256 = known[0] if known else None
        if known and sha256 and known[1] > now and self._cache.holds(sha256):
            return False
        # In one statement: of several who saw the same, one writes a row.
        written = self._database.write(
            lambda connection: (
                connection.execute(
                    "INSERT INTO announced (token, address, expires_at) VALUES (?, ?, ?) "
                    "ON CONFLICT DO UPDATE SET sha256 = NULL, expires_at = excluded.expires_at "
                    "WHERE expires_at <= ? OR sha256 = ?",
                    (token, address, now + ANNOUNCED_S, now, sha256),
                ).rowcount
            ),
            durable=False,
        )
        self._database.write(
            lambda connection: connection.execute("DELETE FROM announced WHERE expires_at < ?", (now - _FORGET_S,)),
            durable=False,
        )
        return written == 1

    def brought(self, address: str, path: str, sha256: bytes) -> None:
        """The path means this content from now on; announced or not, and whatever it meant before."""
        values = (self._token(address, path), address, sha256, self._clock() + MEANING_S)
        self._database.write(
            lambda connection: connection.execute(
                "INSERT OR REPLACE INTO announced (token, address, sha256, expires_at) VALUES (?, ?, ?, ?)", values
            ),
            durable=False,
        )

    def status(self, address: str, path: str) -> tuple[str, bool]:
        """The token for a path, and whether its content is there.

        Raises:
            NotFound: it will not come: it was announced too long ago, or was thrown out. Who waits for it would wait
                for ever.
        """
        token = self._token(address, path)
        known = self._row(token)
        if known is None:
            return token, False
        sha256, expires_at = known
        # A little late is fine: who asks here was told before that the path need not be sent.
        if sha256 is not None and self._cache.holds(sha256):
            return token, True
        if sha256 is None and expires_at > self._clock():
            return token, False
        raise NotFound("Nobody sent the file that this cache waits for, or it is gone again.", "Send the job again.")

    def content(self, address: str, token: str) -> bytes | None:
        """The SHA-256 of the content that a token of this address is for; None for any other token."""
        row = (
            self._database.read()
            .execute("SELECT sha256 FROM announced WHERE token = ? AND address = ?", (token, address))
            .fetchone()
        )
        return None if row is None else row["sha256"]

    def _token(self, address: str, path: str) -> str:
        return hmac.new(self._cache.secret("tokens"), f"{address}\n{path}".encode(), "sha256").hexdigest()

    def _row(self, token: str) -> tuple[bytes | None, float] | None:
        row = (
            self._database.read()
            .execute("SELECT sha256, expires_at FROM announced WHERE token = ?", (token,))
            .fetchone()
        )
        return None if row is None else (row["sha256"], row["expires_at"])
