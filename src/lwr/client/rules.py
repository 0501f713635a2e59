"""An admin's file of rules (`file_action_config`) and its inline form (`file_actions`), read into a mapper.

YAML, or JSON where the file's name ends so. Nothing in a file is executed or guessed: scalars are taken as the text
that stands there, so that `no` and `010` are what they look like; aliases, tags and repeated keys are refused. Every
error names the file, the line and the key. Facts: file actions of LWR and Pulsar, section 3. The only module that
knows YAML; must not know what a rule does to a file: that is `lwr.core.mapper`.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path

import yaml

from lwr.core.mapper import ALL_KINDS, CONFIGURABLE, KIND_GROUPS, MAX_DEPTH, UNSTRUCTURED, Mapper, Match, Rule
from lwr.core.patterns import glob_expression, prefix_expression
from lwr.core.staging import ACTIONS, Ssh, Way
from lwr.errors import ConfigError

_MAX_FILE_BYTES = 1 << 20
_WINDOWS = os.name == "nt"

_ENTRY_KEYS = (
    "path", "match_type", "action", "path_types", "depth", "source_directory", "destination_directory", "ssh_user",
    "ssh_host", "ssh_port",
)  # fmt: skip
#: Peers write these beside `paths` and take them from the client's configuration all the same.
_CLIENTS_KEYS = ("default_action", "files_endpoint", "ssh_key", "ssh_user", "ssh_host", "ssh_port")
_ABSOLUTE_ON_ANY_SERVER = re.compile(r"/|\\\\|[A-Za-z]:[\\/]")
_ALIAS = "while scanning an alias"  # PyYAML's words
_PLAIN_TAGS = frozenset(
    f"tag:yaml.org,2002:{name}" for name in ("str", "int", "float", "bool", "null", "timestamp", "merge", "value")
)


@dataclass(frozen=True, slots=True)
class RuleSet:
    """What a file says: its rules in their order, and sentences about what in it has no effect."""

    rules: tuple[Rule, ...] = ()
    notices: tuple[str, ...] = ()

    def mapper(self, default_action: str, files_endpoint: str = "", ssh: Ssh | None = None) -> Mapper:
        """The mapper of these rules on this machine. Raises ConfigError for a default that cannot be one."""
        known = [name for name in CONFIGURABLE if name != "rewrite"]  # which needs the directories of a rule
        if default_action not in known:
            raise ConfigError(
                f"The default file action cannot be {default_action[:60]!r}.", _nearest(default_action, known)
            )
        return Mapper(self.rules, default_action, files_endpoint, ssh=ssh, windows=_WINDOWS)


def load_rules(path: Path, *, ssh: Ssh | None = None) -> RuleSet:
    """Read a file of rules. `ssh` is what a rule's own `ssh_*` keys are completed with.

    Raises:
        ConfigError: it cannot be read, or holds something that is not understood; names file, line and key.
    """
    return _rule_set(_read(path), ssh)


def rules_from_document(document: object, where: str, *, ssh: Ssh | None = None) -> RuleSet:
    """Read rules that are there as data (dictionaries, lists, texts, numbers); None or {} has none.

    Args:
        where: what errors call the place ("file_actions of the destination pulsar").

    Raises:
        ConfigError: as `load_rules`; in the line's place stands the number of the entry.
    """
    return _rule_set(_from_data(document, where), ssh) if document else RuleSet()


def mapper_from_file(
    path: Path, *, default_action: str = "transfer", files_endpoint: str = "", ssh: Ssh | None = None
) -> Mapper:
    """`load_rules` and `RuleSet.mapper` in one."""
    return load_rules(path, ssh=ssh).mapper(default_action, files_endpoint, ssh)


def mapper_from_document(
    document: object, where: str, *, default_action: str = "transfer", files_endpoint: str = "", ssh: Ssh | None = None
) -> Mapper:
    """`rules_from_document` and `RuleSet.mapper` in one."""
    return rules_from_document(document, where, ssh=ssh).mapper(default_action, files_endpoint, ssh)


@dataclass(frozen=True, slots=True)
class _Node:
    """A value and where it stands; a scalar is its text, None one that is empty."""

    where: str
    value: str | list[_Node] | dict[str, _Node] | None

    def mapping(self, what: str, known: Iterable[str]) -> dict[str, _Node]:
        """Its keys, all of them known ones. Raises ConfigError."""
        if not isinstance(self.value, dict):
            raise ConfigError(f"{self.where}: {what} must be `key: value` pairs.", f"Keys are {', '.join(known)}.")
        for key, node in self.value.items():
            if key not in known:
                raise ConfigError(f"{node.where}: {key[:60]!r} is not a key of {what}.", _nearest(key, known))
        return self.value


class _Loader(yaml.SafeLoader):
    """Composes without aliases, of which a few lines can make a document without end."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise yaml.composer.ComposerError(_ALIAS, mark, "aliases are not used here", mark)
        return super().compose_node(parent, index)


