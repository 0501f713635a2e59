"""`lwr actions explain`: what people read and what programs get."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lwr.cli import main

RULES = """\
paths:
- path: /store/3
  action: none
- path: /idx/**/*.fa
  match_type: glob
  path_types: unstructured
  action: remote_transfer
  depth: 1
- path: /data
  path_types: "*any*"
  action: rewrite
  source_directory: /data
  destination_directory: D:\\data
default_action: copy
"""


@pytest.fixture
def config(tmp_path: Path) -> str:
    path = tmp_path / "actions.yaml"
    path.write_text(RULES)
    return str(path)


def shown(capsys: pytest.CaptureFixture[str], *words: str) -> list[str]:
    """What stands on stdout, line by line, blanks squeezed."""
    assert main(["actions", "explain", *words]) == 0
    return [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]


def test_each_path_with_its_rule_and_what_happens(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    lines = shown(capsys, "--config", config, "/store/3/x", "/idx/bwa/hg.fa", "/data/./a/b", "/store/30")
    assert lines == [
        "! actions.yaml, line 14: default_action has no effect here; the client's own configuration says it.",
        "/store/3/x",
        "input, output none actions.yaml, line 2: prefix /store/3",
        "The file is used where it is, by the same path on both machines.",
        "unstructured none no rule, and so it is left alone where it stands in a text",
        "/idx/bwa/hg.fa",
        "input, output transfer no rule, and so the default",
        "The file is sent or fetched by the client.",
        "unstructured remote_transfer actions.yaml, line 4: glob /idx/**/*.fa",
        "The file is fetched or delivered by the server, over HTTP.",
        "All that is below /idx/bwa travels with it.",
        "/data/a/b",
        "input, output, unstructured rewrite actions.yaml, line 9: prefix /data",
        "The file is used where it is, by another path on the server.",
        "There it is D:\\data\\a\\b",
        "/store/30",
        "input, output transfer no rule, and so the default",
        "The file is sent or fetched by the client.",
        "unstructured none no rule, and so it is left alone where it stands in a text",
    ]


def test_one_kind_and_another_default(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    lines = shown(
        capsys, "--config", config, "--kind", "workdir", "--default", "remote_copy", "/store/3/x", "/elsewhere"
    )
    assert lines[1:] == [
        "/store/3/x",
        "workdir copy actions.yaml, line 2: prefix /store/3",
        "The rule says none, but files of the job's own directories travel in any case.",
        "The file is copied by the client, which sees the server's job directory.",
        "/elsewhere",
        "workdir remote_copy no rule, and so the default",
        "The file is copied by the server, which sees the client's disk.",
    ]


def test_for_programs(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    document = json.loads("\n".join(shown(capsys, "--json", "--config", config, "/data/a", "/idx/hg.fa")))
    assert [notice.split()[3] for notice in document["notices"]] == ["default_action"]
    data, index = document["paths"]
    assert data == {
        "path": "/data/a",
        "rulings": [
            {
                "kinds": ["input", "output", "unstructured"],
                "action": "rewrite",
                "summary": "is used where it is, by another path on the server",
                "moved_by": "nobody",
                "rule": {"where": "actions.yaml, line 9", "match_type": "prefix", "path": "/data"},
                "rewritten": "D:\\data\\a",
                "staged_directory": None,
            }
        ],
    }
    assert [ruling["staged_directory"] for ruling in index["rulings"]] == [None, "/idx"]
    assert index["rulings"][0]["rule"] is None


def test_paths_start_here_and_cannot_drive_the_terminal(config: str, capsys: pytest.CaptureFixture[str]) -> None:
    lines = shown(capsys, "--config", config, "x\x1b[2J[red]")
    assert lines[1] == f"{Path.cwd()}/x?[2J[red]"


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (["--kind", "inputs"], "No kind of path is called 'inputs'"),
        (["--default", "transfr"], "cannot be 'transfr'.\n     Did you mean transfer?"),
    ],
)
def test_errors(config: str, capsys: pytest.CaptureFixture[str], words: list[str], error: str) -> None:
    assert main(["actions", "explain", "--config", config, *words, "/x"]) == 2
    assert error in capsys.readouterr().err


def test_errors_of_the_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    broken = tmp_path / "actions.yaml"
    broken.write_text("paths:\n- path: /a\n  acton: none\n")
    assert main(["actions", "explain", "--config", str(broken), "/x"]) == 2
    assert capsys.readouterr().err == (
        "lwr: actions.yaml, line 3: 'acton' is not a key of a rule.\n     Did you mean action?\n"
    )
