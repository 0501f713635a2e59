"""Which file action a path gets: rules that an admin wrote, tried in their order, and a default. Pure.

Facts: file actions of LWR and Pulsar, sections 2 to 6. A `Mapper` is made from an admin's file (`lwr.client.rules`)
or from what a peer's client sent (`mapper_from_wire`). The two differ in what a prefix and a glob are
(`by_component`): ours mean what an admin expects (`lwr.core.patterns`); a peer's are applied to the letter as that peer
applies them, or both sides would move a file, or neither. Must not read files: that is for `lwr.client.rules`.

A peer's regular expressions run here, bounded in time by `lwr.core.expressions`; an admin's own are trusted.
"""

from __future__ import annotations

import ntpath
import posixpath
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import Any

from lwr.core.expressions import Expression
from lwr.core.patterns import glob_expression, prefix_expression, rest_by_component, rest_by_text
from lwr.core.staging import ACTIONS, FileAction, Ssh, Way, ssh_from_wire, transfer_url
from lwr.errors import BadRequest, ConfigError

#: Kinds that a rule takes without saying so (`*defaults*`); `unstructured` must be named.
DEFAULT_KINDS = (
    "input", "config", "tool", "workdir", "jobdir", "metadata", "output", "output_workdir", "output_metadata",
    "output_jobdir",
)  # fmt: skip
UNSTRUCTURED = "unstructured"
ALL_KINDS = (*DEFAULT_KINDS, UNSTRUCTURED)
#: What `path_types` may name as a whole.
KIND_GROUPS = {"*defaults*": DEFAULT_KINDS, "*any*": ALL_KINDS}

#: Actions that a rule or a default may name; a message is made of what a client has in memory.
CONFIGURABLE = tuple(name for name in ACTIONS if name != "message")
MAX_DEPTH = 100

#: Of files in the job's own directories, which are others on the server: they travel whatever a rule says.
_OWN_DIRECTORIES = frozenset({"workdir", "jobdir", "metadata", "output_workdir", "output_metadata", "output_jobdir"})

_SSH_KEYS = ("ssh_user", "ssh_host", "ssh_port", "ssh_key")
_PEERS_UNSET = "__UNSET__"  # what Pulsar writes for an ssh key that a rule does not have

