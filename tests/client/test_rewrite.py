"""Where paths begin and end in commands and texts, and that what is put in means the same to the shell."""

from __future__ import annotations

import os
import shlex
import subprocess
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lwr.client.rewrite import Replacement, Rewriter, paths_in

ONE = Rewriter([Replacement("/d/1.dat", "/srv/1.dat"), Replacement("/d/set", "/srv/set", directory=True)])


@pytest.mark.parametrize(
    ("text", "there"),
    [
        ("cat /d/1.dat>/d/1.dat;/d/1.dat", "cat /srv/1.dat>/srv/1.dat;/srv/1.dat"),
        ("x -I/d/1.dat --in=/d/1.dat file:///d/1.dat", "x -I/srv/1.dat --in=/srv/1.dat file:///srv/1.dat"),
        ("PATH=/a:/d/1.dat:/b", "PATH=/a:/srv/1.dat:/b"),
        ('{"p": "/d/1.dat", "q": "a\\n/d/1.dat\\n"}', '{"p": "/srv/1.dat", "q": "a\\n/srv/1.dat\\n"}'),
        ('echo "\\"/d/1.dat\\""', 'echo "\\"/srv/1.dat\\""'),
        ("See /d/1.dat.", "See /srv/1.dat."),
        ("/d/1.dat\\\n -x", "/srv/1.dat\\\n -x"),
        ("ls /d/set /d/set/a/b '/d/set'/*", "ls /srv/set /srv/set/a/b '/srv/set'/*"),
    ],
)
def test_a_path_is_found_as_a_word(text: str, there: str) -> None:
    assert ONE.shell(text) == ONE.plain(text) == there
    assert ONE.mentioned(text) <= {"/d/1.dat", "/d/set"}


@pytest.mark.parametrize(
    "text",
    [
        "/d/1.dat.idx /d/1.dat2 /d/1.data /d/1.dat/x /d/1.dat~ /d/1.dat-2 /d/1.dat\\ 2 /d/1.dat..",
        "/x/d/1.dat ./d/1.dat ../d/1.dat ${X}/d/1.dat ~/d/1.dat http://h/d/1.dat --long/d/1.dat",
        "/d/settings /d/set.old /d/set-2",
        "",
    ],
)
def test_what_only_looks_alike_stays(text: str) -> None:
    assert ONE.shell(text) == ONE.plain(text) == text
    assert ONE.mentioned(text) == set()


def test_a_variable_is_no_path() -> None:
    rewriter = Rewriter([Replacement("data", "/srv/data"), Replacement("x", "/srv/x")])
    assert rewriter.shell("$data ${data} ${x}_1 {data,x}") == "$data ${data} ${x}_1 {/srv/data,/srv/x}"


@pytest.mark.parametrize("order", [1, -1])
def test_the_longest_wins_and_nothing_is_replaced_twice(order: int) -> None:
    pairs = [Replacement("/d/1.dat", "/d/2.dat"), Replacement("/d/1.dat x", "/3"), Replacement("/d/2.dat", "/4")]
    assert Rewriter(pairs[::order]).plain("/d/1.dat /d/1.dat x /d/2.dat") == "/d/2.dat /3 /4"


def test_the_first_of_two_for_one_path_counts() -> None:
    assert Rewriter([Replacement("/a", "/1"), Replacement("/a", "/2"), Replacement("", "/3")]).plain("/a") == "/1"


HOSTILE = '/srv/it\'s "$HOME" `x` \\ ü.fa'


@pytest.mark.parametrize("form", ["/d/a b", "/d/a\\ b", "'/d/a b'", '"/d/a b"', "'x'/d/a\\ b", "x='/d/a b'"])
def test_blanks_and_hostile_characters_on_both_sides(form: str) -> None:
    """The shell itself is asked what it understands."""
    text = Rewriter([Replacement("/d/a b", HOSTILE)]).shell(f"printf '%s|' {form}")
    shown = subprocess.run(["sh", "-c", text], capture_output=True, text=True, check=True).stdout
    assert shown.endswith(f"{HOSTILE}|")


def test_quotes_are_followed_through_a_long_command() -> None:
    rewriter = Rewriter([Replacement("/a", "/r b")])
    assert (
        rewriter.shell("'/a' \"/a\" /a it\\'s /a \"don't\" /a")
        == "'/r b' \"/r b\" '/r b' it\\'s '/r b' \"don't\" '/r b'"
    )


