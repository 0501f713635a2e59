"""Which action a path gets: rules in their order, ours and a peer's, and what travels between the two."""

from __future__ import annotations

import dataclasses
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lwr.core.mapper import ALL_KINDS, CONFIGURABLE, DEFAULT_KINDS, Mapper, Match, Rule, mapper_from_wire
from lwr.core.staging import ACTIONS, FileAction, Ssh, transfer_url
from lwr.errors import BadRequest, ConfigError

UNSTRUCTURED = frozenset({"unstructured"})
ENDPOINT = "https://galaxy/api/jobs/1/files?job_key=s3cret"
REWRITE = Rule(
    "rewrite", "/data", source_directory="/data", destination_directory="/work/data/", where="a.yaml, line 2"
)


def sent(rule: dict[str, Any], **changed: Any) -> Mapper:
    """A mapper with one rule as a peer sends it."""
    return mapper_from_wire({"default_action": "remote_copy", "files_endpoint": None, "paths": [rule]} | changed)


class TestChoosing:
    def test_the_first_rule_with_the_kind_and_the_path_wins(self) -> None:
        rules = (
            Rule("none", "/data", kinds=frozenset({"output"})),
            Rule("copy", "/data/a"),
            Rule("transfer", "/data"),
            Rule("remote_copy", "", Match.ANY, UNSTRUCTURED),
        )
        mapper = Mapper(rules)
        found = [mapper.rule("/data/a/x", kind) for kind in ("output", "input", "unstructured")]
        assert found == [rules[0], rules[1], rules[3]]
        assert mapper.rule("/data/b", "config") is rules[2]
        assert mapper.rule("/other", "config") is None

    @pytest.mark.parametrize("kind", ALL_KINDS)
    def test_without_a_rule(self, kind: str) -> None:
        expected = "none" if kind == "unstructured" else "remote_copy"
        assert Mapper(default_action="remote_copy").action("/x", kind) == FileAction(expected, "/x")

    def test_kinds_that_nobody_knows_stay_where_they_are(self) -> None:
        assert Mapper((Rule("copy", "/"),)).action_type("/x", "container") == "none"

    @pytest.mark.parametrize("kind", ALL_KINDS)
    @pytest.mark.parametrize("rule", [Rule("none", "/data", kinds=frozenset(ALL_KINDS)), REWRITE])
    def test_files_of_the_jobs_own_directories_travel(self, rule: Rule, kind: str) -> None:
        mapper = Mapper((dataclasses.replace(rule, kinds=frozenset(ALL_KINDS)),))
        own = {"workdir", "jobdir", "metadata", "output_workdir", "output_metadata", "output_jobdir"}
        assert mapper.action_type("/data/x", kind) == ("copy" if kind in own else rule.action)

    @pytest.mark.parametrize("path", ["/store/../store/1/x", "//store/1/x", "/store//1/./x", "/store/1"])
    def test_paths_are_normalised_before(self, path: str) -> None:
        assert Mapper((Rule("copy", "/store/1"),)).action(path, "input") == FileAction("copy", path)

    def test_case_counts_but_on_windows(self) -> None:
        rules = (Rule("copy", "C:\\Data"), Rule("none", "d:/idx/**/*.fa", Match.GLOB))
        theirs, ours = Mapper(rules, windows=True), Mapper(rules)
        assert [theirs.action_type(path, "input") for path in ("c:/data/x", "C:\\DATA\\x")] == ["copy", "copy"]
        assert theirs.action_type("D:\\IDX\\bwa\\x.FA", "input") == "none"
        assert ours.action_type("c:/data/x", "input") == ours.action_type("d:/idx/x.FA", "input") == "transfer"

    def test_regular_expressions_are_anchored_at_the_start_alone(self) -> None:
        mapper = Mapper((Rule("copy", r"/data/\d+", Match.REGEX),))
        assert mapper.action_type("/data/12.dat", "input") == "copy"
        assert mapper.action_type("/x/data/12.dat", "input") == "transfer"

    def test_depth(self) -> None:
        mapper = Mapper(windows=False)
        assert [mapper.staged_directory(Rule("copy", depth=n), "/a/b/c.fa") for n in range(4)] == [
            "",
            "/a/b",
            "/a",
            "/",
        ]
        assert Mapper(windows=True).staged_directory(Rule("copy", depth=1), "C:\\a\\b.fa") == "C:\\a"


