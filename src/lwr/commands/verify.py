"""`lwr verify`: reads files from this machine's disk and holds them against a receipt. Asks no server."""

from __future__ import annotations

import argparse
import hashlib
import json
import stat
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.markup import escape

from lwr.commands.terminal import plain, size
from lwr.core.receipt import FileRecord, FileState, records_from_document
from lwr.errors import BadRequest, LwrError

_DIFFERS = 1


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of one file: `trouble` is empty when it is as the receipt says. `by`: what was compared."""

    path: str
    by: str
    trouble: str


def run(args: argparse.Namespace) -> int:
    """Check every whole file of the receipts. Exits with 1 when one is not as it was, or when there was none to check.

    Raises BadRequest for what is no receipt.
    """
    console = Console(highlight=False, stderr=args.json)
    verdicts: list[Verdict] = []
    skipped = 0
    for name in args.receipts:
        records = _read(name)
        whole = [record for record in records if record.state in (FileState.WHOLE, FileState.READY)]
        skipped += len(records) - len(whole)
        verdicts += _check(whole, Path(args.inside) if args.inside else None)
    if args.json:
        listed = [{"path": each.path, "compared": each.by, "trouble": each.trouble} for each in verdicts]
        sys.stdout.write(json.dumps({"files": listed, "not_whole": skipped}, indent=2) + "\n")
    else:
        _tell(console, verdicts, skipped)
    return _DIFFERS if not verdicts or any(each.trouble for each in verdicts) else 0


def _read(name: str) -> list[FileRecord]:
    try:
        text = sys.stdin.read() if name == "-" else Path(name).read_text(encoding="utf-8")
    except (OSError, UnicodeError) as error:
        raise BadRequest(f"{name} cannot be read: {error}.", "Write one with `lwr jobs receipt ID --json`.") from error
    try:
        return records_from_document(json.loads(text))
    except (ValueError, RecursionError, LwrError) as error:
        raise BadRequest(f"{name} is not a receipt.", "Write one with `lwr jobs receipt ID --json`.") from error


def _check(records: Iterable[FileRecord], inside: Path | None) -> Iterator[Verdict]:
    for record in records:
        place = record.path
        if inside is not None:
            if record.upward:
                continue
            place = str(inside / record.name)
        yield _verdict(record, place)


def _verdict(record: FileRecord, place: str) -> Verdict:
    by = "sha-256" if record.sha256 is not None else "size"
    try:
        status = Path(place).stat()
        if not stat.S_ISREG(status.st_mode):
            return Verdict(place, by, "is not a regular file")
        if record.size_bytes is not None and status.st_size != record.size_bytes:
            return Verdict(place, by, f"has {status.st_size} bytes instead of {record.size_bytes}")
        with open(place, "rb") as file:
            same = record.sha256 is None or hashlib.file_digest(file, "sha256").digest() == record.sha256
    except OSError as error:
        return Verdict(place, by, f"cannot be read ({error.strerror})")
    return Verdict(place, by, "" if same else "has other contents (SHA-256 differs)")


def _tell(console: Console, verdicts: list[Verdict], skipped: int) -> None:
    for each in verdicts:
        if each.trouble:
            console.print(f"[red]✗[/] {escape(plain(each.path))} {each.trouble}")
    good = sum(not each.trouble for each in verdicts)
    hashed = sum(not each.trouble and each.by == "sha-256" for each in verdicts)
    mark = "[green]✓[/]" if good == len(verdicts) and verdicts else "[red]✗[/]"
    console.print(f"{mark} {good} of {len(verdicts)} files are as the receipt says ({hashed} by their SHA-256)")
    if skipped:
        console.print(f"[dim]{skipped} more were not moved, or not whole: nothing to compare[/]")


def receipt_lines(records: Iterable[FileRecord]) -> Iterator[str]:
    """A line for each record, for people (rich markup)."""
    for record in records:
        arrow = "[blue]↑[/]" if record.upward else "[green]↓[/]"
        known = [] if record.size_bytes is None else [size(record.size_bytes)]
        known += [record.sha256.hex()[:12]] if record.sha256 else []
        known += [f"{record.checked} checked"] if record.checked else []
        known += [f"{record.tries} tries"] if record.tries > 1 else []
        known += [f"{size(record.wasted_bytes)} moved twice"] if record.wasted_bytes else []
        how = f"{record.action} by the {record.mover}" if record.mover != "nobody" else ""
        state = "" if record.state is FileState.WHOLE else f"[yellow]{record.state}[/] "
        why = f" {escape(plain(record.reason))}" if record.reason else ""
        told = ", ".join([*([how] if how else []), *known])
        yield f"{arrow} {escape(plain(record.name))}  {state}[dim]{record.kind}{', ' if told else ''}{told}[/]{why}"