def test_a_server_on_windows() -> None:
    rewriter = Rewriter(
        [
            Replacement("/d/1.dat", "C:\\srv\\my jobs\\1.dat"),
            Replacement("/d/2.dat", "C:\\srv\\2.dat"),
            Replacement("/d/set", "C:\\srv\\set", directory=True),
        ],
        separator="\\",
    )
    assert rewriter.shell('x /d/1.dat "/d/1.dat" /d/2.dat /d/set/a/b,/d/set') == (
        'x "C:\\srv\\my jobs\\1.dat" "C:\\srv\\my jobs\\1.dat" C:\\srv\\2.dat C:\\srv\\set\\a\\b,C:\\srv\\set'
    )
    assert rewriter.plain("in=/d/2.dat") == "in=C:\\srv\\2.dat"


def test_a_client_on_windows() -> None:
    rewriter = Rewriter([Replacement("C:\\d\\a", "/srv/a"), Replacement("C:\\d\\s", "/srv/s", directory=True)])
    assert rewriter.plain("C:\\d\\a C:\\d\\a\\new C:\\d\\a.txt C:\\d\\s\\x") == (
        "/srv/a C:\\d\\a\\new C:\\d\\a.txt /srv/s\\x"
    )


PATH = st.lists(st.text('ab ü"$`\\;&|*', min_size=1, max_size=4), min_size=1, max_size=3).map(
    lambda p: "/" + "/".join(p)
)


@given(st.lists(PATH, min_size=1, max_size=4, unique=True))
def test_quoted_words_are_replaced_one_by_one(paths: list[str]) -> None:
    rewriter = Rewriter(Replacement(path, f"/remote/{number}") for number, path in enumerate(paths))
    words = shlex.split(rewriter.shell(shlex.join(paths)))
    assert words == [f"/remote/{number}" for number in range(len(paths))]


def test_ten_thousand_files_are_replaced_by_their_lengths() -> None:
    """Each path is sought once where a path begins, and not each of all paths at each place."""
    paths = [f"/data/store/{number % 100:03}/dataset_{number:06}.dat" for number in range(10_000)]
    rewriter = Rewriter(Replacement(path, f"/r{path}") for path in paths)
    assert rewriter.shell(" ".join(paths)) == " ".join(f"/r{path}" for path in paths)


def nothing(_: str) -> bool:
    return False


def these(*paths: str) -> Callable[[str], bool]:
    return paths.__contains__


@pytest.mark.parametrize(
    ("text", "exists", "found"),
    [
        ("cat /i/a.fa,/i/b.fa \"/i/c d\" '/i/e'", nothing, ["/i/a.fa", "/i/b.fa", "/i/c", "/i/e"]),
        ("cat \"/i/c d\" '/i/e f'", these("/i/c d"), ["/i/c d", "/i/e"]),
        ("cat </i/a;ls /i/b&&x $(cat /i/c)`cat /i/d`|y", nothing, ["/i/a", "/i/b", "/i/c", "/i/d"]),
        ("cat /i/a;b", these("/i/a;b"), ["/i/a;b"]),
        ("I=/i/a:/i/b -I/i/c file:///i/d http://h/i/e", nothing, ["/i/a", "/i/b", "/i/c", "/i/d"]),
        ('<p>/i/a<br/> {"x": "/i/b\\n"} See /i/c.', nothing, ["/i/a", "/i/b", "/i/c"]),
        ("x ./i/a i/b ${X}/i/c ~/i/d / // 1/2", nothing, []),
        ("C:\\i\\a.fa;D:/x", nothing, ["C:\\i\\a.fa", "D:/x"]),
        ("'/i/a", nothing, ["/i/a"]),
    ],
)
def test_absolute_paths_in_texts(text: str, exists: Callable[[str], bool], found: list[str]) -> None:
    assert list(paths_in(text, exists)) == found


@given(st.text("/ab '\".:;\\-C", max_size=40))
def test_seeking_paths_always_ends(text: str) -> None:
    for path in paths_in(text, nothing):
        assert path in text
        assert os.path.isabs(path) or path[1] == ":"


def test_a_quote_is_a_part_of_the_name_only_where_it_can_be() -> None:
    rewriter = Rewriter([Replacement("/d/it's", "/r"), Replacement("/d/", "/x")])
    assert rewriter.shell("x \"/d/it's\" /d/it\\'s '/d/it's'") == "x \"/r\" /r '/d/it's'"
    # As programs put it into quotes.
    assert rewriter.shell("""'/d/it'"'"'s' '/d/it'\\''s'; '/d/it'"s" """) == """'/r' '/r'; '/d/it'"s" """
