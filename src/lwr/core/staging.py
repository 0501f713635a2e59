"""What moves between the two machines for a job, and which side moves it how.

`ACTIONS` is the one table of the file actions that a peer may name (facts: file actions of LWR and Pulsar); a
`FileAction` is one of them with its particulars, a `Step` applies it to one file of the job, and a `StagingPlan`
is all steps of a job, in both directions. Client and server read the same plan and each does its own part; which
action a path gets is decided in `lwr.core.mapper`, which outputs there are in `lwr.core.outputs`.
Must not touch a file or a socket: `lwr.client` and the server hand steps to `lwr.transfer`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any
from urllib.parse import quote, urlencode, urlsplit, urlunsplit

from lwr.errors import BadRequest


class Mover(StrEnum):
    """Who moves the bytes of an action."""

    NOBODY = "nobody"
    CLIENT = "client"
    SERVER = "server"


class Way(StrEnum):
    """How the bytes go."""

    NONE = "none"
    API = "api"  # LWR's own upload and download
    COPY = "copy"  # through a file system that the mover sees both ends of
    URL = "url"  # GET it; POST it back as a form
    TUS = "tus"  # GET it; send it back in resumable pieces
    RSYNC = "rsync"
    SCP = "scp"
    MESSAGE = "message"  # the action holds the text itself
    OBJECT_STORE = "object_store"


@dataclass(frozen=True, slots=True)
class ActionKind:
    """What a word of `ACTIONS` means. `summary` completes "The file ..." for people."""

    mover: Mover
    way: Way
    summary: str

    @property
    def staged(self) -> bool:
        """Whether the file gets a place in the job's directory."""
        return self.mover is not Mover.NOBODY


ACTIONS: dict[str, ActionKind] = {
    "none": ActionKind(Mover.NOBODY, Way.NONE, "is used where it is, by the same path on both machines"),
    "rewrite": ActionKind(Mover.NOBODY, Way.NONE, "is used where it is, by another path on the server"),
    "transfer": ActionKind(Mover.CLIENT, Way.API, "is sent or fetched by the client"),
    "copy": ActionKind(Mover.CLIENT, Way.COPY, "is copied by the client, which sees the server's job directory"),
    "message": ActionKind(Mover.SERVER, Way.MESSAGE, "travels as text inside of the job's description"),
    "remote_transfer": ActionKind(Mover.SERVER, Way.URL, "is fetched or delivered by the server, over HTTP"),
    "remote_transfer_tus": ActionKind(
        Mover.SERVER, Way.TUS, "is fetched by the server over HTTP, and delivered in resumable pieces (tus)"
    ),
    "remote_copy": ActionKind(Mover.SERVER, Way.COPY, "is copied by the server, which sees the client's disk"),
    "remote_rsync_transfer": ActionKind(Mover.SERVER, Way.RSYNC, "is moved by the server with rsync over ssh"),
    "remote_scp_transfer": ActionKind(Mover.SERVER, Way.SCP, "is moved by the server with scp"),
    "remote_object_store_copy": ActionKind(Mover.SERVER, Way.OBJECT_STORE, "comes from Galaxy's object store"),
}


