"""What moves between the two machines for a job, and which side moves it.

`ACTIONS` is the one table of the file actions that a peer may name (facts: file actions of LWR and Pulsar); a
`FileAction` is one of them with its particulars, a `Step` applies it to one file of the job, and a `StagingPlan`
is all steps of a job, in both directions. Client and server read the same plan and each does its own part.
Must not touch a file or a socket: `lwr.client` and the engine hand steps to `lwr.transfer`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from lwr.errors import BadRequest


class Mover(StrEnum):
    """Who moves the bytes of an action."""

    NOBODY = "nobody"
    CLIENT = "client"
    SERVER = "server"


#: action_type -> who moves. `message` carries the bytes itself: whoever reads the plan writes them down.
ACTIONS: dict[str, Mover] = {
    "none": Mover.NOBODY,
    "rewrite": Mover.NOBODY,
    "transfer": Mover.CLIENT,
    "copy": Mover.CLIENT,
    "message": Mover.SERVER,
    "remote_transfer": Mover.SERVER,
    "remote_transfer_tus": Mover.SERVER,
    "remote_copy": Mover.SERVER,
    "remote_rsync_transfer": Mover.SERVER,
    "remote_scp_transfer": Mover.SERVER,
    "remote_object_store_copy": Mover.SERVER,
}


#: JSON can carry halves of characters, which no file can.
_HALF_CHARACTER = re.compile(r"[\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class FileAction:
    """How one path of the client's side becomes available on, or returns from, the server's side.

    Args:
        type: a key of `ACTIONS`.
        path: the file on the client's side.
        url: where the server fetches or delivers it, for the actions that have one.
        contents: the text itself, for `message`.
    """

    type: str
    path: str = ""
    url: str = ""
    contents: str = ""

    @property
    def mover(self) -> Mover:
        return ACTIONS[self.type]


@dataclass(frozen=True, slots=True)
class Step:
    """One file to move: `kind` and `name` say where it lives in the job (a key of `wire.FILE_KINDS`)."""

    kind: str
    name: str
    action: FileAction


@dataclass(frozen=True, slots=True)
class StagingPlan:
    """All steps of a job: `inputs` before it runs, `outputs` after it."""

    inputs: tuple[Step, ...] = ()
    outputs: tuple[Step, ...] = ()

    def inputs_moved_by(self, mover: Mover) -> Iterator[Step]:
        return (step for step in self.inputs if step.action.mover is mover)

    def outputs_moved_by(self, mover: Mover) -> Iterator[Step]:
        return (step for step in self.outputs if step.action.mover is mover)


def plan_from_wire(remote_staging: Mapping[str, Any]) -> StagingPlan:
    """Read the server's part of a peer's `remote_staging` (its `setup` list).

    Raises:
        BadRequest: not of the documented shape, or an action that nobody knows.
    """
    entries = remote_staging.get("setup") or []
    if not isinstance(entries, list):
        raise BadRequest("`remote_staging.setup` is not a list.")
    return StagingPlan(inputs=tuple(_step_from_wire(entry) for entry in entries))


def _step_from_wire(entry: object) -> Step:
    if not isinstance(entry, dict) or not isinstance(entry.get("action"), dict):
        raise BadRequest("An entry of `remote_staging.setup` is not an object with an `action`.")
    action = entry["action"]
    action_type = action.get("action_type")
    if not isinstance(action_type, str) or action_type not in ACTIONS:
        raise BadRequest(f"No file action is called {str(action_type)[:60]!r}.", f"Known are: {', '.join(ACTIONS)}.")
    source = action.get("source")
    # Clients before Pulsar 0.14 send `path` alone, later ones the same in `source.path` as well.
    path = action.get("path") or (source.get("path") if isinstance(source, dict) else "") or ""
    values = (entry.get("type"), entry.get("name"), path, action.get("url") or "", action.get("contents") or "")
    if not all(isinstance(value, str) for value in values):
        raise BadRequest("An entry of `remote_staging.setup` lacks `type` or `name`, or has something else than text.")
    kind, name, path, url, contents = values
    if _HALF_CHARACTER.search(str(contents)):
        raise BadRequest(f"The contents of {str(name)[:60]!r} in `remote_staging.setup` are not Unicode text.")
    return Step(str(kind), str(name), FileAction(action_type, str(path), str(url), str(contents)))


def server_moved_outputs(remote_staging: Mapping[str, Any]) -> list[str]:
    """The server-side actions that a peer's mapper names for results, sorted; empty when the client fetches all."""
    mapper = remote_staging.get("action_mapper") or {}
    rules = (mapper.get("paths") or []) if isinstance(mapper, dict) else None
    if not isinstance(rules, list):
        raise BadRequest("`remote_staging.action_mapper` is not an object with a list `paths`.")
    named = [mapper.get("default_action")] + [rule.get("action") for rule in rules if _is_for_outputs(rule)]
    return sorted({action for action in named if isinstance(action, str) and ACTIONS.get(action) is Mover.SERVER})


def _is_for_outputs(rule: object) -> bool:
    # Peers send the kinds expanded; a star is in the names of the groups, which all hold outputs.
    kinds = str(rule.get("path_types") or "*") if isinstance(rule, dict) else ""
    return "output" in kinds or "*" in kinds
