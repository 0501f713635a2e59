"""`lwr mq dead list | show | replay | drop`: the messages that no server could understand, and what becomes of them.

Asks the broker that server.ini names; no server needs to run. A dead letter stays in its queue until its replay was
confirmed by the broker, or until it was dropped: a command that is killed halfway loses none, and may leave one twice.
Headers and bodies are other people's words: they are shown without control characters and without secrets.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import sys
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from lwr.commands.hiding import hidden
from lwr.commands.surroundings import find_ini, surroundings
from lwr.commands.terminal import moment, plain, size
from lwr.config import load
from lwr.config.queue import broker_options
from lwr.core.messages import DEAD, Address, Dialect
from lwr.errors import BadRequest, ConfigError, NotFound
from lwr.transfer.broker import BrokerOptions, Delivery, Letter, Publisher, look, take

#: What is cut on a terminal's edge is whole in a pipe.
_PIPE_COLUMNS = 200
#: More dead letters than this are looked at by the next call.
_MOST = 1000
_SHORT_ID_CHARS = 8
_GONE = "somebody else took it"
#: The exit code when something was left.
_LEFT = 1


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A message that was put aside.

    Args:
        id: its own name in the queue of dead letters.
        to: the queue that it came from.
        at: when it was put aside, seconds since the epoch; None if it does not say.
        is_cut: only its beginning was kept.
        size_bytes: of its body, which is not here: there may be many, and each may be large.
    """

    id: str
    to: Address
    job: str
    reason: str
    at: float | None
    is_cut: bool
    content_type: str
    size_bytes: int

    @classmethod
    def read(cls, delivery: Delivery) -> DeadLetter:
        """One of the broker's, whatever its headers say."""
        headers = {name: str(value) for name, value in delivery.headers.items()}
        return cls(
            id=delivery.message_id or hashlib.sha256(delivery.body).hexdigest()[:32],
            to=Address(headers.get("lwr-exchange", ""), headers.get("lwr-queue", "")),
            job=headers.get("lwr-job", ""),
            reason=headers.get("lwr-reason", ""),
            at=_epoch(headers.get("lwr-at", "")),
            is_cut=headers.get("lwr-cut") == "1",
            content_type=headers.get("lwr-content-type") or delivery.content_type,
            size_bytes=len(delivery.body),
        )

    @property
    def hindrance(self) -> str:
        """Why it cannot be replayed; empty when it can."""
        if self.is_cut:
            return "only its beginning was kept"
        return "" if self.to.exchange in tuple(Dialect) and self.to.queue else "it does not say where it came from"


def run(args: argparse.Namespace) -> int:
    """Do what `args.verb` says. Exits with 1 when a dead letter is left that was to be replayed or dropped.

    Raises LwrError when the broker cannot be asked, or has no such dead letter.
    """
    options = _broker(args.config, args.url)
    found: list[DeadLetter] = []
    look(options, DEAD, _MOST, lambda delivery: found.append(DeadLetter.read(delivery)))
    console = Console(highlight=False, width=None if sys.stdout.isatty() else _PIPE_COLUMNS)
    if args.verb == "list":
        _tell(console, [_summary(letter) for letter in found] if args.json else None, [_table(found)])
        return 0
    if not args.ids and not args.all:
        raise BadRequest("No dead letter is named.", "Name some by their ids, or all with --all.")
    chosen = found if args.all else list({letter.id: letter for letter in _named(found, args.ids)}.values())
    if args.verb == "show":
        _show(options, console, {letter.id for letter in chosen}, as_json=args.json)
        return 0
    done = _replay(options, chosen) if args.verb == "replay" else _drop(options, chosen)
    _tell(console, done if args.json else None, [_line(each) for each in done] or ["There are no dead letters."])
    return 0 if all(each["done"] for each in done) else _LEFT


def _show(options: BrokerOptions, console: Console, ids: Collection[str], *, as_json: bool) -> None:
    documents: list[dict[str, object]] = []

    def show(delivery: Delivery) -> None:
        letter = DeadLetter.read(delivery)
        if letter.id not in ids:
            return
        if as_json:
            documents.append(_summary(letter) | {"body": readable(delivery.body)})
        else:
            _tell(console, None, [_page(letter, delivery.body)])

    look(options, DEAD, _MOST, show)
    if as_json:
        _tell(console, documents, [])


def _broker(ini: str | None, url: str | None) -> BrokerOptions:
    if url:
        return broker_options(url, {}, directory=Path.cwd())
    path = find_ini(ini)
    queue = load(path, surroundings(path, os.environ)).queue
    if queue is None:
        raise ConfigError(
            f"{path or 'The configuration'} names no message_queue_url.",
            "Name the server's file by --config, or the broker by --url.",
        )
    return queue.broker