def _read(path: Path) -> _Node:
    try:
        with path.open("rb") as file:
            data = file.read(_MAX_FILE_BYTES + 1)
        text = data.decode("utf-8-sig")
    except FileNotFoundError as error:
        raise ConfigError(f"There is no file {path}.", "Check the path of the file of rules.") from error
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
        raise ConfigError(f"{path} cannot be read: {reason}.") from error
    if len(data) > _MAX_FILE_BYTES:
        raise ConfigError(f"{path} is larger than {_MAX_FILE_BYTES} bytes.", "Is that the file of rules?")
    try:
        if path.suffix.lower() == ".json":
            json.loads(text)
            # Between the values of JSON tabs are blanks, and inside of them there are none.
            text = text.replace("\t", " ")
        root = yaml.compose(text, Loader=_Loader)
        return _Node(path.name, None) if root is None else _from_yaml(root, path.name)
    except json.JSONDecodeError as error:
        raise ConfigError(f"{path}, line {error.lineno}: this is not JSON: {error.msg}.") from error
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else "?"
        raise ConfigError(f"{path}, line {line}: this is not YAML: {error.problem}.", _quoting(error)) from error
    except (yaml.YAMLError, RecursionError) as error:
        raise ConfigError(f"{path} is not YAML: characters or nesting that no such file has.") from error


def _quoting(error: yaml.MarkedYAMLError) -> str:
    if error.context == _ALIAS:
        return 'A text that begins with * needs quotes: "*any*".'
    return "Indent with blanks, and put a text that has special characters into quotes."


def _from_yaml(node: yaml.Node, name: str, line: int | None = None) -> _Node:
    """Args: line: where its key stands, counted from 0."""
    where = f"{name}, line {(node.start_mark.line if line is None else line) + 1}"
    if isinstance(node, yaml.ScalarNode) and node.tag in _PLAIN_TAGS:
        # JSON writes characters beyond the first 65536 in two halves, which YAML leaves apart.
        text = node.value.encode("utf-16", "surrogatepass").decode("utf-16", "surrogatepass")
        return _Node(where, None if node.tag.endswith(":null") else text)
    if isinstance(node, yaml.SequenceNode) and node.tag.endswith(":seq"):
        return _Node(where, [_from_yaml(item, name) for item in node.value])
    if isinstance(node, yaml.MappingNode) and node.tag.endswith(":map"):
        entries: dict[str, _Node] = {}
        for key, value in node.value:
            at = f"{name}, line {key.start_mark.line + 1}"
            if not isinstance(key, yaml.ScalarNode):
                raise ConfigError(f"{at}: a key is a text.")
            if key.value in entries:
                raise ConfigError(f"{at}: {key.value[:60]!r} stands twice.", "Keep one of them.")
            entries[key.value] = _from_yaml(value, name, key.start_mark.line)
        return _Node(where, entries)
    raise ConfigError(f"{where}: the tag {node.tag[:60]!r} is not used here.", "Write the plain text.")


def _from_data(value: object, where: str) -> _Node:
    match value:
        case None:
            return _Node(where, None)
        case str() | int() | float():
            return _Node(where, str(value))
        case list() | tuple():
            return _Node(where, [_from_data(item, f"{where}, entry {at}") for at, item in enumerate(value, 1)])
        case dict():
            return _Node(where, {str(key): _from_data(item, where) for key, item in value.items()})
    raise ConfigError(f"{where}: a {type(value).__name__} is no part of rules.")


def _rule_set(root: _Node, ssh: Ssh | None) -> RuleSet:
    known = root.mapping("a file of rules", ("paths", *_CLIENTS_KEYS))
    notices = [
        f"{node.where}: {key} has no effect here; the client's own configuration says it."
        for key, node in known.items()
        if key in _CLIENTS_KEYS and node.value is not None
    ]
    paths = known.get("paths")
    if paths is None or not isinstance(paths.value, list):
        raise ConfigError(
            f"{(paths or root).where}: `paths` must be a list of rules.",
            "Begin with `paths:` and a line `- path: /data` for each.",
        )
    rules = []
    for node in paths.value:
        entry = _Entry(node, node.mapping("a rule", _ENTRY_KEYS))
        rule = entry.rule(ssh)
        rules.append(rule)
        notices += entry.without_effect(rule)
    return RuleSet(tuple(rules), tuple(notices))