_MAX_RULES = 1000
#: Compiled once, and not anew for each path.
_expression_of = lru_cache(_MAX_RULES)(Expression)
#: No system opens a longer one.
_MAX_PATH_CHARS = 4096


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
        action: one of `CONFIGURABLE`.
        path: prefix (absolute and normalised), glob or regular expression; empty for `Match.ANY`.
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
        by_component: whether a prefix means whole components and `**/` in a glob may match nothing (ours), or a prefix
            is text and a glob is fnmatch's (a peer's).
        windows: whether the client's paths are of Windows: both separators are one, and case is ignored in prefixes and
            globs. Elsewhere case counts.
    """

    rules: tuple[Rule, ...] = ()
    default_action: str = "transfer"
    files_endpoint: str = field(default="", repr=False)
    by_component: bool = True
    ssh: Ssh | None = None
    windows: bool = False

    def rule(self, path: str, kind: str) -> Rule | None:
        """The first rule that takes a path (absolute; it is normalised here) of that kind.

        Raises:
            BadRequest: a peer's regular expression takes too long to be tried.
        """
        if len(path) > _MAX_PATH_CHARS:
            return None
        place = self._normal(path)
        return next((rule for rule in self.rules if kind in rule.kinds and self._takes(rule, place)), None)

    def action_type(self, path: str, kind: str) -> str:
        """The word for what happens to a path: a key of `ACTIONS`. Needs no endpoint. Raises as `rule`."""
        return self._word(self.rule(path, kind), kind)

    def action(self, path: str, kind: str, *, separator: str = "/") -> FileAction:
        """The action for a path, resolved: with its URL, its rewritten path or its way by ssh.

        Files that live in the job's own directories are copied at least: `none` and `rewrite` become `copy` for them.
        `separator` is the server's, for `rewrite`.

        Raises:
            ConfigError: the action needs something that is not there (a files endpoint, an ssh host, a source directory
                that the path is below); names the rule.
            BadRequest: as `rule`.
        """
        rule = self.rule(path, kind)
        word = self._word(rule, kind)
        match ACTIONS[word].way:
            case Way.URL | Way.TUS:
                if not self.files_endpoint:
                    raise ConfigError(
                        f"{path} is to be moved by {word} ({_named(rule)}), and no files endpoint is known.",
                        "Set files_endpoint, or let the client move the file (transfer).",
                    )
                return FileAction(word, path, transfer_url(self.files_endpoint, path, kind))
            case Way.RSYNC | Way.SCP:
                ssh = (rule.ssh if rule else None) or self.ssh
                if not ssh or not ssh.host:
                    raise ConfigError(
                        f"{path} is to be moved by {word} ({_named(rule)}), and no ssh host is known.",
                        "Set ssh_host and ssh_user in the rule or for all.",
                    )
                return FileAction(word, path, ssh=ssh)
        return FileAction(word, path, rewritten=self._rewritten(rule, path, separator) if word == "rewrite" else "")

    def staged_directory(self, rule: Rule, path: str) -> str:
        """The directory that is staged whole because of an unstructured file: `rule.depth` above it; empty for 0."""
        flavour = ntpath if self.windows else posixpath
        for _ in range(rule.depth):
            path = flavour.dirname(path)
        return path if rule.depth else ""

    def to_wire(self) -> dict[str, Any]:
        """The `action_mapper` that peers read: kinds expanded, as comma-separated text. Holds secrets.

        What a peer would understand otherwise than we do travels as the regular expression that means the same to all.
        """
        ssh = self.ssh
        return {
            "default_action": self.default_action,
            "files_endpoint": self.files_endpoint or None,
            "ssh_key": (ssh.key or None) if ssh else None,
            "ssh_user": (ssh.user or None) if ssh else None,
            "ssh_host": (ssh.host or None) if ssh else None,
            "ssh_port": ssh.port if ssh else None,
            "paths": [self._rule_to_wire(rule) for rule in self.rules],
        }

    def _word(self, rule: Rule | None, kind: str) -> str:
        word = rule.action if rule else self.default_action if kind in DEFAULT_KINDS else "none"
        return "copy" if kind in _OWN_DIRECTORIES and not ACTIONS[word].staged else word

    def _normal(self, path: str) -> str:
        if not path:
            return ""
        if self.windows:
            return ntpath.normpath(path)
        # Two slashes at the start are kept by normpath, and by the peers with it.
        return posixpath.normpath(path[1:] if self.by_component and path.startswith("//") else path)

    def _takes(self, rule: Rule, path: str) -> bool:
        if self.by_component or rule.match is Match.ANY:
            return re.match(self._expression(rule), path) is not None
        if rule.match is Match.REGEX:
            return _expression_of(rule.path).takes(path)
        return path.startswith(rule.path) if rule.match is Match.PREFIX else fnmatchcase(path, rule.path)

    def _expression(self, rule: Rule) -> str:
        """The regular expression, anchored at the start, that means what the rule means."""
        if rule.match is Match.PREFIX:
            return prefix_expression(rule.path, windows=self.windows)
        if rule.match is Match.GLOB:
            return glob_expression(rule.path, windows=self.windows)
        return rule.path

    def _rewritten(self, rule: Rule | None, path: str, separator: str) -> str:
        """Empty where a peer's rule does not fit the path: the peer rewrites for itself, and nobody here needs it."""
        below = rest_by_component if self.by_component else rest_by_text
        rest = below(self._normal(path), rule.source_directory, windows=self.windows) if rule else None
        if rule and rest is not None:
            parts = (rule.destination_directory.rstrip("/" + separator), *filter(None, rest.split("/")))
            return separator.join(parts) or separator
        if not self.by_component:
            return ""
        source = f"its source_directory {rule.source_directory}" if rule else "anything that has a source_directory"
        raise ConfigError(
            f"{path} is to be rewritten ({_named(rule)}), and is not below {source}.",
            "Correct source_directory, or let the rule take less.",
        )

    def _rule_to_wire(self, rule: Rule) -> dict[str, Any]:
        match, path = rule.match, rule.path
        if self.by_component and (match is Match.PREFIX or (match is Match.GLOB and ("**/" in path or self.windows))):
            match, path = Match.REGEX, self._expression(rule)
        entry: dict[str, Any] = {
            "action": rule.action,
            "path_types": ",".join(kind for kind in ALL_KINDS if kind in rule.kinds),
            "match_type": match.value,
            "depth": rule.depth,
        }
        if match is not Match.ANY:
            entry["path"] = path
        if rule.action == "rewrite":
            entry |= {name: getattr(rule, name) for name in ("source_directory", "destination_directory")}
        if rule.ssh:
            entry |= {"ssh_user": rule.ssh.user, "ssh_host": rule.ssh.host, "ssh_port": rule.ssh.port}
            if rule.ssh.key and rule.ssh.key != (self.ssh or Ssh()).key:
                entry["ssh_key"] = rule.ssh.key
        return entry


