"""The file of rules: what may stand in it, what it means, and what the errors say."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lwr.client.rules import RuleSet, load_rules, mapper_from_document, mapper_from_file, rules_from_document
from lwr.core.mapper import ALL_KINDS, CONFIGURABLE, DEFAULT_KINDS, Mapper, Match, Rule, mapper_from_wire
from lwr.core.staging import FileAction, Ssh
from lwr.errors import ConfigError

#: The rules of the example in LWR's documentation of old.
EXAMPLE = """\
paths:
  # Galaxy alone sees this directory.
  - path: /galaxy/files/store/1
    action: transfer

  # The server sees it too, the machines that compute do not.
  - path: /galaxy/files/store/2
    action: copy

  # All see it.
  - path: /galaxy/files/store/3
    action: none

  # The index beside a genome comes with it.
  - path: /mnt/indices/**/bwa/**/*.fa
    match_type: glob
    path_types: unstructured  # or "*any*"
    action: transfer
    depth: 1

  # The same data under two names.
  - path: /galaxy/data
    path_types: unstructured
    action: rewrite
    source_directory: /galaxy/data
    destination_directory: /work/galaxy/data
"""


def written(directory: Path, text: str, name: str = "actions.yaml") -> Path:
    path = directory / name
    path.write_text(text, encoding="utf-8")
    return path


def rules(directory: Path, text: str, name: str = "actions.yaml") -> RuleSet:
    return load_rules(written(directory, text, name))


class TestTheExample:
    @pytest.fixture
    def mapper(self, tmp_path: Path) -> Mapper:
        return mapper_from_file(written(tmp_path, EXAMPLE), default_action="remote_copy")

    @pytest.mark.parametrize("kind", ["input", "output", "config", "tool"])
    def test_stores(self, mapper: Mapper, kind: str) -> None:
        stores = {
            number: mapper.action(f"/galaxy/files/store/{number}/x.dat", kind).type for number in (1, 2, 3, 4, 10)
        }
        assert stores == {1: "transfer", 2: "copy", 3: "none", 4: "remote_copy", 10: "remote_copy"}

    def test_a_peer_that_gets_the_prefix_as_it_stands_takes_store_10_too(self) -> None:
        peers = mapper_from_wire({"paths": [{"path": "/galaxy/files/store/1", "action": "none"}]})
        assert peers.action_type("/galaxy/files/store/10/x.dat", "input") == "none"

    def test_a_peer_that_gets_our_mapper_does_not(self, mapper: Mapper) -> None:
        peers = mapper_from_wire(mapper.to_wire())
        paths = [f"/galaxy/files/store/{number}/x.dat" for number in (1, 2, 3, 10)]
        assert [peers.action_type(path, "output") for path in paths] == ["transfer", "copy", "none", "remote_copy"]

    @pytest.mark.parametrize(
        "path", ["/mnt/indices/hg/bwa/v1/hg.fa", "/mnt/indices/bwa/hg.fa", "/mnt/indices/bwa/a/b.fa"]
    )
    def test_indices_with_what_lies_beside_them(self, mapper: Mapper, path: str) -> None:
        rule = mapper.rule(path, "unstructured")
        assert rule is not None
        assert (rule.action, rule.depth) == ("transfer", 1)
        assert mapper.staged_directory(rule, path) == str(Path(path).parent)
        assert mapper.rule(path, "input") is None

    @pytest.mark.parametrize("path", ["/mnt/indices/bwa/hg.fa.fai", "/mnt/indices/bowtie/hg.fa", "/other/bwa/hg.fa"])
    def test_what_is_no_index_stays(self, mapper: Mapper, path: str) -> None:
        assert mapper.action(path, "unstructured") == FileAction("none", path)

    def test_data_under_another_name(self, mapper: Mapper) -> None:
        path = "/galaxy/data/hg/seq.loc"
        assert mapper.action(path, "unstructured").rewritten == "/work/galaxy/data/hg/seq.loc"
        assert mapper.action(path, "input").type == "remote_copy"
        assert mapper.action_type("/galaxy/database/x", "unstructured") == "none"

    def test_every_rule_knows_its_line(self, mapper: Mapper) -> None:
        assert [rule.where for rule in mapper.rules] == [f"actions.yaml, line {line}" for line in (3, 7, 11, 15, 22)]

    def test_it_is_the_same_as_data(self, mapper: Mapper, tmp_path: Path) -> None:
        document = {
            "paths": [
                {"path": "/galaxy/files/store/1", "action": "transfer"},
                {"path": "/galaxy/files/store/2", "action": "copy"},
                {"path": "/galaxy/files/store/3", "action": "none"},
                {
                    "path": "/mnt/indices/**/bwa/**/*.fa",
                    "match_type": "glob",
                    "path_types": "unstructured",
                    "action": "transfer",
                    "depth": 1,
                },
                {
                    "path": "/galaxy/data",
                    "path_types": "unstructured",
                    "action": "rewrite",
                    "source_directory": "/galaxy/data",
                    "destination_directory": "/work/galaxy/data",
                },
            ]
        }
        inline = mapper_from_document(document, "file_actions", default_action="remote_copy")
        assert inline.rules[1].where == "file_actions, entry 2"
        as_json = mapper_from_file(written(tmp_path, json.dumps(document, indent="\t"), "actions.json"))
        assert as_json.to_wire()["paths"] == inline.to_wire()["paths"] == mapper.to_wire()["paths"]
        assert as_json.rules[1].where == "actions.json, line 7"


class TestTheDocumentation:
    PAGE = (Path(__file__).parents[2] / "docs" / "file-actions.md").read_text("utf-8")

    def test_its_example_works(self, tmp_path: Path) -> None:
        example = self.PAGE.split("```yaml\n")[1].split("```")[0]
        mapper = mapper_from_file(written(tmp_path, example))
        assert mapper.action_type("/galaxy/shared/1.dat", "output") == "none"
        assert mapper.action("/galaxy/data/x", "unstructured").rewritten == "/work/galaxy/data/x"
        assert mapper.action_type("/mnt/indices/bwa/hg.fa", "unstructured") == "transfer"

    def test_it_names_every_action_and_kind(self) -> None:
        cells = {
            word for line in self.PAGE.splitlines() if line.startswith("| `") for word in line.split("|")[1].split("`")
        }
        assert {*CONFIGURABLE, *ALL_KINDS} <= cells


class TestReading:
    def test_what_an_entry_may_leave_out(self, tmp_path: Path) -> None:
        found = rules(tmp_path, "paths:\n- path: /a//b/../c/\n- path_types: tool\n  action: copy\n").rules
        assert found == (
            Rule("transfer", "/a/c", where="actions.yaml, line 2"),
            Rule("copy", "", Match.ANY, frozenset({"tool"}), where="actions.yaml, line 3"),
        )

    def test_relative_prefixes_start_here_and_patterns_stay(self, tmp_path: Path) -> None:
        found = rules(tmp_path, 'paths:\n- path: data/\n- {path: "*.fa", match_type: glob}\n').rules
        assert [rule.path for rule in found] == [os.path.abspath("data"), "*.fa"]

    @pytest.mark.parametrize(
        ("text", "kinds"),
        [
            ("input", {"input"}),
            (" input , output ", {"input", "output"}),
            ("*any*", set(ALL_KINDS)),
            ("*defaults*", set(DEFAULT_KINDS)),
            ("*defaults*, unstructured", set(ALL_KINDS)),
        ],
    )
    def test_kinds(self, tmp_path: Path, text: str, kinds: set[str]) -> None:
        assert rules(tmp_path, f'paths: [{{path: /a, path_types: "{text}"}}]').rules[0].kinds == kinds

    @pytest.mark.parametrize("text", ["/no", "no", "010", "1e3", "2026-01-01", "~x", "ü", "yes: no"])
    def test_texts_are_what_stands_there(self, tmp_path: Path, text: str) -> None:
        entry = f"paths:\n- match_type: regex\n  path: {json.dumps(text) if ':' in text else text}\n"
        assert rules(tmp_path, entry).rules[0].path == text

    def test_ssh_is_completed_from_the_clients(self, tmp_path: Path) -> None:
        path = written(
            tmp_path,
            "paths:\n- {path: /a, action: remote_scp_transfer, ssh_port: 22}\n"
            "- {path: /b, action: remote_scp_transfer}\n",
        )
        general = Ssh("galaxy", "host", 2222, "key")
        mapper = mapper_from_file(path, ssh=general)
        assert mapper.action("/a/x", "input").ssh == Ssh("galaxy", "host", 22, "key")
        assert mapper.action("/b/x", "input").ssh == general

    @pytest.mark.parametrize("nothing", [None, {}])
    def test_no_data_are_no_rules(self, nothing: object) -> None:
        assert rules_from_document(nothing, "file_actions") == RuleSet()

    def test_what_has_no_effect_is_told(self, tmp_path: Path) -> None:
        found = rules(
            tmp_path,
            "default_action: copy\nssh_key: s3cret\nfiles_endpoint: null\n"
            "paths:\n- path: /a\n  depth: 2\n  ssh_host: h\n  source_directory: /x\n",
        ).notices
        assert [" ".join(notice.split()[:5]) for notice in found] == [
            "actions.yaml, line 1: default_action has",
            "actions.yaml, line 2: ssh_key has",
            "actions.yaml, line 8: source_directory has",
            "actions.yaml, line 6: depth has",
            "actions.yaml, line 7: ssh_host has",
        ]
        assert "s3cret" not in str(found)

    def test_json_is_read_as_json(self, tmp_path: Path) -> None:
        text = json.dumps({"paths": [{"path": "/a\t\U0001f600/\"b'", "match_type": "glob", "depth": 0}]}, indent="\t")
        assert rules(tmp_path, text, "actions.JSON").rules[0].path == "/a\t\U0001f600/\"b'"

    @given(
        st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1).filter(lambda text: text.strip() == text)
    )
    def test_any_path_as_data(self, path: str) -> None:
        document = {"paths": [{"path": path, "match_type": "glob"}]} if "[" not in path else {"paths": []}
        assert [rule.path for rule in rules_from_document(document, "here").rules] == [path] * len(document["paths"])


#: (text of the file, what the error says, its hint).
WRONG: list[tuple[str, str, str]] = [
    ("", "actions.yaml: a file of rules must be", "paths"),
    ("- path: /a", "line 1: a file of rules must be", "paths"),
    ("path: /a", "line 1: 'path' is not a key of a file of rules", "Did you mean paths?"),
    ("paths: /a", "line 1: `paths` must be a list", "path: /data"),
    ("paths:\n  path: /a", "line 1: `paths` must be a list", "path: /data"),
    ("default_action: copy", "actions.yaml, line 1: `paths` must be a list", "path: /data"),
    ("paths:\n- /a", "line 2: a rule must be", "match_type"),
    ("paths:\n- path: /a\n  acton: copy", "line 3: 'acton' is not a key of a rule", "Did you mean action?"),
    ("paths:\n- path: /a\n  action: transfr", "line 3: `action` cannot be 'transfr'", "Did you mean transfer?"),
    ("paths:\n- path: /a\n  action: message", "line 3: `action` cannot be 'message'", "There are none, rewrite"),
    ("paths:\n- path: /a\n  action:", "line 3: `action` must be a text", "remove"),
    ("paths:\n- path: /a\n  action: [copy]", "line 3: `action` must be a text", "remove"),
    ("paths:\n- path: ''", "line 2: `path` must be a text", "remove"),
    ("paths:\n- action: none", "line 2: `path` is missing", "path_types"),
    ("paths:\n- match_type: glob\n  path_types: input", "line 2: `path` is missing", "glob needs it"),
    ("paths:\n- path: /a\n  match_type: path_type_only", "line 2: `path` has no place", "Remove"),
    ("paths:\n- path: /a\n  match_type: globs", "line 3: `match_type` cannot be 'globs'", "Did you mean glob?"),
    ("paths:\n- path: (\n  match_type: regex", "line 2: `path` is not a regular expression", "match_type"),
    ("paths:\n- path: '[z-a]'\n  match_type: glob", "line 2: `path` is not a glob", "match_type"),
    ("paths:\n- path: /a\n  path_types: inputs", "line 3: `path_types` cannot name 'inputs'", "Did you mean input?"),
    ("paths:\n- path: /a\n  path_types: input,", "line 3: `path_types` cannot name ''", "There are input"),
    ("paths:\n- path: /a\n  path_types: [input]", "line 3: `path_types` must be a text", "Give it one"),
    ("paths:\n- path: /a\n  path_types: '*all*'", "line 3: `path_types` cannot name '*all*'", "Did you mean"),
    ("paths:\n- path: /a\n  path_types: *any*", "line 3: this is not YAML", '"*any*"'),
    ("paths:\n- path: &x /a\n- path: *x", "line 3: this is not YAML: aliases", "quotes"),
    ("paths:\n- path: /a\n  depth: two", "line 3: `depth` cannot be 'two'", "from 0 to 100"),
    ("paths:\n- path: /a\n  depth: -1", "line 3: `depth` cannot be '-1'", "from 0 to 100"),
    ("paths:\n- path: /a\n  depth: 9999999999", "line 3: `depth` cannot be", "from 0 to 100"),
    ("paths:\n- path: /a\n  ssh_port: 70000", "line 3: `ssh_port` cannot be '70000'", "from 1 to 65535"),
    ("paths:\n- path: /a\n  action: rewrite", "line 2: `source_directory` is missing", "destination_directory"),
    (
        "paths:\n- path: /a\n  action: rewrite\n  source_directory: /a",
        "line 2: `destination_directory` is missing",
        "source_directory",
    ),
    (
        "paths:\n- path: /a\n  action: rewrite\n  source_directory: /a\n  destination_directory: b",
        "line 5: `destination_directory` is not absolute",
        "server",
    ),
    (
        "paths:\n- path: /data\n  action: rewrite\n  source_directory: /dat\n  destination_directory: /b",
        "line 4: `source_directory` is /dat, and path is not below it",
        "Correct",
    ),
    ("paths:\n- path: /a\n  path: /b", "line 3: 'path' stands twice", "Keep one"),
    ("paths:\n- path: !!python/object/apply:os.getcwd []", "line 2: the tag 'tag:yaml.org,2002:python", "plain"),
    ("paths:\n- path: !secret /a", "line 2: the tag '!secret'", "plain"),
    ("paths:\n- {<<: {path: /a}}", "line 2: '<<' is not a key", "There are path"),
    ("paths:\n- [a]: b", "line 2: a key is a text", ""),
    ("paths:\n\t- path: /a", "line 2: this is not YAML", "Indent"),
    ("paths: []\n---\npaths: []", "line 2: this is not YAML", "Indent"),
    ("paths: " + "[" * 5000, "actions.yaml is not YAML", ""),
    ("paths: \x00", "actions.yaml is not YAML", ""),
    ("#" * ((1 << 20) + 1), "actions.yaml is larger than", "file of rules?"),
]


class TestErrors:
    @pytest.mark.parametrize(("text", "what", "hint"), WRONG, ids=[text[-40:] for text, _, _ in WRONG])
    def test_they_name_file_line_and_key(self, tmp_path: Path, text: str, what: str, hint: str) -> None:
        with pytest.raises(ConfigError) as caught:
            rules(tmp_path, text)
        assert what in caught.value.message
        assert "actions.yaml" in caught.value.message
        assert hint in caught.value.hint

    def test_an_alias_bomb_costs_nothing(self, tmp_path: Path) -> None:
        lines = ["a0: &a0 [x]"] + [f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]" for n in range(1, 60)]
        with pytest.raises(ConfigError, match=r"line 2: .* aliases"):
            rules(tmp_path, "\n".join(lines))

    @pytest.mark.parametrize(
        ("text", "what"),
        [
            ('{"paths": [\n{"path": "/a",}]}', "line 2: this is not JSON"),
            ("paths: []", "line 1: this is not JSON"),
            ('{"paths": [\n{"path": "/a",\n"path": "/b"}]}', "line 3: 'path' stands twice"),
            ('{"paths": [{"path": "/a",\n\t"depth": null}]}', "line 2: `depth` must be"),
        ],
    )
    def test_json(self, tmp_path: Path, text: str, what: str) -> None:
        with pytest.raises(ConfigError, match=what):
            rules(tmp_path, text, "actions.json")

    def test_files_that_cannot_be_read(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match=r"There is no file .*gone\.yaml"):
            load_rules(tmp_path / "gone.yaml")
        with pytest.raises(ConfigError, match="cannot be read: Is a directory"):
            load_rules(tmp_path)
        (tmp_path / "latin.yaml").write_bytes(b"paths: \xff")
        with pytest.raises(ConfigError, match="it is not UTF-8"):
            load_rules(tmp_path / "latin.yaml")

    @pytest.mark.parametrize(
        ("document", "what"),
        [
            ([], None),
            ([1], "here: a file of rules must be"),
            ({"paths": [{"path": "/a"}, {"path": "/b", "action": "cpy"}]}, "here, entry 2: `action` cannot be 'cpy'"),
            ({"paths": [{"path": b"/a"}]}, "here, entry 1: a bytes is no part of rules"),
            ({"paths": [{"path": "/a", "depth": True}]}, "here, entry 1: `depth` cannot be 'True'"),
            ({1: 2}, "here: '1' is not a key"),
        ],
    )
    def test_data(self, document: Any, what: str | None) -> None:
        if what is None:
            assert rules_from_document(document, "here") == RuleSet()
            return
        with pytest.raises(ConfigError, match=what):
            rules_from_document(document, "here")

    @pytest.mark.parametrize("default", ["rewrite", "message", "transfr", ""])
    def test_defaults_that_cannot_be(self, default: str) -> None:
        with pytest.raises(ConfigError, match="default file action cannot be"):
            mapper_from_document(None, "here", default_action=default)

    @pytest.mark.parametrize("default", [name for name in CONFIGURABLE if name != "rewrite"])
    def test_defaults_that_can(self, default: str) -> None:
        assert mapper_from_document(None, "here", default_action=default).default_action == default
