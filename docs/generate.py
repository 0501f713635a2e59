"""Writes the files that are made from the sources, or checks that they are up to date.

The configuration reference and the sample files come from the table of options, `states.svg` from the table of
transitions. They are kept in the repository, so that they can be read there. `--check` writes nothing and exits with
1 when one is out of date.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from samples import SAMPLES, reference_markdown

from lwr.core.job import TERMINAL, TRANSITIONS, JobState

ROOT = Path(__file__).resolve().parents[1]

# All in pixels.
BOX_WIDTH, BOX_HEIGHT = 128, 36
COLUMN = 152
MARGIN = 16
CHAIN_TOP = 70
LANE_TOP, LANE_GAP = 150, 52

STYLE = """\
<style>
  text { font: 14px system-ui, sans-serif; text-anchor: middle; fill: #1d2733 }
  rect.live { fill: #e7f0fa; stroke: #3d6fa5 } rect.complete { fill: #e4f3e6; stroke: #3b8049 }
  rect.ended { fill: #f9e9e4; stroke: #b0553b }
  path { fill: none; stroke: #5a6775; stroke-width: 1.4 } path.way { marker-end: url(#tip) } circle { fill: #5a6775 }
</style>
<defs><marker id="tip" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="8" markerHeight="8" orient="auto">
  <path d="M0 0L8 4L0 8z" style="fill:#5a6775;stroke:none"/></marker></defs>"""


def states_svg() -> str:
    """The law of states as a picture: the way of a job as a row, and below it a lane for each other end.

    A live state's line comes down to the lanes; a dot says that it may end there.
    """
    chain = [state for state in TRANSITIONS if state not in TERMINAL] + [JobState.COMPLETE]
    lanes = [state for state in TRANSITIONS if state not in chain]
    width = 2 * MARGIN + COLUMN * len(chain) - (COLUMN - BOX_WIDTH)
    height = LANE_TOP + LANE_GAP * len(lanes)
    parts = [f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}">', STYLE]
    parts.append(f'<rect width="{width}" height="{height}" rx="8" fill="#fff"/>')
    parts += _ways_along(chain)
    parts += _ways_down(chain, lanes)
    parts += [_box(state, MARGIN + COLUMN * at, CHAIN_TOP) for at, state in enumerate(chain)]
    parts += [_box(state, MARGIN + COLUMN * (len(chain) - 1), _lane(at)) for at, state in enumerate(lanes)]
    return "\n".join([*parts, "</svg>", ""])


def _lane(at: int) -> int:
    return LANE_TOP + LANE_GAP * at - BOX_HEIGHT // 2


def _box(state: JobState, left: int, top: int) -> str:
    kind = "complete" if state is JobState.COMPLETE else "ended" if state in TERMINAL else "live"
    frame = f'<rect class="{kind}" x="{left}" y="{top}" width="{BOX_WIDTH}" height="{BOX_HEIGHT}" rx="6"/>'
    return f'{frame}<text x="{left + BOX_WIDTH // 2}" y="{top + BOX_HEIGHT // 2 + 5}">{state}</text>'


def _ways_along(chain: list[JobState]) -> Iterator[str]:
    """Straight to the next state; an arc above the row for a jump or a way back."""
    for at, state in enumerate(chain):
        for to in sorted(chain.index(onward) for onward in TRANSITIONS[state] if onward in chain):
            if to == at + 1:
                left = MARGIN + COLUMN * at + BOX_WIDTH
                yield f'<path class="way" d="M{left} {CHAIN_TOP + BOX_HEIGHT // 2}H{left + COLUMN - BOX_WIDTH}"/>'
                continue
            # Ways back end right of a box's middle and jumps start left of it, so that the two do not touch.
            start, end = (MARGIN + COLUMN * column + BOX_WIDTH // 2 for column in (at, to))
            start, end = (start, end + 24) if to < at else (start - 24, end)
            rise = CHAIN_TOP - 22 * abs(to - at) - 4
            yield f'<path class="way" d="M{start} {CHAIN_TOP}C{start} {rise} {end} {rise} {end} {CHAIN_TOP}"/>'


def _ways_down(chain: list[JobState], lanes: list[JobState]) -> Iterator[str]:
    """A lane to each end that is not COMPLETE, and dots where a state's line joins it."""
    right = MARGIN + COLUMN * (len(chain) - 1)
    for number, lane in enumerate(lanes):
        middle = _lane(number) + BOX_HEIGHT // 2
        joined = [at for at, state in enumerate(chain) if lane in TRANSITIONS[state]]
        start = MARGIN + COLUMN * joined[0] + BOX_WIDTH // 2
        yield f'<path class="way" d="M{start} {middle}H{right}"/>'
        for at in joined:
            yield f'<circle cx="{MARGIN + COLUMN * at + BOX_WIDTH // 2}" cy="{middle}" r="4"/>'
    for at, state in enumerate(chain):
        ends = [number for number, lane in enumerate(lanes) if lane in TRANSITIONS[state]]
        if ends:
            middle = MARGIN + COLUMN * at + BOX_WIDTH // 2
            yield f'<path d="M{middle} {CHAIN_TOP + BOX_HEIGHT}V{_lane(ends[-1]) + BOX_HEIGHT // 2}"/>'


def pages() -> dict[Path, str]:
    made = {**SAMPLES, "docs/configuration.md": reference_markdown, "docs/states.svg": states_svg}
    return {ROOT / name: text() for name, text in made.items()}


def main(arguments: list[str]) -> int:
    stale = [path for path, text in pages().items() if not path.exists() or path.read_text("utf-8") != text]
    if "--check" in arguments:
        for path in stale:
            print(f"{path.relative_to(ROOT)} is out of date: `make generate` writes it anew.", file=sys.stderr)
        return 1 if stale else 0
    for path in stale:
        path.write_text(pages()[path], "utf-8")
        print(f"wrote {path.relative_to(ROOT)}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