def mapper_from_wire(value: object, ssh_key: str = "") -> Mapper:
    """A mapper as a peer sent it in `remote_staging.action_mapper`; None or {} is an empty one.

    `ssh_key` is the one beside it in `remote_staging`, for when it has none itself. Unknown keys are ignored, and so
    are kinds that nobody here has (`container`), as such files never come.

    Raises:
        BadRequest: not of the documented shape, or an action or match type that nobody knows.
    """
    value = {} if value is None else value
    if not isinstance(value, dict) or not isinstance(value.get("paths") or [], list):
        raise BadRequest("`remote_staging.action_mapper` is not an object with a list of `paths`.")
    entries, endpoint = value.get("paths") or [], value.get("files_endpoint") or ""
    if len(entries) > _MAX_RULES:
        raise BadRequest(f"`action_mapper.paths` has {len(entries)} entries.", f"{_MAX_RULES} are the most.")
    if not isinstance(endpoint, str):
        raise BadRequest("`action_mapper.files_endpoint` is not text.")
    ssh = _ssh_from_wire({"ssh_key": ssh_key} | {name: text for name, text in value.items() if text}, Ssh())
    return Mapper(
        rules=tuple(_rule_from_wire(entry, f"`action_mapper.paths[{at}]`", ssh) for at, entry in enumerate(entries)),
        default_action=_known_action(value.get("default_action"), "`action_mapper.default_action`"),
        files_endpoint=endpoint,
        by_component=False,
        ssh=ssh,
    )


def _rule_from_wire(entry: object, where: str, ssh: Ssh | None) -> Rule:
    if not isinstance(entry, dict):
        raise BadRequest(f"{where} is not an object.")
    names = ("path", "path_types", "source_directory", "destination_directory")
    path, kinds, source, destination = (entry.get(name) or "" for name in names)
    if not all(isinstance(text, str) for text in (path, kinds, source, destination)):
        raise BadRequest(f"{where} holds something else than text.")
    action = _known_action(entry.get("action"), where)
    if action == "rewrite" and not (source and destination):
        raise BadRequest(f"{where} rewrites without `source_directory` and `destination_directory`.")
    match = Match.ANY
    if entry.get("path") is not None:
        match = _known_match(entry.get("match_type") or Match.PREFIX, path, where)
    return Rule(
        action,
        posixpath.normpath(path) if match is Match.PREFIX else "" if match is Match.ANY else path,
        match,
        _expanded(kinds or "*defaults*"),
        _depth(entry.get("depth"), where),
        source,
        destination,
        _ssh_from_wire(entry, ssh or Ssh()),
    )


def _known_action(name: object, where: str) -> str:
    if name is None:
        return "transfer"
    if not isinstance(name, str) or name not in CONFIGURABLE:
        raise BadRequest(
            f"{where}: no file action is called {str(name)[:60]!r}.", f"There are {', '.join(CONFIGURABLE)}."
        )
    return name


def _known_match(name: object, path: str, where: str) -> Match:
    if not isinstance(name, str) or name not in list(Match):
        raise BadRequest(f"{where}: no match type is called {str(name)[:60]!r}.", f"There are {', '.join(Match)}.")
    if len(path) > _MAX_PATH_CHARS:
        raise BadRequest(f"{where}: its `path` has {len(path)} characters.", f"{_MAX_PATH_CHARS} are the most.")
    if name == Match.REGEX:
        _expression_of(path)
    return Match(name)


def _expanded(kinds: str) -> frozenset[str]:
    # To the letter as peers do it: without a look at blanks, with which a kind matches nothing.
    for group, names in KIND_GROUPS.items():
        kinds = kinds.replace(group, ",".join(names))
    return frozenset(kinds.split(",")) & frozenset(ALL_KINDS)


def _depth(value: object, where: str) -> int:
    if value is None:
        return 0
    text = str(value) if isinstance(value, int | str) and not isinstance(value, bool) else ""
    if not text.isascii() or not text.isdigit() or len(text) > 4 or int(text) > MAX_DEPTH:
        raise BadRequest(f"{where}: `depth` is not a number from 0 to {MAX_DEPTH}.")
    return int(text)


def _ssh_from_wire(entry: Mapping[str, Any], default: Ssh) -> Ssh | None:
    """What an entry or a mapper says about ssh, None where it says nothing."""
    said = {name: entry[name] for name in _SSH_KEYS if entry.get(name) and entry[name] != _PEERS_UNSET}
    return ssh_from_wire(said, default) if said else None


def _named(rule: Rule | None) -> str:
    return "the default action" if rule is None else rule.where or f"the rule for {rule.path or 'all paths'}"
