"""The words of the message queue: names of queues in both dialects, and what stands in a message.

Facts: LWR over AMQP, sections 1 and 4; Pulsar's differences, section 4, and A.11. A job is told on the exchange that it
came by: its `Route`. Bodies are JSON objects; unknown keys are ignored. Must not know brokers, connections or jobs'
rows.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from lwr.core.job import DEFAULT_MANAGER, check_job_id
from lwr.core.wire import SetupRequest, Submission, decode, decode_json, texts
from lwr.errors import BadName, BadRequest, TooLarge


class Dialect(StrEnum):
    """Whose names and words. The value is the name of the exchange."""

    LWR = "lwr"
    PULSAR = "pulsar"


class Kind(StrEnum):
    """What a queue is for. The value is the last part of its name."""

    SETUP = "setup"
    KILL = "kill"
    STATUS = "status"  # questions; ours and Pulsar's
    STATUS_UPDATE = "status_update"
    SETUP_ACK = "setup_ack"
    KILL_ACK = "kill_ack"
    STATUS_ACK = "status_ack"
    STATUS_UPDATE_ACK = "status_update_ack"


#: What a server takes messages from, in this order: who killed a job while no server was there wants it never to run.
CONSUMED = (Kind.KILL, Kind.SETUP, Kind.STATUS)
#: The queue on which the receipt of a message of a kind is told, where its sender asks for that.
ACKS = {kind: Kind(f"{kind}_ack") for kind in (*CONSUMED, Kind.STATUS_UPDATE)}


@dataclass(frozen=True, slots=True)
class Address:
    """A queue of a direct exchange; the routing key is the queue's name. All are durable and have no arguments."""

    exchange: str
    queue: str


#: Where messages end that cannot be understood.
DEAD = Address(Dialect.LWR.value, "lwr_dead")

#: The content type of all messages.
JSON = "application/json"

# Not `ack`, which would be the queue on which updates are answered.
_REPLY = re.compile(r"(?!ack$)[A-Za-z0-9_-]{1,80}")
_JOB_ID = re.compile(rb'"job_id"\s*:\s*"([^"\\]{1,128})"')
#: What a message may hold of these: a small one of brackets alone would fill the memory.
_MOST_BRACKETS, _MOST_COMMAS = 300_000, 2_000_000


@dataclass(frozen=True, slots=True)
class Route:
    """How the client of a job is told of it.

    Args:
        reply: a queue of its own, `<status_update>_<reply>`, that a client of ours asks for, so that it takes no
            updates away from others; empty for the one that all share.
    """

    dialect: Dialect
    reply: str = ""

    def __str__(self) -> str:
        return f"{self.dialect}:{self.reply}" if self.reply else str(self.dialect)

    @classmethod
    def parse(cls, text: str) -> Route:
        """Read what `str` made of one."""
        dialect, _, reply = text.partition(":")
        return cls(Dialect(dialect), reply)


def address(dialect: Dialect, manager: str, kind: Kind, *, key_prefix: str = "", reply: str = "") -> Address:
    """The queue of a manager.

    Args:
        key_prefix: `amqp_key_prefix`, which stands for Pulsar's usual prefix, the manager's name in it too.
    """
    prefix = f"{dialect}_" if manager == DEFAULT_MANAGER else f"{dialect}_{manager}_"
    if dialect is Dialect.PULSAR and key_prefix:
        prefix = key_prefix
    return Address(dialect.value, f"{prefix}_{kind}" + (f"_{reply}" if reply else ""))


@dataclass(frozen=True, slots=True)
class Receipted:
    """The sender wants to hear that its message arrived: by `uuid`, on the queue of `ack`."""

    uuid: str
    ack: Kind


@dataclass(frozen=True, slots=True)
class SetupMessage:
    """A job to be run."""

    setup: SetupRequest
    submission: Submission
    reply: str = ""


@dataclass(frozen=True, slots=True)
class KillMessage:
    """A job to be ended."""

    job_id: str


@dataclass(frozen=True, slots=True)
class StatusQuestion:
    """A job whose state is to be told again, on the queue of a client's own if it names one (as `SetupMessage`)."""

    job_id: str
    reply: str = ""


@dataclass(frozen=True, slots=True)
class AckMessage:
    """A message of ours arrived."""

    uuid: str


Message = SetupMessage | KillMessage | StatusQuestion | AckMessage


def open_body(body: bytes, content_type: str) -> dict[str, Any]:
    """The object in a message.

    Raises:
        BadRequest: another content type, not UTF-8, not JSON, or no object. TooLarge: too much of it.
    """
    if content_type.partition(";")[0].strip().lower() != JSON:
        raise BadRequest(f"The message is {content_type[:40]!r}.", "Messages are JSON: `application/json`.")
    if body.count(b"[") + body.count(b"{") > _MOST_BRACKETS or body.count(b",") > _MOST_COMMAS:
        raise TooLarge(
            "The message has more lists and objects than are taken.",
            "Send files by transfer instead of in the message, or split the job.",
        )
    try:
        text = body.decode("utf-8")
    except UnicodeDecodeError as error:
        raise BadRequest("The message is not UTF-8.", "Messages are JSON in UTF-8.") from error
    value = decode_json(text, "message")
    if not isinstance(value, dict):
        raise BadRequest("The message is no JSON object.")
    return value


