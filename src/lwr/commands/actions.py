"""`lwr actions explain`: which rule takes a path, and what then happens to the file. Reads nothing but the rules."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape

from lwr.client.rules import load_rules
from lwr.commands.terminal import plain
from lwr.core.mapper import ALL_KINDS, UNSTRUCTURED, Mapper, Rule
from lwr.core.staging import ACTIONS, Mover
from lwr.errors import BadRequest

#: What a path is explained as where nobody asks for a kind; the others are like the first two.
_KINDS = ("input", "output", UNSTRUCTURED)
_COLOURS = {Mover.NOBODY: "yellow", Mover.CLIENT: "green", Mover.SERVER: "cyan"}


@dataclass(frozen=True, slots=True)
class Ruling:
    """What holds for a path: the rule that takes it (None: the default does), and the action.

    Args:
        rewritten: the path on the server, for `rewrite`.
        directory: what is staged whole because of the path.
    """

    rule: Rule | None
    action: str
    rewritten: str
    directory: str


def run(args: argparse.Namespace) -> int:
    """Explain each path. Raises ConfigError for a file that is not understood, BadRequest for an unknown kind."""
    if args.kind and args.kind not in ALL_KINDS:
        raise BadRequest(f"No kind of path is called {args.kind[:60]!r}.", f"There are {', '.join(ALL_KINDS)}.")
    rule_set = load_rules(Path(args.config))
    mapper = rule_set.mapper(args.default)
    kinds = (args.kind,) if args.kind else _KINDS
    found = {path: rulings(mapper, path, kinds) for path in map(os.path.abspath, args.paths)}
    if args.json:
        paths = [
            {"path": path, "rulings": [_document(*item) for item in ruled.items()]} for path, ruled in found.items()
        ]
        document = {"file": args.config, "notices": list(rule_set.notices), "paths": paths}
        sys.stdout.write(json.dumps(document, indent=2) + "\n")
        return 0
    _show(Console(highlight=False, soft_wrap=True), rule_set.notices, found)
    return 0


def rulings(mapper: Mapper, path: str, kinds: Sequence[str]) -> dict[Ruling, list[str]]:
    """What holds for an absolute path, and for which of the kinds; those with the same answer are together."""
    found: dict[Ruling, list[str]] = {}
    for kind in kinds:
        rule, action = mapper.rule(path, kind), mapper.action_type(path, kind)
        rewritten = directory = ""
        if rule and action == "rewrite":
            # As the server writes its paths, which nobody here can ask.
            separator = "\\" if "\\" in rule.destination_directory else "/"
            rewritten = mapper.action(path, kind, separator=separator).rewritten
        if rule and kind == UNSTRUCTURED and ACTIONS[action].staged:
            directory = mapper.staged_directory(rule, path)
        found.setdefault(Ruling(rule, action, rewritten, directory), []).append(kind)
    return found


def _show(console: Console, notices: Sequence[str], found: dict[str, dict[Ruling, list[str]]]) -> None:
    for notice in notices:
        console.print(f"[yellow]![/] {escape(plain(notice))}")
    every = [(ruling, kinds) for ruled in found.values() for ruling, kinds in ruled.items()]
    kinds_width = max(len(", ".join(kinds)) for _, kinds in every)
    action_width = max(len(ruling.action) for ruling, _ in every)
    for path, ruled in found.items():
        console.print(f"[bold]{escape(plain(path))}[/]")
        for ruling, kinds in ruled.items():
            source, *details = map(plain, _sentences(ruling, kinds))
            colour = _COLOURS[ACTIONS[ruling.action].mover]
            action = f"[{colour}]{ruling.action:<{action_width}}[/]"
            console.print(f"  {', '.join(kinds):<{kinds_width}}  {action}  [dim]{escape(source)}[/]")
            for detail in details:
                console.print(" " * (kinds_width + action_width + 6) + escape(detail))


def _sentences(ruling: Ruling, kinds: Sequence[str]) -> Iterator[str]:
    """First where it comes from, then what it means."""
    rule = ruling.rule
    if rule is None and UNSTRUCTURED in kinds:
        yield "no rule, and so it is left alone where it stands in a text"
        return
    yield f"{rule.where}: {rule.match} {rule.path}".rstrip() if rule else "no rule, and so the default"
    if rule and rule.action != ruling.action:
        yield f"The rule says {rule.action}, but files of the job's own directories travel in any case."
    yield f"The file {ACTIONS[ruling.action].summary}."
    if ruling.rewritten:
        yield f"There it is {ruling.rewritten}"
    if ruling.directory:
        yield f"All that is below {ruling.directory} travels with it."


def _document(ruling: Ruling, kinds: Sequence[str]) -> dict[str, Any]:
    rule = ruling.rule
    return {
        "kinds": list(kinds),
        "action": ruling.action,
        "summary": ACTIONS[ruling.action].summary,
        "moved_by": ACTIONS[ruling.action].mover.value,
        "rule": {"where": rule.where, "match_type": rule.match.value, "path": rule.path} if rule else None,
        "rewritten": ruling.rewritten or None,
        "staged_directory": ruling.directory or None,
    }
