"""Every error that LWR raises on purpose, in one tree.

    LwrError
    |-- RequestError            the asker's fault; nothing was changed
    |   |-- BadRequest          a parameter, a body or a document that cannot be understood
    |   |-- BadName             a job id or a file name that is not allowed
    |   |-- NotAuthorized       no secret, a wrong one, or two that differ
    |   |-- NotFound            no such job, manager, file or route
    |   |-- Conflict            the job's state does not allow it now
    |   |   `-- StillEnding     an attempt that is to make way has not ended yet (transient)
    |   |-- TooLarge            more bytes than the server takes
    |   `-- DigestMismatch      the bytes that arrived are not those that were announced (transient)
    |-- ServerError             this machine's fault
    |   |-- StoreError          the database: locked by another server, newer than this LWR, damaged
    |   |-- ManagerError        a job could not be handed to what runs it
    |   `-- Unavailable         full disk, shutting down: may pass (transient)
    |-- ConfigError             the admin's fault: an option, a file, a combination
    |-- IllegalMove             a defect of LWR: a state change that the table does not list
    `-- PeerError               the other machine's fault, seen by a client of it
        |-- PeerUnreachable     no connection, or one that broke (transient)
        |-- PeerRefused         an answer that says no; carries its status and code
        `-- BadTransfer         bytes that came back short or changed (transient)

Each error knows whether trying the same again can help (`transient`), has a stable `code` for programs, a
sentence for people and a hint that says what to do. Knows nothing of HTTP: the edge maps classes to statuses.
"""

from __future__ import annotations

from typing import ClassVar


class LwrError(Exception):
    """Base of all; never raised itself.

    Args:
        message: one sentence: what happened, to which job or file, and why. Must hold no secret.
        hint: what to do now; may be empty.
    """

    code: ClassVar[str] = "error"
    transient: bool = False

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} {self.hint}".strip()


class RequestError(LwrError):
    """The asker's fault; nothing was changed."""

    code = "bad-request"


class BadRequest(RequestError):
    """A parameter, a body or a document that cannot be understood."""


class BadName(RequestError):
    """A job id or a file name that is not allowed."""

    code = "bad-name"


class NotAuthorized(RequestError):
    """No secret, a wrong one, or two that differ."""

    code = "not-authorized"


class NotFound(RequestError):
    """No such job, manager, file or route."""

    code = "not-found"


class Conflict(RequestError):
    """The job's state does not allow it now."""

    code = "conflict"


class StillEnding(Conflict):
    """An attempt that is to make way for a fresh one has not ended yet."""

    transient = True


class TooLarge(RequestError):
    """More bytes than the server takes."""

    code = "too-large"


class DigestMismatch(RequestError):
    """The bytes that arrived are not those that were announced."""

    code = "digest-mismatch"
    transient = True


class ServerError(LwrError):
    """This machine's fault."""

    code = "server-error"


class StoreError(ServerError):
    """The database: locked by another server, newer than this LWR, or damaged."""

    code = "store-error"


class ManagerError(ServerError):
    """A job could not be handed to what runs it."""

    code = "manager-error"


class Unavailable(ServerError):
    """Full disk or shutting down: may pass."""

    code = "unavailable"
    transient = True


class ConfigError(LwrError):
    """An option, a configuration file or a combination that cannot work."""

    code = "bad-configuration"


class IllegalMove(LwrError):
    """A defect of LWR: a state change that the table of transitions does not list."""

    code = "illegal-move"


class PeerError(LwrError):
    """The other machine's fault, seen by a client of it."""

    code = "peer-error"


class PeerUnreachable(PeerError):
    """No connection to the peer, or one that broke."""

    code = "peer-unreachable"
    transient = True


class PeerRefused(PeerError):
    """The peer answered no.

    `status` is its HTTP status, `peer_code` its own stable code (empty where it gave none). Whether trying again
    can help depends on the answer: `transient` says it for each; `retry_after_s` is what the peer asked to wait.
    """

    code = "peer-refused"

    def __init__(
        self,
        message: str,
        hint: str = "",
        *,
        status: int = 0,
        peer_code: str = "",
        transient: bool = False,
        retry_after_s: float = 0.0,
    ) -> None:
        super().__init__(message, hint)
        self.status = status
        self.peer_code = peer_code
        self.transient = transient
        self.retry_after_s = retry_after_s


class BadTransfer(PeerError):
    """Bytes that came back short or changed."""

    code = "bad-transfer"
    transient = True