def glimpse(body: bytes) -> dict[str, Any]:
    """What can be seen of a message without reading it: the job that it names first."""
    found = _JOB_ID.search(body)
    return {"job_id": found[1].decode("latin-1")} if found else {}


def job_named(value: Mapping[str, Any]) -> str | None:
    """The job that a message is about, if it names one that can be: also of a message that is refused."""
    setup = value.get("setup_params")
    named = setup.get("job_id") if isinstance(setup, dict) else None
    job_id = named or value.get("job_id")
    try:
        return check_job_id(job_id) if isinstance(job_id, str) else None
    except BadName:
        return None


def reply_named(value: Mapping[str, Any]) -> str:
    """The queue of its own on which a client wants to be told, if it can be one: also of a message that is refused."""
    reply = value.get("status_reply")
    return reply if isinstance(reply, str) and _REPLY.fullmatch(reply) else ""


def read_message(kind: Kind, value: Mapping[str, Any]) -> Message:
    """What the object in a message on a queue of `kind` says.

    Pulsar's clients up to 0.15.15 send questions to the queue for set-ups.

    Raises:
        BadRequest, BadName: it is none, a part of it is not what it should be, or no job can have that id.
    """
    if kind is Kind.STATUS_UPDATE_ACK:
        return AckMessage(_text(value, "acknowledge_uuid_response"))
    if kind is Kind.KILL:
        return KillMessage(check_job_id(_text(value, "job_id")))
    if kind is Kind.STATUS or value.get("request") == "status":
        return StatusQuestion(check_job_id(_text(value, "job_id")), reply_named(value))
    return _setup(value)


def _setup(value: Mapping[str, Any]) -> SetupMessage:
    carried = value.get("setup_params") or {}
    if not isinstance(carried, dict):
        raise BadRequest("`setup_params` is no object.")
    setup = decode(SetupRequest, {"job_id": _text(value, "job_id"), **carried}, "setup_params")
    check_job_id(setup.job_id)
    reply = value.get("status_reply") or ""
    if not isinstance(reply, str) or (reply and not _REPLY.fullmatch(reply)):
        raise BadRequest("`status_reply` cannot be part of a queue's name.", "It has 1 to 80 of A-Z a-z 0-9 _ -.")
    submission = decode(
        Submission,
        {
            "command_line": value.get("command_line"),
            "params": texts(value.get("submit_params") or {}),
            "env": value.get("env") or [],
            "dependencies": value.get("dependencies_description"),
            "remote_staging": value.get("remote_staging") or {},
            "touch_outputs": value.get("touch_outputs") or [],
            "dynamic_file_sources": value.get("dynamic_file_sources") or [],
            "token_endpoint": value.get("token_endpoint") or "",
        },
        "setup",
    )
    for entry in submission.env:
        entry.item()
    return SetupMessage(setup, submission, reply)


def receipt_wanted(kind: Kind, value: Mapping[str, Any]) -> Receipted | None:
    """Whether and where the sender wants to hear that its message arrived (Pulsar's `amqp_acknowledge`).

    Raises:
        BadRequest: it names another queue than the one for that: nobody has LWR write elsewhere.
    """
    if "acknowledge_uuid" not in value:
        return None
    uuid, queue = _text(value, "acknowledge_uuid"), _text(value, "acknowledge_queue")
    if len(uuid) > 64 or queue != ACKS.get(kind):
        raise BadRequest("`acknowledge_queue` is not the queue for that.", f"It is {kind}_ack.")
    return Receipted(uuid, ACKS[kind])


def update(dialect: Dialect, reply: Mapping[str, Any]) -> dict[str, Any]:
    """The status object of HTTP (`unfinished_reply`, `finished_reply`) in the words of a queue: LWR's readers know no
    `lost`, and expect that `failed` is not `complete`."""
    if dialect is Dialect.LWR and reply["status"] in ("failed", "lost"):
        return {**reply, "status": "failed", "complete": "false"}
    return dict(reply)


def acknowledged(body: Mapping[str, Any], uuid: str) -> dict[str, Any]:
    """An update that its reader is to acknowledge by that name."""
    asked = {"acknowledge_queue": Kind.STATUS_UPDATE_ACK.value, "acknowledge_submit_queue": Kind.STATUS_UPDATE.value}
    return {**body, "acknowledge_uuid": uuid, **asked}


def receipt_body(uuid: str) -> dict[str, Any]:
    """What is told on the queue for that."""
    return {"acknowledge_uuid_response": uuid}


def _text(value: Mapping[str, Any], key: str) -> str:
    text = value.get(key)
    if not isinstance(text, str) or not text:
        raise BadRequest(f"The message has no `{key}`.")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise BadRequest(f"`{key}` is no text.") from error
    return text
