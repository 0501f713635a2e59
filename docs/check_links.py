"""Finds what the documentation points at and is not there: files, headings, `make` targets.

Looks at every Markdown file of the project's root, docs/ and benchmarks/. Addresses of other sites are not followed.
Exits with 1 and a line for each dangling pointer.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

LINK = re.compile(r"\[[^\]]*\]\(<?([^)\s>]+)>?\)|^\[[^\]]+\]:\s*(\S+)", re.MULTILINE)
FENCED = re.compile(r"^(```+|~~~+).*?^\1", re.MULTILINE | re.DOTALL)
CODE = re.compile(r"`([^`\n]+)`")
HEADING = re.compile(r"^#+\s+(.*?)\s*$", re.MULTILINE)
#: A path of this repository that is named in running text, and perhaps a test in it.
NAMED_PATH = re.compile(r"^((?:src|tests|docs|benchmarks|demo|\.ci)/[\w./-]+)(?:::(\w+))?$")
TARGET = re.compile(r"^([a-z-]+):.*##", re.MULTILINE)


def pages() -> list[Path]:
    return sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "benchmarks").glob("*.md")])


def anchors(page: Path) -> set[str]:
    """The anchors that the page's headings get, from GitHub and from MyST alike."""
    headings = HEADING.findall(FENCED.sub("", page.read_text("utf-8")))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def dangling(page: Path, targets: set[str]) -> Iterator[str]:
    """A sentence for each pointer in `page` that points at nothing."""
    text = FENCED.sub("", page.read_text("utf-8"))
    for match in LINK.finditer(text):
        link = match[1] or match[2]
        if re.match(r"[a-z]+:", link):
            continue
        file, _, anchor = link.partition("#")
        aim = (page.parent / file).resolve() if file else page
        if not aim.exists():
            yield f"{link} is not there"
        elif anchor and anchor not in anchors(aim):
            yield f"{link}: {aim.name} has no such heading"
    for code in CODE.findall(text):
        named = NAMED_PATH.match(code)
        if named and not (ROOT / named[1]).exists():
            yield f"`{code}` is not there"
        elif named and named[2] and named[2] not in (ROOT / named[1]).read_text("utf-8"):
            yield f"`{code}`: there is no such test"
        if code.startswith("make ") and code.split()[1] not in targets:
            yield f"`{code}`: the Makefile has no such target"


def main() -> int:
    targets = set(TARGET.findall((ROOT / "Makefile").read_text("utf-8")))
    wrong = [f"{page.relative_to(ROOT)}: {what}" for page in pages() for what in dangling(page, targets)]
    print("\n".join(wrong) if wrong else f"{len(pages())} pages, all links lead somewhere")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