class TestResolving:
    @pytest.mark.parametrize("action", ["remote_transfer", "remote_transfer_tus"])
    def test_a_url_for_whom_it_takes(self, action: str) -> None:
        url = f"{ENDPOINT}&path=%2Fx&file_type=output"
        assert Mapper((), action, ENDPOINT).action("/x", "output") == FileAction(action, "/x", url)
        with pytest.raises(ConfigError, match=r"^/x .*\(a\.yaml, line 4\), and no files endpoint"):
            Mapper((Rule(action, "/", where="a.yaml, line 4"),)).action("/x", "output")

    @pytest.mark.parametrize("action", ["remote_rsync_transfer", "remote_scp_transfer"])
    def test_the_way_by_ssh(self, action: str) -> None:
        general, own = Ssh("galaxy", "host"), Ssh("other", "elsewhere", 2222)
        mapper = Mapper((Rule(action, "/own", ssh=own),), action, ssh=general)
        assert mapper.action("/x", "input").ssh == general
        assert mapper.action("/own/x", "input").ssh == own
        with pytest.raises(ConfigError, match=r"default action.* no ssh host"):
            Mapper((), action, ssh=Ssh("galaxy")).action("/x", "input")

    @pytest.mark.parametrize(
        ("path", "destination", "separator", "expected"),
        [
            ("/data/a/b.fa", "/work/data", "/", "/work/data/a/b.fa"),
            ("/data//a/../b.fa", "/work/data/", "/", "/work/data/b.fa"),
            ("/data/a/b.fa", "D:\\data\\", "\\", "D:\\data\\a\\b.fa"),
            ("/data", "/work", "/", "/work"),
            ("/data", "/", "/", "/"),
            ("/data/x", "/", "/", "/x"),
        ],
    )
    def test_rewriting(self, path: str, destination: str, separator: str, expected: str) -> None:
        mapper = Mapper((dataclasses.replace(REWRITE, destination_directory=destination),))
        assert mapper.action(path, "input", separator=separator) == FileAction("rewrite", path, rewritten=expected)

    def test_rewriting_from_windows(self) -> None:
        rule = Rule("rewrite", "C:\\", source_directory="C:\\Data", destination_directory="/work")
        assert Mapper((rule,), windows=True).action("c:\\data\\a\\b", "input").rewritten == "/work/a/b"

    def test_what_is_not_below_the_source_names_the_rule(self) -> None:
        rule = dataclasses.replace(REWRITE, path="/database|/data", match=Match.REGEX)
        with pytest.raises(ConfigError, match=r"/database/x .*a\.yaml, line 2\), and is not below .* /data\."):
            Mapper((rule,)).action("/database/x", "input")
        with pytest.raises(ConfigError, match="default action"):
            Mapper(default_action="rewrite").action("/database/x", "input")

    @pytest.mark.parametrize(
        ("endpoint", "begin"),
        [
            ("https://g/files", "https://g/files?path="),
            ("https://g/files?", "https://g/files?path="),
            ("https://g/files?job_key=a%2Fb", "https://g/files?job_key=a%2Fb&path="),
            ("https://g/files?job_key=a#part", "https://g/files?job_key=a&path="),
        ],
    )
    def test_the_endpoint_keeps_its_query(self, endpoint: str, begin: str) -> None:
        assert transfer_url(endpoint, "/x", "input") == begin + "%2Fx&file_type=input"

    @given(st.text(st.characters(exclude_categories=["Cs"])))
    def test_every_name_comes_out_as_it_went_in(self, path: str) -> None:
        url = urlsplit(transfer_url(ENDPOINT, path, "input"))
        assert url.query.isascii()
        found = dict(parse_qsl(url.query, keep_blank_values=True))
        assert found == {"job_key": "s3cret", "path": path, "file_type": "input"}

    def test_names_that_are_no_text_travel_as_their_bytes(self) -> None:
        assert "path=%2Fa%20%FF" in transfer_url(ENDPOINT, "/a \udcff", "input")

    def test_no_secret_in_what_is_shown(self) -> None:
        mapper = Mapper((), "remote_transfer", ENDPOINT, ssh=Ssh(key="s3cret"))
        assert "s3cret" not in f"{mapper} {mapper.action('/x', 'input')}"


