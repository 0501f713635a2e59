"""Which file action a path gets: rules that an admin wrote, tried in their order, and a default. Pure.

Facts: file actions of LWR and Pulsar, sections 2 to 6. A `Mapper` is made from an admin's file (`lwr.client.rules`)
or from what a peer's client sent (`mapper_from_wire`); the two differ in what a prefix is (`by_component`). Must
not read files: the file of rules is read in `lwr.client.rules`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from lwr.core.staging import FileAction, Ssh

#: Kinds that a rule takes without saying so (`*defaults*`); `unstructured` must be named.
DEFAULT_KINDS = (
    "input", "config", "tool", "workdir", "jobdir", "metadata", "output", "output_workdir", "output_metadata",
    "output_jobdir",
)  # fmt: skip
UNSTRUCTURED = "unstructured"
ALL_KINDS = (*DEFAULT_KINDS, UNSTRUCTURED)


class Match(StrEnum):
    """How a rule's `path` is compared with a path."""

    PREFIX = "prefix"
    GLOB = "glob"
    REGEX = "regex"
    ANY = "path_type_only"


@dataclass(frozen=True, slots=True)
class Rule:
    """One entry of `paths`.

    Args:
        action: a key of `ACTIONS` that can be configured (all but `message`).
        path: prefix, glob or regular expression; empty for `Match.ANY`.
        depth: for unstructured paths: so many directories above the file are staged with all that is in them.
        source_directory, destination_directory: for `rewrite`.
        ssh: for the actions that go by ssh, where the rule has its own.
        where: the place in the admin's file ("actions.yaml, line 3"), for messages; empty for a peer's.
    """

    action: str
    path: str = ""
    match: Match = Match.PREFIX
    kinds: frozenset[str] = frozenset(DEFAULT_KINDS)
    depth: int = 0
    source_directory: str = ""
    destination_directory: str = ""
    ssh: Ssh | None = None
    where: str = ""


@dataclass(frozen=True, slots=True)
class Mapper:
    """Rules in their order and what holds where none does.

    Args:
        default_action: for all kinds but `unstructured`, which then is `none`.
        files_endpoint: Galaxy's URL for the job's files, for actions that need one. Holds a secret.
        by_component: whether a prefix means whole components (ours) or text (a peer's mapper is applied as the peer
            applies it).
    """

    rules: tuple[Rule, ...] = ()
    default_action: str = "transfer"
    files_endpoint: str = field(default="", repr=False)
    by_component: bool = True
    ssh: Ssh | None = None

    def rule(self, path: str, kind: str) -> Rule | None:
        """The first rule that takes a path (absolute and normalised by the caller) of that kind."""
        raise NotImplementedError

    def action(self, path: str, kind: str, *, separator: str = "/") -> FileAction:
        """The action for a path, resolved: with its URL or its rewritten path.

        `none` becomes `copy` for files that live in the job's own directories. `separator` is the server's, for
        `rewrite`.

        Raises:
            ConfigError: the action needs something that is not there (a files endpoint, a source directory that the
                path is below); names the rule.
        """
        raise NotImplementedError

    def to_wire(self) -> dict[str, Any]:
        """The `action_mapper` that peers read: kinds expanded, as comma-separated text."""
        raise NotImplementedError


def mapper_from_wire(value: object) -> Mapper:
    """A mapper as a peer sent it in `remote_staging.action_mapper`; None or {} is an empty one.

    Raises:
        BadRequest: not of the documented shape, or an action, kind or match type that nobody knows.
    """
    raise NotImplementedError


def transfer_url(files_endpoint: str, path: str, kind: str) -> str:
    """Galaxy's URL for one file: the endpoint with its query kept, and `path` and `file_type` percent-encoded."""
    raise NotImplementedError