@dataclass(frozen=True, slots=True)
class _Entry:
    """One entry of `paths` on its way to a rule. Its methods raise ConfigError."""

    node: _Node
    fields: dict[str, _Node]

    def rule(self, ssh: Ssh | None) -> Rule:
        action = self.one_of("action", CONFIGURABLE, "transfer")
        match, path = self.pattern()
        source, destination = self.directories(action, match, path)
        return Rule(
            action=action,
            path=path,
            match=match,
            kinds=self.kinds(),
            depth=self.number("depth", 0, MAX_DEPTH, 0),
            source_directory=source,
            destination_directory=destination,
            ssh=self.ssh(ssh or Ssh()),
            where=self.node.where,
        )

    def text(self, key: str) -> str:
        """The text of a key; empty when it is not there."""
        node = self.fields.get(key)
        if node is None:
            return ""
        if not isinstance(node.value, str) or not node.value.strip():
            raise self.wrong(key, "must be a text.", "Give it one, or remove the key.")
        return node.value.strip()

    def wrong(self, key: str, what: str, hint: str) -> ConfigError:
        return ConfigError(f"{self.fields.get(key, self.node).where}: `{key}` {what}", hint)

    def one_of(self, key: str, known: Iterable[str], default: str) -> str:
        text = self.text(key) or default
        if text not in known:
            raise self.wrong(key, f"cannot be {text[:60]!r}.", _nearest(text, known))
        return text

    def number(self, key: str, least: int, most: int, default: int) -> int:
        text = self.text(key) or str(default)
        if not (text.isascii() and text.isdigit() and len(text) < 6 and least <= int(text) <= most):
            raise self.wrong(key, f"cannot be {text[:60]!r}.", f"It is a number from {least} to {most}.")
        return int(text)

    def pattern(self) -> tuple[Match, str]:
        path = self.text("path")
        match = Match(self.one_of("match_type", list(Match), Match.PREFIX if path else Match.ANY))
        if match is Match.ANY:
            if path:
                raise self.wrong("path", f"has no place in a rule of match_type {match}.", "Remove one of them.")
            if "path_types" not in self.fields:
                raise self.wrong("path", "is missing.", "A rule needs path, or at least path_types.")
            return match, ""
        if not path:
            raise self.wrong("path", "is missing.", f"A rule of match_type {match} needs it.")
        if match is Match.PREFIX:
            return match, _absolute(path)
        try:
            re.compile(path if match is Match.REGEX else glob_expression(path, windows=_WINDOWS))
        except (re.error, OverflowError, RecursionError) as error:
            what = "regular expression" if match is Match.REGEX else "glob"
            raise self.wrong("path", f"is not a {what}: {error}.", "Set match_type to what it is.") from error
        return match, path

    def kinds(self) -> frozenset[str]:
        words = [word.strip() for word in (self.text("path_types") or "*defaults*").split(",")]
        known = (*ALL_KINDS, *KIND_GROUPS)
        for word in words:
            if word not in known:
                raise self.wrong("path_types", f"cannot name {word[:60]!r}.", _nearest(word, known))
        return frozenset(kind for word in words for kind in KIND_GROUPS.get(word, (word,)))

    def directories(self, action: str, match: Match, path: str) -> tuple[str, str]:
        source, destination = self.text("source_directory"), self.text("destination_directory")
        if action != "rewrite":
            return "", ""
        for key, text in (("source_directory", source), ("destination_directory", destination)):
            if not text:
                raise self.wrong(key, "is missing.", "rewrite replaces source_directory by destination_directory.")
        if not _ABSOLUTE_ON_ANY_SERVER.match(destination):
            raise self.wrong("destination_directory", "is not absolute.", "It is a directory of the server.")
        source = _absolute(source)
        if match is Match.PREFIX and not re.match(prefix_expression(source, windows=_WINDOWS), path):
            raise self.wrong("source_directory", f"is {source}, and path is not below it.", "Correct one of them.")
        return source, destination

    def ssh(self, default: Ssh) -> Ssh | None:
        user, host = self.text("ssh_user"), self.text("ssh_host")
        port = self.number("ssh_port", 1, 65535, default.port)
        if not self.fields.keys() & {"ssh_user", "ssh_host", "ssh_port"}:
            return None
        return Ssh(user or default.user, host or default.host, port, default.key)

    def without_effect(self, rule: Rule) -> list[str]:
        by_ssh = ACTIONS[rule.action].way in (Way.RSYNC, Way.SCP)
        conditions = {
            "source_directory": (rule.action == "rewrite", "the action rewrite"),
            "destination_directory": (rule.action == "rewrite", "the action rewrite"),
            "depth": (UNSTRUCTURED in rule.kinds, "path_types with unstructured"),
            "ssh_user": (by_ssh, "the actions that go by ssh"),
            "ssh_host": (by_ssh, "the actions that go by ssh"),
            "ssh_port": (by_ssh, "the actions that go by ssh"),
        }
        return [
            f"{self.fields[key].where}: {key} has no effect in this rule; it is for {what}."
            for key, (used, what) in conditions.items()
            if key in self.fields and not used
        ]


def _absolute(path: str) -> str:
    """Normalised, without a slash at the end; a relative one starts from the current directory, as with the peers."""
    text = os.path.abspath(path)
    return text[1:] if text.startswith("//") else text


def _nearest(word: str, known: Iterable[str]) -> str:
    near = get_close_matches(word.lower(), list(known), 1)
    return f"Did you mean {near[0]}?" if near else f"There are {', '.join(known)}."