#: JSON can carry halves of characters, which no file can.
_HALF_CHARACTER = re.compile(r"[\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Ssh:
    """How to reach the client's machine by ssh. `key` is a private key's text, which is shown nowhere."""

    user: str = ""
    host: str = ""
    port: int = 22
    key: str = field(default="", repr=False)


@dataclass(frozen=True, slots=True)
class FileAction:
    """How one path of the client's side becomes available on, or returns from, the server's side.

    Args:
        type: a key of `ACTIONS`.
        path: the file on the client's side.
        url: where the server fetches or delivers it, for the actions that have one. It may hold a job's key, so it is
            never shown.
        contents: the text itself, for `message`.
        rewritten: the path that the job uses instead, for `rewrite`.
        ssh: for the actions that go by ssh.
    """

    type: str
    path: str = ""
    url: str = field(default="", repr=False)
    contents: str = field(default="", repr=False)
    rewritten: str = ""
    ssh: Ssh | None = None

    @property
    def kind(self) -> ActionKind:
        return ACTIONS[self.type]

    @property
    def mover(self) -> Mover:
        return ACTIONS[self.type].mover

    @property
    def way(self) -> Way:
        return ACTIONS[self.type].way


@dataclass(frozen=True, slots=True)
class Step:
    """One file to move: `kind` and `name` say where it lives in the job (a key of `wire.FILE_KINDS`).

    Of an output `action.path` is where it goes on the client's side; `required` means that its absence is a failure.
    """

    kind: str
    name: str
    action: FileAction
    required: bool = False


@dataclass(frozen=True, slots=True)
class StagingPlan:
    """All steps of a job: `inputs` before it runs, `outputs` after it (their names may be patterns)."""

    inputs: tuple[Step, ...] = ()
    outputs: tuple[Step, ...] = ()

    def inputs_moved_by(self, mover: Mover) -> Iterator[Step]:
        return (step for step in self.inputs if step.action.mover is mover)

    def outputs_moved_by(self, mover: Mover) -> Iterator[Step]:
        return (step for step in self.outputs if step.action.mover is mover)


def plan_from_wire(remote_staging: Mapping[str, Any]) -> StagingPlan:
    """Read the server's part of a peer's `remote_staging`: `setup`, and `outputs`, which only our own client sends (one
    resolved action for each declared output, as `step_to_wire` writes it).

    Raises:
        BadRequest: not of the documented shape, or an action that nobody knows.
    """
    key = _ssh_key(remote_staging)
    return StagingPlan(
        *(
            tuple(_step_from_wire(entry, name, key) for entry in _entries(remote_staging, name))
            for name in ("setup", "outputs")
        )
    )


def _ssh_key(remote_staging: Mapping[str, Any]) -> str:
    """The one key of all entries: in the mapper, and over a queue beside it as well."""
    mapper = remote_staging.get("action_mapper")
    key = (mapper.get("ssh_key") if isinstance(mapper, dict) else "") or remote_staging.get("ssh_key")
    return key if isinstance(key, str) else ""


def _entries(remote_staging: Mapping[str, Any], name: str) -> list[object]:
    entries = remote_staging.get(name) or []
    if not isinstance(entries, list):
        raise BadRequest(f"`remote_staging.{name}` is not a list.")
    return entries


def _step_from_wire(entry: object, where: str, ssh_key: str) -> Step:
    if not isinstance(entry, dict) or not isinstance(entry.get("action"), dict):
        raise BadRequest(f"An entry of `remote_staging.{where}` is not an object with an `action`.")
    kind, name = entry.get("type"), entry.get("name")
    if not isinstance(kind, str) or not isinstance(name, str):
        raise BadRequest(f"An entry of `remote_staging.{where}` lacks `type` or `name`.")
    return Step(kind, name, action_from_wire(entry["action"], ssh_key, name), required=entry.get("required") is True)


def action_from_wire(action: Mapping[str, Any], ssh_key: str = "", what: str = "") -> FileAction:
    """Read one action object. Raises BadRequest naming `what`; quotes no URL and no contents."""
    action_type = action.get("action_type")
    if not isinstance(action_type, str) or action_type not in ACTIONS:
        raise BadRequest(f"No file action is called {str(action_type)[:60]!r}.", f"Known are: {', '.join(ACTIONS)}.")
    source = action.get("source")
    # Clients before Pulsar 0.14 send `path` alone, later ones the same in `source.path` as well.
    path = action.get("path") or (source.get("path") if isinstance(source, dict) else "") or ""
    texts = (path, action.get("url") or "", action.get("contents") or "")
    if not all(isinstance(value, str) for value in texts):
        raise BadRequest(f"The action for {what[:60]!r} in `remote_staging` holds something else than text.")
    if _HALF_CHARACTER.search("".join(texts)):
        raise BadRequest(f"The action for {what[:60]!r} in `remote_staging` is not Unicode text.")
    ssh = ssh_from_wire(action, Ssh(key=ssh_key)) if ACTIONS[action_type].way in (Way.RSYNC, Way.SCP) else None
    return FileAction(action_type, texts[0], texts[1], texts[2], ssh=ssh)


def ssh_from_wire(value: Mapping[str, Any], default: Ssh) -> Ssh:
    """The `ssh_*` keys of an action, a rule or a mapper, what is missing from `default`. Raises BadRequest."""
    user, host, key = (value.get(f"ssh_{name}") or getattr(default, name) for name in ("user", "host", "key"))
    port = value.get("ssh_port") or default.port
    number = int(port) if isinstance(port, int | str) and str(port).isascii() and str(port).isdigit() else 0
    if not all(isinstance(text, str) for text in (user, host, key)) or not 0 < number < 65536:
        raise BadRequest("`ssh_user`, `ssh_host`, `ssh_port` or `ssh_key` in `remote_staging` cannot be used.")
    return Ssh(user, host, number, key)


def step_to_wire(step: Step) -> dict[str, Any]:
    """The entry of `setup` or `outputs` for a step. An ssh key is not in it: it travels once, beside the entries."""
    action = step.action
    value: dict[str, Any] = {"action_type": action.type}
    if action.type == "message":
        value["contents"] = action.contents
    else:
        value |= {"path": action.path, "source": {"path": action.path}}
    if action.url:
        value["url"] = action.url
    if action.ssh is not None:
        value |= {"ssh_user": action.ssh.user, "ssh_host": action.ssh.host, "ssh_port": action.ssh.port}
    entry: dict[str, Any] = {"name": step.name, "type": step.kind, "action": value}
    return entry | ({"required": True} if step.required else {})


def transfer_url(files_endpoint: str, path: str, kind: str) -> str:
    """Galaxy's URL for one file: the endpoint with its query kept, and `path` and `file_type` percent-encoded."""
    base = files_endpoint.partition("#")[0]
    joint = "&" if "?" in base else "?"
    # Names that are not UTF-8 come from the disk as surrogates, and go out as the bytes that they are.
    added = urlencode({"path": path, "file_type": kind}, quote_via=quote, safe="", errors="surrogateescape")
    return f"{base}{'' if base.endswith(('?', '&')) else joint}{added}"


def redirected(action: FileAction, destination: str, kind: str) -> FileAction:
    """The same action for another destination."""
    if destination == action.path:
        return action
    if not action.url:
        return replace(action, path=destination)
    parts = urlsplit(action.url)
    kept = [pair for pair in parts.query.split("&") if pair.partition("=")[0] not in ("path", "file_type")]
    endpoint = urlunsplit(parts._replace(query="&".join(kept)))
    return replace(action, path=destination, url=transfer_url(endpoint, destination, kind))
