"""Names that clients send: none leaves its place, and every right one keeps its meaning."""

from __future__ import annotations

from pathlib import PurePosixPath, PureWindowsPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lwr.core.places import (
    EXIT_FILE,
    PART_PREFIX,
    SCRIPT,
    SERVER_OWNED,
    SETUP_AREAS,
    START_MARKER,
    STDERR,
    STDOUT,
    WINDOWS_SCRIPT,
    Area,
    JobLayout,
    is_windows_device,
    resolve,
)
from lwr.errors import BadName

#: Pieces that attacks are made of, mixed with any text.
_PIECES = st.sampled_from(
    ["..", ".", "", "/", "\\", "a", "C:", "NUL", "con.txt", "~", "-rf", " ", "x.", "\0", "é", "￾"]
)
HOSTILE = st.one_of(st.text(max_size=40), st.lists(_PIECES, max_size=8).map("/".join), st.lists(_PIECES).map("".join))


class TestResolve:
    @pytest.mark.parametrize(
        ("area", "name", "components"),
        [
            (Area.INPUTS, "reads.fq", ("inputs", "reads.fq")),
            (Area.INPUTS, "dataset_1_files/a//b/./c", ("inputs", "dataset_1_files", "a", "b", "c")),
            (Area.OUTPUTS, "-rf", ("outputs", "-rf")),
            (Area.OUTPUTS, "~", ("outputs", "~")),
            (Area.OUTPUTS, "...", ("outputs", "...")),
            (Area.OUTPUTS, "a b 'c' \"d\".é", ("outputs", "a b 'c' \"d\".é")),
            (Area.OUTPUTS, "%2e%2e", ("outputs", "%2e%2e")),
            (Area.OUTPUTS, "..;", ("outputs", "..;")),
            (Area.WORKING, "n" * 255, ("working", "n" * 255)),
            (Area.JOB, "tool_script.sh", ("tool_script.sh",)),
            (Area.JOB, "sub/stdout", ("sub", "stdout")),
        ],
    )
    def test_right_names(self, area: Area, name: str, components: tuple[str, ...]) -> None:
        assert resolve(area, name) == components

    def test_flat_kinds_keep_the_last_component(self) -> None:
        assert resolve(Area.CONFIGS, "a/b/c", nested=False) == ("configs", "c")
        with pytest.raises(BadName):
            resolve(Area.CONFIGS, "../c", nested=False)

    @pytest.mark.parametrize(
        "name",
        [
            *[
                "",
                " ",
                "/",
                ".",
                "./.",
                "..",
                "../x",
                "a/../b",
                "a/..",
                "/etc/passwd",
                "//host/share",
                "\\\\host\\share",
            ],
            *["a\\..\\b", "a\\b", "\\\\?\\C:\\x", "a\0b", "a\nb", "a\x1b[31mb", "a\x7fb", "a\udcffb"],
            *["n" * 256, "é" * 128, "/".join("d" * 101), "/".join(["d" * 200] * 20)],
        ],
    )
    @pytest.mark.parametrize("windows", [False, True])
    @pytest.mark.parametrize("area", [Area.INPUTS, Area.JOB])
    def test_wrong_names(self, name: str, windows: bool, area: Area) -> None:
        if windows and name == "a\\b":
            assert resolve(area, name, windows=True)[-2:] == ("a", "b")
            return
        with pytest.raises(BadName) as raised:
            resolve(area, name, windows=windows)
        assert raised.value.message.isprintable()

    @pytest.mark.parametrize(
        "name", ["C:x", "C:\\x", "a:stream", "a.", "a ", "d. /x", "NUL", "sub/com1.txt", "COM¹", "conin$", "a?", "a|b"]
    )
    def test_names_that_only_windows_cannot_keep(self, name: str) -> None:
        with pytest.raises(BadName):
            resolve(Area.OUTPUTS, name, windows=True)
        if "\\" not in name:
            assert resolve(Area.OUTPUTS, name) == ("outputs", *name.split("/"))

    @pytest.mark.parametrize(
        "name",
        [
            *[
                SCRIPT,
                WINDOWS_SCRIPT,
                EXIT_FILE,
                EXIT_FILE + ".part",
                START_MARKER,
                STDOUT,
                STDERR,
                PART_PREFIX,
                "home",
                "tmp",
            ],
            *["inputs/x", "outputs", ".part-x", "./stdout", "STDOUT", "Return_Code", "Inputs/../x"],
        ],
    )
    def test_what_the_server_owns_in_the_job_directory(self, name: str) -> None:
        with pytest.raises(BadName):
            resolve(Area.JOB, name)

    def test_every_place_of_the_layout_is_owned(self) -> None:
        for windows in (False, True):
            layout = JobLayout("C:\\jobs\\1" if windows else "/jobs/1", windows)
            paths = [layout.script, layout.exit_file, layout.start_marker, layout.stdout, layout.stderr]
            paths += [layout.area(area) for area in Area if area.value]
            assert {path.rpartition(layout.separator)[2] for path in paths} <= SERVER_OWNED

    @given(area=st.sampled_from(Area), name=HOSTILE, nested=st.booleans(), windows=st.booleans())
    def test_nothing_leaves_its_area(self, area: Area, name: str, nested: bool, windows: bool) -> None:
        try:
            components = resolve(area, name, nested=nested, windows=windows)
        except BadName:
            return
        flavour, root = (PureWindowsPath, "C:\\jobs\\1") if windows else (PurePosixPath, "/jobs/1")
        below = flavour(JobLayout(root, windows).path(*components)).relative_to(flavour(root))
        # Joining keeps each component whole: none is a root, a drive, a separator or a step upwards.
        assert below.parts == components
        assert ".." not in components
        assert not any("/" in part or (windows and ("\\" in part or ":" in part)) for part in components)
        assert components[0] == area.value or area is Area.JOB
        assert len(components) > bool(area.value)
        assert nested or len(components) == 1 + bool(area.value)

    @given(area=st.sampled_from(Area), name=HOSTILE, windows=st.booleans())
    def test_what_was_resolved_resolves_to_itself(self, area: Area, name: str, windows: bool) -> None:
        try:
            components = resolve(area, name, windows=windows)
        except BadName:
            return
        inner = components[1:] if area.value else components
        assert resolve(area, "/".join(inner), windows=windows) == components


class TestLayout:
    def test_posix(self) -> None:
        layout = JobLayout("/staging/7")
        assert layout.area(Area.WORKING) == "/staging/7/working"
        assert layout.area(Area.JOB) == "/staging/7"
        assert layout.script == "/staging/7/command.sh"
        assert layout.path("a", "b") == "/staging/7/a/b"

    def test_windows_on_any_machine(self) -> None:
        layout = JobLayout("D:\\staging\\7", windows=True)
        assert layout.area(Area.TOOL_FILES) == "D:\\staging\\7\\tool_files"
        assert layout.script == "D:\\staging\\7\\command.cmd"
        assert layout.separator == "\\"

    def test_set_up_makes_all_areas_but_the_late_one(self) -> None:
        assert set(SETUP_AREAS) == set(Area) - {Area.JOB, Area.UNSTRUCTURED}


class TestWindowsDevices:
    @pytest.mark.parametrize("name", ["con", "NUL", "Aux.h", "com1", "LPT9.txt", "prn .x", "com²", "nul.tar.gz"])
    def test_devices(self, name: str) -> None:
        assert is_windows_device(name)

    @pytest.mark.parametrize("name", ["cone", "com", "com10", "xnul", "nul_", "null.txt", ".nul"])
    def test_others(self, name: str) -> None:
        assert not is_windows_device(name)
