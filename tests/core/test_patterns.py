"""What prefixes and globs take, against Python's own fnmatch."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from lwr.core.patterns import glob_expression, prefix_expression, rest_by_component, rest_by_text

PATHS = st.text("ab/.[]-!^\\*\n", max_size=12)


def taken(expression: str, path: str) -> bool:
    return re.match(expression, path) is not None


class TestPrefixes:
    @pytest.mark.parametrize(
        ("prefix", "inside", "outside"),
        [
            (
                "/store/1",
                ["/store/1", "/store/1/x", "/store/1/a\nb"],
                ["/store/10", "/store/1\n", "/store", "x/store/1"],
            ),
            ("/", ["/", "/x"], ["x"]),
            ("/a.b", ["/a.b/c"], ["/axb/c"]),
        ],
    )
    def test_whole_components_count(self, prefix: str, inside: list[str], outside: list[str]) -> None:
        expression = prefix_expression(prefix, windows=False)
        assert [path for path in [*inside, *outside] if taken(expression, path)] == inside

    @given(st.lists(st.sampled_from(["a", "b", "ab", "."]), max_size=4), st.lists(st.sampled_from(["a", "b", "ab"])))
    def test_the_same_as_comparing_lists_of_names(self, prefix: list[str], path: list[str]) -> None:
        found = taken(prefix_expression("/" + "/".join(prefix), windows=False), "/" + "/".join(path))
        assert found == (path[: len(prefix)] == prefix)

    def test_windows_paths(self) -> None:
        expression = prefix_expression("C:\\Data", windows=True)
        assert taken(expression, "c:/data/x")
        assert taken(expression, "C:\\DATA\\x")
        assert not taken(expression, "C:\\Data2\\x")


class TestGlobs:
    @given(st.text("ab/.*?[]-!^\\", max_size=10), PATHS)
    def test_without_a_double_star_they_are_fnmatch(self, glob: str, path: str) -> None:
        assume("**/" not in glob and "--" not in glob)  # of two dashes in a set Python says that they may change
        expression = glob_expression(glob, windows=False)
        try:
            re.compile(expression)
        except re.error:
            assume(False)
        assert taken(expression, path) == fnmatchcase(path, glob)

    @pytest.mark.parametrize(
        ("glob", "path", "does"),
        [
            ("/m/**/b/**/*.fa", "/m/b/x.fa", True),
            ("/m/**/b/**/*.fa", "/m/x/y/b/z/x.fa", True),
            ("/m/**/b/**/*.fa", "/m/xb/x.fa", False),
            ("/m/**/b/**/*.fa", "/m/b/x.fa.fai", False),
            ("**/x", "x", True),
            ("/a**/x", "/a/x", True),
            ("/a**/x", "/ax", False),
            ("/*.FA", "/x.fa", False),
        ],
    )
    def test_a_double_star_may_be_nothing(self, glob: str, path: str, does: bool) -> None:
        assert taken(glob_expression(glob, windows=False), path) is does

    def test_windows_paths(self) -> None:
        expression = glob_expression("C:\\m\\**\\*.fa", windows=True)
        assert taken(expression, "c:\\M\\x.FA")
        assert taken(expression, "c:/m/n/x.fa")


class TestRests:
    @pytest.mark.parametrize(
        ("path", "directory", "by_component", "by_text"),
        [
            ("/data/x/y", "/data", "/x/y", "/x/y"),
            ("/data/x/y", "/data/", "/x/y", "/x/y"),
            ("/data", "/data", "", ""),
            ("/database/x", "/data", None, "base/x"),
            ("/other", "/data", None, None),
            ("/x", "/", "/x", "/x"),
        ],
    )
    def test_below(self, path: str, directory: str, by_component: str | None, by_text: str | None) -> None:
        assert rest_by_component(path, directory, windows=False) == by_component
        assert rest_by_text(path, directory, windows=False) == by_text

    def test_windows_paths(self) -> None:
        assert rest_by_component("C:\\Data\\x\\y", "c:/data/", windows=True) == "/x/y"
        assert rest_by_component("C:\\Data2\\x", "c:\\data", windows=True) is None