def _named(found: Sequence[DeadLetter], names: Sequence[str]) -> Iterator[DeadLetter]:
    for name in names:
        matching = {letter.id: letter for letter in found if letter.id.startswith(name)}
        if not matching:
            raise NotFound(f"There is no dead letter {plain(name)}.", "`lwr mq dead list` shows all.")
        if len(matching) > 1:
            raise BadRequest(f"{len(matching)} dead letters begin with {plain(name)}.", "Write more of its id.")
        yield from matching.values()


def _replay(options: BrokerOptions, chosen: Sequence[DeadLetter]) -> list[dict[str, object]]:
    """Publish each where it came from; it is taken out of the dead ones after the broker has confirmed that."""
    with closing(Publisher(options, on_state=lambda _state: None)) as publisher:
        done = _take(
            options,
            {letter.id for letter in chosen if not letter.hindrance},
            lambda letter, body: publisher.publish(Letter(letter.to, body, letter.content_type)),
        )
    return [
        _result(letter, letter.id in done, f"replayed to {letter.to.queue}", letter.hindrance or _GONE)
        for letter in chosen
    ]


def _drop(options: BrokerOptions, chosen: Sequence[DeadLetter]) -> list[dict[str, object]]:
    done = _take(options, {letter.id for letter in chosen}, lambda _letter, _body: None)
    return [_result(letter, letter.id in done, "dropped", _GONE) for letter in chosen]


def _take(options: BrokerOptions, ids: Collection[str], do: Callable[[DeadLetter, bytes], None]) -> set[str]:
    """Take those out, `do` first. Only those: what a running server puts aside again meanwhile has a new id."""
    done: set[str] = set()

    def one(delivery: Delivery) -> None:
        letter = DeadLetter.read(delivery)
        do(letter, delivery.body)
        done.add(letter.id)

    if ids:
        take(options, DEAD, lambda delivery: DeadLetter.read(delivery).id in ids, one, limit=_MOST)
    return done


def _result(letter: DeadLetter, done: bool, did: str, otherwise: str) -> dict[str, object]:
    return {"id": letter.id, "done": done, "what": did if done else f"left as it is: {otherwise}"}


def _line(result: Mapping[str, object]) -> str:
    return f"{'[green]✓[/]' if result['done'] else '[red]✗[/]'} {result['id']} {_safe(str(result['what']))}"


def _summary(letter: DeadLetter) -> dict[str, object]:
    at = None if letter.at is None else datetime.fromtimestamp(letter.at, UTC).isoformat()
    return {
        "id": letter.id,
        "at": at,
        "job_id": letter.job,
        "exchange": letter.to.exchange,
        "queue": letter.to.queue,
        "reason": hidden(letter.reason),
        "content_type": letter.content_type,
        "size_bytes": letter.size_bytes,
        "can_be_replayed": not letter.hindrance,
    }


def _table(letters: Sequence[DeadLetter]) -> Table | str:
    if not letters:
        return "There are no dead letters."
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, header_style="bold")
    for title in ("id", "put aside", "job", "queue"):
        table.add_column(title, no_wrap=True)
    table.add_column("reason", overflow="fold")
    short = _short_ids([letter.id for letter in letters])
    now = time.time()
    for letter in letters:
        facts = (short[letter.id], moment(letter.at, now), letter.job or "-", letter.to.queue or "-", letter.reason)
        table.add_row(*map(_safe, facts))
    return table


def _short_ids(ids: Sequence[str]) -> dict[str, str]:
    """So much of each that no other begins so."""
    count = next(n for n in range(_SHORT_ID_CHARS, 1000) if len({each[:n] for each in ids}) == len(set(ids)))
    return {each: each[:count] for each in ids}


def _page(letter: DeadLetter, body: bytes) -> str:
    when = "-" if letter.at is None else time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(letter.at))
    facts = {
        "put aside": when,
        "job": letter.job or "-",
        "queue": f"{letter.to.queue or '-'} (exchange {letter.to.exchange or '-'})",
        "content": f"{letter.content_type or '-'}, {size(letter.size_bytes)}{', only its beginning' * letter.is_cut}",
    }
    rows = [f"  [dim]{title:<10}[/] {_safe(text)}" for title, text in facts.items()]
    return "\n".join([f"[bold]{_safe(letter.id)}[/]", f"  {_safe(letter.reason)}", *rows, "", escape(readable(body))])


def readable(body: bytes) -> str:
    """A body for a terminal: lines stay lines, everything else that could steer it is made harmless, secrets hidden."""
    return "\n".join(plain(line) for line in hidden(body.decode("utf-8", "replace")).split("\n"))


def _safe(text: str) -> str:
    return escape(plain(hidden(text)))


def _tell(console: Console, document: object | None, lines: Iterable[Table | str]) -> None:
    if document is not None:
        sys.stdout.write(json.dumps(document, indent=2) + "\n")
        return
    for line in lines:
        console.print(line, soft_wrap=isinstance(line, str))


def _epoch(text: str) -> float | None:
    try:
        return datetime.fromisoformat(text).timestamp()
    except ValueError:
        return None
