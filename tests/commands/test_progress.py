"""How a job's life looks: lines in a pipe, bars on a terminal."""

from __future__ import annotations

import io
from collections.abc import Sequence

from rich.console import Console

from lwr.client import Event, Moved, Moving, Retrying, SetUp, StageBegun, StateChanged, Submitted, Transferred
from lwr.commands.progress import Bars, view
from lwr.errors import PeerUnreachable

MB = 1_000_000


def drawn(events: Sequence[Event], *, terminal: bool) -> str:
    text = io.StringIO()
    console = Console(file=text, force_terminal=terminal, width=120, color_system=None)
    with view(console) as shown:
        assert isinstance(shown, Bars) == terminal
        for event in events:
            shown.tell(event)
        if isinstance(shown, Bars):
            console.print(shown._now())
    return text.getvalue()


def moved(name: str, size_bytes: int, *, upward: bool = True) -> Moved:
    return Moved(name, "input", upward, f"/there/{name}", Transferred(size_bytes, None, "size"))


def test_lines_in_a_pipe() -> None:
    events: list[Event] = [
        SetUp("job", "/there"),
        StageBegun(True, 1, 17),
        Moving("a", True, 5, 17),
        Retrying(PeerUnreachable("It broke."), 1.0),
        Retrying(PeerUnreachable("It broke."), 2.0),
        moved("a", 17),
        Submitted("true"),
        StateChanged("running"),
    ]
    lines = drawn(events, terminal=False).splitlines()
    assert [line.split("  ")[0] for line in lines[:3]] == ["", "! It broke. Trying again ...", "↑ a"]
    assert lines[3].startswith("● running after")
    assert len(lines) == 4


def test_bars_for_all_files_and_those_under_way() -> None:
    events: list[Event] = [
        StageBegun(True, 3, 30 * MB),
        moved("done", 10 * MB),
        Moving("large [b]", True, 5 * MB, 10 * MB),
        Moving("other", True, 1 * MB, 10 * MB),
    ]
    lines = drawn(events, terminal=True).splitlines()
    assert any("1 of 3 files" in line and "16.0/30.0 MB" in line for line in lines)
    assert any("↑ large [b]" in line and "5.0/10.0 MB" in line for line in lines)
    assert any("↑ other" in line for line in lines)


def test_sizes_that_come_to_be_known_on_the_way_down() -> None:
    begun: list[Event] = [StageBegun(False, 2, None), Moving("a", False, 1 * MB, 4 * MB)]
    assert "1.0/? MB" in drawn(begun, terminal=True)
    assert "2.0/10.0 MB" in drawn([*begun, Moving("b", False, 1 * MB, 6 * MB)], terminal=True)


def test_after_the_last_file_the_state_is_shown() -> None:
    events: list[Event] = [StageBegun(True, 1, 5), moved("a", 5), StageBegun(False, 0, None), StateChanged("queued")]
    last_frame = drawn(events, terminal=True).rpartition("\r\x1b[2K\u280b")[2]
    assert last_frame.startswith(" queued")
