"""What was recorded of Galaxy, LWR 2014 and Pulsar, read from `tests/captures` for comparison and replay."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

CAPTURES = Path(__file__).parent / "captures"


@dataclass
class Exchange:
    """A recorded request and its answer."""

    method: str
    path: str
    query: dict[str, str] = field(default_factory=dict)
    body: str | None = None
    status: int = 0
    answer: str = ""

    def uploaded(self) -> str:
        """The file in the form that this request sent; the capture has no blank lines in it."""
        content = re.search(r"(?s)Content-Type: [^\n]*\n(.*?)\n?--------<boundary>--", self.body or "")
        assert content, self.body
        return content[1]


def read(capture: str, section: str = "") -> Iterator[Exchange]:
    """The exchanges of a capture, or of its section whose name ends like this."""
    text = (CAPTURES / capture).read_text()
    if section:
        text = re.split(rf"(?m)^#{{5,}} \S*{section}$", text)[1].partition("\n##########")[0] + "\n"
    for block in re.split(r"(?m)^#\d+ +\+[\d.]+s +", text)[1:]:
        method, path = block.split(maxsplit=2)[:2]
        exchange = Exchange(method, path)
        for mark, line in re.findall(r"(?ms)^      ([?<>]) (.*?)(?=^      [?<>] |\Z)", block):
            body = re.match(r"(?s)body\((\d+)\): (.*)", line)
            # The last line's end belongs to a body that is longer than what stands before it.
            content = body[2][: max(int(body[1]), len(body[2]) - 1)] if body else ""
            if mark == "?":
                key, _, value = line.rstrip("\n").partition(" = ")
                exchange.query[key] = value
            elif mark == ">" and body:
                exchange.body = content
            elif mark == "<" and body:
                exchange.answer = content
            elif mark == "<":
                exchange.status = int(line.split()[0])
        yield exchange


@dataclass
class Published:
    """A recorded message, and the queue that it was meant for."""

    queue: str
    body: dict[str, Any]


def messages(capture: str, section: str) -> list[Published]:
    """What was published in a section of a capture, by either side, in order."""
    text = re.split(rf"(?m)^#{{5,}} {section}$", (CAPTURES / capture).read_text())[1].partition("\n##########")[0]
    found = re.finditer(r"(?m)^\+[\d.]+s publish\.\S+ +exchange='pulsar' routing_keys=\['(\S+)'\]\n.*\n", text)
    return [Published(each[1], json.JSONDecoder().raw_decode(text, each.end())[0]) for each in found]


def message(capture: str, section: str) -> dict[str, Any]:
    """The first message that was published in a section of a capture."""
    return messages(capture, section)[0].body