class TestPeers:
    """To the letter as Pulsar's own mapper does it, or both sides would move a file, or neither."""

    def test_a_prefix_is_text(self) -> None:
        mapper = sent({"path": "/store/1", "action": "none"})
        assert [mapper.action_type(path, "input") for path in ("/store/1/x", "/store/10")] == ["none", "none"]
        assert Mapper((Rule("none", "/store/1"),)).action_type("/store/10", "input") == "transfer"

    def test_a_double_star_is_one_star(self) -> None:
        mapper = sent({"path": "/m/**/*.fa", "match_type": "glob", "action": "none"})
        assert [mapper.action_type(path, "input") for path in ("/m/x/y.fa", "/m/y.fa")] == ["none", "remote_copy"]

    def test_a_rewrite_that_does_not_fit_is_the_peers_affair(self) -> None:
        rule = {"path": "/data", "action": "rewrite", "source_directory": "/other", "destination_directory": "/work"}
        assert sent(rule).action("/data/x", "input") == FileAction("rewrite", "/data/x")
        fits = sent(rule | {"source_directory": "/data"})
        assert fits.action("/database", "input").rewritten == "/work/base"

    def test_old_and_new_forms(self) -> None:
        rules = [
            {"path": "/a", "action": "copy", "path_types": "input,container,unstructured", "depth": "2", "new": 1},
            {"action": "none", "path_types": "*any*"},
            {"path": "/b/", "ssh_user": "__UNSET__", "ssh_host": "host", "ssh_port": None, "ssh_key": "__UNSET__"},
            {"path": "/c", "path_types": "input, output"},
        ]
        found = mapper_from_wire({"paths": rules, "ssh_user": "galaxy", "ssh_key": None}, "key").rules
        assert found[0] == Rule("copy", "/a", kinds=frozenset({"input", "unstructured"}), depth=2)
        assert found[1] == Rule("none", match=Match.ANY, kinds=frozenset(ALL_KINDS))
        assert found[2] == Rule("transfer", "/b", ssh=Ssh("galaxy", "host", 22, "key"))
        assert found[3].kinds == {"input"}  # a peer does not strip blanks either

    @pytest.mark.parametrize("nothing", [None, {}, {"paths": None, "files_endpoint": None, "default_action": None}])
    def test_nothing(self, nothing: object) -> None:
        assert mapper_from_wire(nothing) == Mapper(by_component=False)

    @pytest.mark.parametrize(
        "broken",
        [
            "text",
            [],
            {"paths": {"path": "/"}},
            {"paths": [1]},
            {"paths": [{"path": 3}]},
            {"paths": [{"path": "/", "action": "teleport"}]},
            {"paths": [{"path": "/", "action": "message"}]},
            {"paths": [{"path": "/", "action": ["copy"]}]},
            {"paths": [{"path": "/", "match_type": "fuzzy"}]},
            {"paths": [{"path": "(", "match_type": "regex"}]},
            {"paths": [{"path": "x" * 5000}]},
            {"paths": [{"path": "/", "depth": "many"}]},
            {"paths": [{"path": "/", "depth": -1}]},
            {"paths": [{"path": "/", "depth": True}]},
            {"paths": [{"path": "/", "depth": 10**9}]},
            {"paths": [{"path": "/", "action": "rewrite", "source_directory": "/a"}]},
            {"paths": [{"path": "/", "path_types": ["input"]}]},
            {"paths": [{"path": "/", "ssh_host": "h", "ssh_port": "many"}]},
            {"paths": [{"path": "/"}] * 1001},
            {"default_action": "teleport"},
            {"files_endpoint": 3},
            {"ssh_port": 0.5},
        ],
    )
    def test_what_cannot_be_understood(self, broken: object) -> None:
        with pytest.raises(BadRequest, match=r"action_mapper|remote_staging|regular expression"):
            mapper_from_wire(broken)

    def test_an_expression_that_backtracks_without_end_is_given_up(self) -> None:
        mapper = sent({"path": "(a|aa)+$", "match_type": "regex"})
        with pytest.raises(BadRequest, match="too long"):
            mapper.rule("a" * 4000 + "b", "input")
        assert mapper.rule("a" * 5000 + "b", "input") is None


