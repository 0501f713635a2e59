"""What was recorded between Galaxy, its runners and Pulsar, read from `tests/captures` for comparison and replay."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

CAPTURES = Path(__file__).parent / "captures"


@dataclass
class Recorded:
    """A request and what of its answer matters. Bodies are as long as they were, but for what the capture left out."""

    method: str
    path: str
    query: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    answer: bytes = b""

    def uploaded(self) -> bytes:
        """The file in the form that this request sent; the capture has no blank lines in it."""
        content = re.search(rb"(?s)Content-Type: [^\n]*\n(.*?)\n?--------<boundary>--", self.body)
        assert content, self.body
        return content[1]


def requests(capture: str, section: str = "") -> Iterator[Recorded]:
    """The requests of a capture, or of its section whose name ends like this."""
    text = (CAPTURES / capture).read_text()
    if section:
        text = re.split(rf"(?m)^#{{5,}} \S*{section}$", text)[1].partition("\n##########")[0]
    for block in re.split(r"(?m)^#\d+ +\+[\d.]+s +", text)[1:]:
        method, path = block.split(maxsplit=2)[:2]
        request = Recorded(method, path)
        for mark, line in re.findall(r"(?ms)^      ([?<>]) (.*?)(?=^      [?<>] |\Z)", block):
            body = re.match(r"(?s)body\((\d+)\): (.*)", line)
            content = body[2].encode()[: int(body[1])] if body else b""
            if mark == "?":
                key, _, value = line.rstrip("\n").partition(" = ")
                request.query[key] = value
            elif mark == ">":
                request.body += content
            else:
                request.answer += content
        yield request


def message(capture: str, section: str) -> dict[str, Any]:
    """The first message that was published in a section of a capture."""
    text = re.split(rf"(?m)^#{{5,}} {section}$", (CAPTURES / capture).read_text())[1]
    content: dict[str, Any] = json.JSONDecoder().raw_decode(text[text.index("\n{\n") + 1 :])[0]
    return content
