"""Where files go on the server, and how the command finds them there."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lwr.client.places import RemotePlaces
from lwr.client.plan import SENT_KINDS, JobRequest, LocalFile, Word, command_line, plan
from lwr.core.staging import Mover
from lwr.errors import BadName, BadRequest

DIRECTORIES = {"input": "inputs", "config": "configs", "tool": "tool_files", "output": "outputs", "workdir": "working"}
PLACES = RemotePlaces("j", "/", {kind: f"/srv/j/{name}" for kind, name in DIRECTORIES.items()})


def sent(*files: LocalFile) -> dict[str, str]:
    """Remote name by local path."""
    staging = plan(JobRequest("true", files)).staging
    assert {step.action.mover for step in staging.inputs} <= {Mover.CLIENT}
    return {step.action.path: f"{step.kind}:{step.name}" for step in staging.inputs}


def rewritten(command: str | tuple[str, ...], request: JobRequest) -> str:
    return command_line(command, plan(request).words, PLACES)


@pytest.mark.parametrize("kind", SENT_KINDS)
def test_every_kind_goes_to_its_area(kind: str) -> None:
    wire_kind, _ = SENT_KINDS[kind]
    assert sent(LocalFile(kind, "d/a.txt")) == {"d/a.txt": f"{wire_kind}:a.txt"}


def test_an_index_stays_beside_its_file() -> None:
    files = sent(
        LocalFile("input", "x/genome.fa"),
        LocalFile("extra", "x/genome.fa.fai"),
        LocalFile("extra", "x/genome_files/a/b"),
    )
    assert list(files.values()) == ["input:genome.fa", "input:genome.fa.fai", "input:genome_files/a/b"]


def test_equal_names_of_different_directories_do_not_collide() -> None:
    files = sent(
        LocalFile("input", "one/reads.fa"),
        LocalFile("extra", "one/reads.fa.fai"),
        LocalFile("input", "two/READS.fa"),
        LocalFile("extra", "two/READS.fa.fai"),
    )
    assert files["one/reads.fa"] == "input:reads.fa"
    assert files["two/READS.fa"] == "input:2/READS.fa"
    assert files["two/READS.fa.fai"] == "input:2/READS.fa.fai"


def test_equal_names_do_not_collide_where_there_are_no_directories() -> None:
    files = sent(LocalFile("config", "a/x.ini"), LocalFile("config", "b/x.ini"), LocalFile("config", "c/x.ini"))
    assert list(files.values()) == ["config:x.ini", "config:2_x.ini", "config:3_x.ini"]


@given(
    st.lists(st.tuples(st.sampled_from("abAB2"), st.sampled_from(["x", "X", "2", "2/x", "y"])), max_size=8, unique=True)
)
def test_no_two_files_ever_share_a_remote_name(paths: list[tuple[str, str]]) -> None:
    files = [LocalFile("input", f"{directory}/{name}") for directory, name in paths]
    names = list(sent(*files).values())
    assert len(set(names)) == len(paths)
    assert not any(other.startswith(name + "/") for name in names for other in names)


def test_a_directory_is_sent_with_its_members_and_is_one_word() -> None:
    request = JobRequest("true", (LocalFile("input", "data/set/", ("a", "sub/b")),))
    steps = plan(request).staging.inputs
    assert [(step.name, step.action.path) for step in steps] == [
        ("set/a", "data/set/a"),
        ("set/sub/b", "data/set/sub/b"),
    ]
    assert rewritten("ls data/set data/set/sub/b", request) == "ls /srv/j/inputs/set /srv/j/inputs/set/sub/b"


def test_outputs_lie_flat_there_and_where_they_belong_here() -> None:
    request = JobRequest("true", outputs=("a/n.txt", "b/n.txt"), workdir_outputs=("c/d.txt",), output_dir=Path("out"))
    assert [(step.kind, step.name, step.action.path) for step in plan(request).staging.outputs] == [
        ("output", "n.txt", "out/a/n.txt"),
        ("output", "2_n.txt", "out/b/n.txt"),
        ("output_workdir", "c/d.txt", "out/c/d.txt"),
    ]
    assert rewritten("x a/n.txt b/n.txt", request) == "x /srv/j/outputs/n.txt /srv/j/outputs/2_n.txt"


@pytest.mark.parametrize("name", ["../x", "/etc/x", "a/../../x", "a\nb"])
def test_a_working_directory_output_cannot_be_elsewhere(name: str) -> None:
    with pytest.raises(BadName):
        plan(JobRequest("true", workdir_outputs=(name,)))


def test_a_path_is_one_thing_only() -> None:
    with pytest.raises(BadRequest, match="twice"):
        plan(JobRequest("true", (LocalFile("input", "./a.txt"),), outputs=("a.txt",)))


def test_an_unknown_kind_is_refused() -> None:
    with pytest.raises(BadRequest, match="nonsense"):
        plan(JobRequest("true", (LocalFile("nonsense", "a"),)))


INPUT = JobRequest("", (LocalFile("input", "d/a.fa"),), outputs=("o.txt",))


@pytest.mark.parametrize(
    ("typed", "there"),
    [
        ("sort d/a.fa > o.txt", "sort /srv/j/inputs/a.fa > /srv/j/outputs/o.txt"),
        ("sort ./d/a.fa>./o.txt", "sort /srv/j/inputs/a.fa>/srv/j/outputs/o.txt"),
        ("x --in=d/a.fa,d/a.fa:2", "x --in=/srv/j/inputs/a.fa,/srv/j/inputs/a.fa:2"),
        ("x @d/a.fa", "x @/srv/j/inputs/a.fa"),
        ("x 'd/a.fa' \"d/a.fa\"", "x '/srv/j/inputs/a.fa' \"/srv/j/inputs/a.fa\""),
        (
            "x d/a.fa.gz xd/a.fa ../d/a.fa d/a.fasta e/o.txt o.txt2",
            "x d/a.fa.gz xd/a.fa ../d/a.fa d/a.fasta e/o.txt o.txt2",
        ),
        ("(cat<d/a.fa;true)&&cat o.txt|wc", "(cat</srv/j/inputs/a.fa;true)&&cat /srv/j/outputs/o.txt|wc"),
    ],
)
def test_paths_are_replaced_as_whole_words(typed: str, there: str) -> None:
    assert rewritten(typed, INPUT) == there


def test_the_longest_path_wins() -> None:
    request = JobRequest("", (LocalFile("input", "a.fa"), LocalFile("config", "a.fa b.fa")))
    assert rewritten(("x", "a.fa b.fa", "a.fa"), request) == "x '/srv/j/configs/a.fa b.fa' /srv/j/inputs/a.fa"


def test_what_was_put_in_is_not_replaced_again() -> None:
    request = JobRequest("", (LocalFile("input", "srv"), LocalFile("input", "inputs")))
    assert rewritten("cat srv inputs", request) == "cat /srv/j/inputs/srv /srv/j/inputs/inputs"


HOSTILE = 'it\'s "$HOME" `x` \\ ü.fa'


@pytest.mark.parametrize("form", ["{bare}", "'{single}'", '"{double}"', "'x'{bare}", "\\'{bare}"])
def test_a_path_stays_one_word_in_every_kind_of_quotes(form: str) -> None:
    """The shell itself is asked what it understands."""
    words = (Word("IN", "input", HOSTILE),)
    text = command_line("printf '%s|' " + form.format(bare="=IN", single="IN", double="IN"), words, PLACES)
    shown = subprocess.run(["sh", "-c", text], capture_output=True, text=True, check=True).stdout
    assert f"/srv/j/inputs/{HOSTILE}|" in shown
    assert shown.count("|") == 1


@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1), min_size=1))
def test_words_arrive_as_they_are(words: list[str]) -> None:
    assert shlex.split(command_line(words, (), PLACES)) == words


def test_words_with_paths_are_quoted_after_they_are_replaced() -> None:
    words = (Word("a b.txt", "input", "a b.txt"),)
    assert shlex.split(command_line(("x", "--in=a b.txt", "$HOME"), words, PLACES)) == [
        "x",
        "--in=/srv/j/inputs/a b.txt",
        "$HOME",
    ]


def test_windows_servers_get_their_separator() -> None:
    places = RemotePlaces("j", "\\", {"input": "C:\\srv\\inputs"})
    assert places.path("input", "a/b.txt") == "C:\\srv\\inputs\\a\\b.txt"