PATHS = st.sampled_from(["/a", "/a/b", "/ab/c.fa", "/a/**/*.fa", "/**/b/*", "/a?[bc]", "/", "/a/b.d"])
SSHS = st.builds(
    Ssh, st.just("user"), st.sampled_from(["h", "host"]), st.integers(1, 65535), st.sampled_from(["", "k"])
)
RULES = st.builds(
    Rule,
    st.sampled_from([name for name in CONFIGURABLE if name != "rewrite"]),
    PATHS,
    st.sampled_from([Match.PREFIX, Match.GLOB]),
    st.frozensets(st.sampled_from(ALL_KINDS), min_size=1),
    st.integers(0, 3),
)


class TestTravelling:
    @given(st.lists(RULES), st.sampled_from(DEFAULT_KINDS), st.lists(st.sampled_from(["a", "ab", "b", "c.fa", "b.d"])))
    def test_a_peer_decides_of_our_rules_as_we_do(self, rules: list[Rule], kind: str, names: list[str]) -> None:
        path, ours = "/" + "/".join(names), Mapper(tuple(rules))
        theirs = mapper_from_wire(ours.to_wire())
        assert theirs.action_type(path, kind) == ours.action_type(path, kind)

    @given(st.lists(RULES | st.just(dataclasses.replace(REWRITE, where=""))), st.none() | SSHS, st.data())
    def test_a_peers_mapper_comes_back_as_it_was(self, rules: list[Rule], ssh: Ssh | None, data: st.DataObject) -> None:
        own = [dataclasses.replace(rule, ssh=data.draw(st.none() | st.just(ssh))) for rule in rules]
        mapper = Mapper(tuple(own), "remote_transfer", ENDPOINT, by_component=False, ssh=ssh)
        assert mapper_from_wire(mapper.to_wire()) == mapper

    def test_a_windows_clients_rules(self) -> None:
        ours = Mapper((Rule("copy", "C:\\Data"),), windows=True)
        theirs = mapper_from_wire(ours.to_wire())
        assert theirs.action_type("c:\\data\\x", "output") == "copy"
        assert theirs.action_type("c:\\database", "output") == "transfer"

    def test_the_keys_that_peers_read(self) -> None:
        rule = Rule("remote_copy", r".*\.dat", Match.REGEX, frozenset({"unstructured", "input"}), 2)
        any_path = Rule("none", "", Match.ANY, frozenset({"config"}))
        assert Mapper((rule, any_path, REWRITE), "copy").to_wire() == {
            "default_action": "copy",
            "files_endpoint": None,
            "ssh_key": None,
            "ssh_user": None,
            "ssh_host": None,
            "ssh_port": None,
            "paths": [
                {
                    "action": "remote_copy",
                    "path_types": "input,unstructured",
                    "match_type": "regex",
                    "depth": 2,
                    "path": r".*\.dat",
                },
                {"action": "none", "path_types": "config", "match_type": "path_type_only", "depth": 0},
                {
                    "action": "rewrite",
                    "path_types": ",".join(DEFAULT_KINDS),
                    "match_type": "regex",
                    "depth": 0,
                    "path": r"(?s)/data(?:/|\Z)",
                    "source_directory": "/data",
                    "destination_directory": "/work/data/",
                },
            ],
        }

    def test_every_action_but_a_message_can_be_configured(self) -> None:
        assert set(CONFIGURABLE) == set(ACTIONS) - {"message"}
