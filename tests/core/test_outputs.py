"""Which files of a job are results: the peers' four rules, ours, and that no name leads out of its directory."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lwr.core.discovery import Collector
from lwr.core.expressions import MAX_EXPRESSION_CHARACTERS, Expression
from lwr.core.mapper import Mapper, Rule
from lwr.core.outputs import (
    LWR_DYNAMIC_OUTPUTS,
    PULSAR_DYNAMIC_OUTPUTS,
    ClientOutputs,
    Collection,
    Written,
    client_outputs_from_wire,
    client_outputs_to_wire,
    collect,
    collect_declared,
)
from lwr.core.staging import FileAction, Step, transfer_url
from lwr.errors import BadRequest

ENDPOINT = "http://galaxy/api/jobs/1/files?job_key=k"
NAME_AND_SUFFIX = r"(?P<name>.*)\.(?P<ext>[^\.]+)?"
#: As today's Galaxy sends it for a job with a from_work_dir output and a discovered collection.
GALAXY: dict[str, Any] = {
    "working_directory": "/g/2/working",
    "metadata_directory": "/g/2/metadata",
    "job_directory": None,
    "work_dir_outputs": [["/g/2/working/wd.txt", "/g/o/dataset_b.dat"]],
    "output_files": ["/g/o/dataset_a.dat", "/g/o/dataset_b.dat"],
    "version_file": "/g/2/outputs/COMMAND_VERSION",
    "dynamic_outputs": ["|".join(PULSAR_DYNAMIC_OUTPUTS), "galaxy\\.json"],
    "dynamic_file_sources": [{"path": "galaxy.json", "type": "galaxy"}],
    "dataset_collector_descriptions": [
        {"recurse": False, "discover_via": "pattern", "directory": "found", "pattern": NAME_AND_SUFFIX},
        {"discover_via": "tool_provided_metadata", "pattern": None},
    ],
}  # fmt: skip
#: As LWR's client of 2014 sends it.
LWR: dict[str, Any] = {
    "working_directory": "/c/w",
    "output_files": ["/c/dataset_1.dat"],
    "work_dir_outputs": None,
    "version_file": None,
}


def places(found: Collection) -> dict[str, str]:
    """Destination by what the job wrote."""
    assert len({step.action.path for step in found.found}) == len(found.found)
    return {f"{step.kind}:{step.name}": step.action.path for step in found.found}


def missing(found: Collection) -> list[tuple[str, str]]:
    return [(step.name, step.action.path) for step in found.missing]


def take(written: Written, mapper: Mapper = Mapper(), **changed: Any) -> Collection:  # noqa: B008
    return collect(ClientOutputs(**changed), mapper, written)


class TestTheWire:
    def test_todays_galaxy(self) -> None:
        outputs = client_outputs_from_wire(GALAXY)
        assert outputs.work_dir_outputs == (("/g/2/working/wd.txt", "/g/o/dataset_b.dat"),)
        assert outputs.job_directory == ""
        assert outputs.dynamic_sources == (("galaxy.json", "galaxy"),)
        assert outputs.collectors == (Collector(NAME_AND_SUFFIX, "found"),)

    def test_old_clients_send_fewer_keys_and_mean_their_own_patterns(self) -> None:
        old = client_outputs_from_wire(LWR)
        assert (old.dynamic_outputs, old.work_dir_outputs, old.metadata_directory) == (LWR_DYNAMIC_OUTPUTS, (), "")
        without = {key: value for key, value in GALAXY.items() if key != "dynamic_outputs"}
        assert client_outputs_from_wire(without).dynamic_outputs == PULSAR_DYNAMIC_OUTPUTS
        assert client_outputs_from_wire(GALAXY | {"dynamic_outputs": []}).dynamic_outputs == ()

    @pytest.mark.parametrize("nothing", [None, {}])
    def test_nothing(self, nothing: object) -> None:
        assert client_outputs_from_wire(nothing) == ClientOutputs()

    @pytest.mark.parametrize(
        "changed",
        [
            {"working_directory": 3},
            {"working_directory": "/a\0b"},
            {"output_files": "text"},
            {"output_files": [1]},
            {"output_files": ["/\udc80"]},
            {"work_dir_outputs": [["one"]]},
            {"work_dir_outputs": {"a": "b"}},
            {"work_dir_outputs": ["ab"]},
            {"dynamic_outputs": "text"},
            {"dynamic_outputs": ["("]},
            {"dynamic_outputs": ["x" * (MAX_EXPRESSION_CHARACTERS + 1)]},
            {"dynamic_outputs": ["(?:" * 2000 + ")" * 2000]},
            {"dynamic_outputs": ["x"] * 1001},
            {"dynamic_file_sources": ["x"]},
            {"dataset_collector_descriptions": [{"pattern": "["}]},
            {"dataset_collector_descriptions": [{"pattern": "a", "directory": 7}]},
            {"required": [1]},
        ],
    )
    def test_what_cannot_be_understood(self, changed: dict[str, Any]) -> None:
        with pytest.raises(BadRequest):
            client_outputs_from_wire(GALAXY | changed)

    def test_something_else_than_an_object(self) -> None:
        with pytest.raises(BadRequest, match="not an object"):
            client_outputs_from_wire([1])

    @given(
        st.builds(
            ClientOutputs,
            output_files=st.lists(st.text("/abc"), max_size=3).map(tuple),
            work_dir_outputs=st.lists(st.tuples(st.text("/ab*"), st.text("/ab")), max_size=2).map(tuple),
            dynamic_outputs=st.lists(st.sampled_from(["a.*", "b|c"]), max_size=2).map(tuple),
            collectors=st.lists(st.just(Collector("x+", "d")), max_size=2).map(tuple),
            required=st.frozensets(st.sampled_from(["/a", "/b"])),
            metadata_directory=st.sampled_from(["", "/m"]),
        )
    )
    def test_what_is_written_is_read_again(self, outputs: ClientOutputs) -> None:
        assert client_outputs_from_wire(json.loads(json.dumps(client_outputs_to_wire(outputs)))) == outputs


class TestRulesOfThePeers:
    def test_a_galaxy_job(self) -> None:
        written = Written(
            outputs=("COMMAND_VERSION", "dataset_a.dat", "dataset_b.dat", "dataset_a_files/sub/x.txt", "other"),
            working=("wd.txt", "found/one.txt", "found/noext", "galaxy.json", "listed.txt", "left/behind.txt"),
            metadata=("tool_stdout", "memory_statement.log", "__instrument_core_epoch_end"),
            job_directory=("command.sh", "metadata", "metadata_x"),
            sources=(("galaxy", '[{"filename": "./listed.txt"}]'),),
        )
        found = collect(client_outputs_from_wire(GALAXY), Mapper(), written)
        assert places(found) == {
            "output_workdir:wd.txt": "/g/o/dataset_b.dat",
            "output:dataset_a.dat": "/g/o/dataset_a.dat",
            "output:dataset_a_files/sub/x.txt": "/g/o/dataset_a_files/sub/x.txt",
            "output:COMMAND_VERSION": "/g/2/outputs/COMMAND_VERSION",
            "output_workdir:found/one.txt": "/g/2/working/found/one.txt",
            "output_workdir:galaxy.json": "/g/2/working/galaxy.json",
            "output_workdir:listed.txt": "/g/2/working/listed.txt",
            "output_metadata:tool_stdout": "/g/2/metadata/tool_stdout",
            "output_metadata:__instrument_core_epoch_end": "/g/2/metadata/__instrument_core_epoch_end",
        }
        assert (found.missing, found.refused) == ((), ())

    def test_the_empty_file_made_for_a_work_dir_output_is_not_its_result(self) -> None:
        written = Written(outputs=("b.dat", "b_files/x"))
        found = take(
            written, working_directory="/w", output_files=("/o/b.dat",), work_dir_outputs=(("/w/b", "/o/b.dat"),)
        )
        assert places(found) == {"output:b_files/x": "/o/b_files/x"}
        assert missing(found) == [("b", "/o/b.dat")]

    @pytest.mark.parametrize(
        ("source", "working", "expected"),
        [
            ("/w/plots", ("plots/a", "plots/s/b", "plots2"), {"plots/a": "/o/d/a", "plots/s/b": "/o/d/s/b"}),
            ("/w/*.txt", ("b.txt", "a.txt", "c"), {"a.txt": "/o/d"}),
            ("/w/out/**/x?", ("out/x1", "out/y"), {"out/x1": "/o/d"}),
            ("/w/[a]", ("[a]", "a"), {"[a]": "/o/d"}),
            ("sub/a", ("sub/a",), {"sub/a": "/o/d"}),
            ("/w/s/../a", ("a",), {"a": "/o/d"}),
        ],
    )  # fmt: skip
    def test_files_directories_and_patterns_of_the_working_directory(
        self, source: str, working: tuple[str, ...], expected: dict[str, str]
    ) -> None:
        found = take(Written(working=working), working_directory="/w/", work_dir_outputs=((source, "/o/d"),))
        assert {step.name: step.action.path for step in found.found} == expected

    @pytest.mark.parametrize("source", ["/elsewhere/a", "/w/../a", "../a", "/w", "/wa/a"])
    def test_a_work_dir_output_that_is_not_in_there_is_refused(self, source: str) -> None:
        found = take(Written(working=("a",)), working_directory="/w", work_dir_outputs=((source, "/o/a"),))
        assert (found.found, found.refused) == ((), (source,))

    def test_old_patterns_are_matched_at_the_start_and_only_in_the_working_directory(self) -> None:
        working = ("primary_1", "x_primary_1", "dataset_12.dat", "dataset_x.dat", "dataset_1_files/a", "galaxy.json")
        found = collect(client_outputs_from_wire(LWR), Mapper(), Written(working=working, metadata=("metadata_x",)))
        assert set(places(found).values()) == {
            f"/c/w/{name}" for name in ("primary_1", "dataset_12.dat", "dataset_1_files/a", "galaxy.json")
        }

    @pytest.mark.parametrize("directory", ["found", "./found/", "found//"])
    def test_a_collector_with_a_directory_sees_names_below_it(self, directory: str) -> None:
        written = Written(working=("found/a.txt", "found/sub/a.txt", "a.txt", "foundx/a.txt"))
        found = take(written, working_directory="/w", collectors=(Collector(r"a\.", directory),))
        assert list(places(found)) == ["output_workdir:found/a.txt"]

    @pytest.mark.parametrize(
        ("kind", "contents"),
        [
            ("galaxy", '{"output": {"elements": [{"filename": "a"}], "x": [{"extra_files": "d"}]}}'),
            ("legacy_galaxy", '{"filename": "a"}\n{"extra_files": "./d/"}\n'),
            ("legacy_galaxy", 'broken\n{"filename": "a"}\n{"extra_files": "d"}'),
        ],
    )
    def test_what_a_tool_names_itself(self, kind: str, contents: str) -> None:
        written = Written(working=("a", "b", "d/x", "d/s/y", "dd/x"), sources=((kind, contents),))
        assert list(places(take(written, working_directory="/w"))) == [
            "output_workdir:a", "output_workdir:d/s/y", "output_workdir:d/x",
        ]  # fmt: skip

    @pytest.mark.parametrize("contents", ["", "nonsense", "[" * 100_000, '[{"filename": 3}]', '[{"filename": "../a"}]'])
    def test_what_a_tool_wrote_wrongly_names_nothing(self, contents: str) -> None:
        assert not take(Written(working=("a",), sources=(("galaxy", contents),)), working_directory="/w").found

    def test_of_the_job_directory_only_what_the_client_may_have(self) -> None:
        written = Written(job_directory=("command.sh", "working", "tool_script.sh", "home"))
        found = take(written, job_directory="/j", dynamic_outputs=(".*",))
        assert places(found) == {"output_jobdir:tool_script.sh": "/j/tool_script.sh"}

    def test_each_destination_gets_its_own_action(self) -> None:
        mapper = Mapper((Rule("remote_copy", "/shared"),), "remote_transfer", ENDPOINT, by_component=False)
        found = take(Written(outputs=("a.dat", "b.dat")), mapper, output_files=("/shared/a.dat", "/o/b.dat"))
        assert [(step.action.type, step.action.url) for step in found.found] == [
            ("remote_copy", ""),
            ("remote_transfer", transfer_url(ENDPOINT, "/o/b.dat", "output")),
        ]

    def test_what_is_used_where_it_is_is_not_missed(self) -> None:
        mapper = Mapper((Rule("none", "/shared"),), by_component=False)
        found = take(
            Written(), mapper, output_files=("/shared/a", "/o/b", "/o/c"), required=frozenset({"/o/b", "/shared/a"})
        )
        assert missing(found) == [("b", "/o/b"), ("c", "/o/c")]
        assert [step.required for step in found.missing] == [True, False]

    def test_a_client_on_windows(self) -> None:
        written = Written(
            outputs=("a.dat", "a_files/s/x", "a_files/con"), working=("s/w.txt", "primary_1"), metadata=("m/x",)
        )
        found = take(
            written,
            working_directory="C:\\w",
            metadata_directory="\\\\host\\share\\m",
            output_files=("C:\\o\\a.dat",),
            work_dir_outputs=(("C:\\w\\s\\w.txt", "D:\\w.dat"),),
            dynamic_outputs=("primary_", "m"),
        )
        assert list(places(found).values()) == [
            "D:\\w.dat", "C:\\o\\a.dat", "C:\\o\\a_files\\s\\x", "C:\\w\\primary_1", "\\\\host\\share\\m\\m\\x",
        ]  # fmt: skip
        assert found.refused == ("a_files/con",)

    def test_a_pattern_that_never_ends_ends(self) -> None:
        evil = Expression("(a|a)*$")
        with pytest.raises(BadRequest, match="too long"):
            evil.takes("a" * 60 + "b")

    @given(st.lists(st.text(alphabet="aw./\\\0 _files", max_size=20)))
    def test_no_listing_leads_out(self, names: list[str]) -> None:
        listing = (*names, *(f"a_files/{name}" for name in names), *(f"d/{name}" for name in names))
        found = take(
            Written(outputs=listing, working=listing),
            working_directory="/w/1",
            output_files=("/o/1/a.dat",),
            work_dir_outputs=(("/w/1/d", "/d/1"),),
            dynamic_outputs=("",),
        )
        for step in found.found:
            directory = {"output": "/o/1/a", "output_workdir": "/d/1" if step.name.startswith("d/") else "/w/1/"}
            assert step.action.path.startswith(directory[step.kind])
            assert not {"..", "."} & set(step.action.path.split("/"))


class TestDeclaredOneByOne:
    def test_files_directories_patterns_and_extra_files(self) -> None:
        steps = (
            Step("output", "r.html", FileAction("transfer", "/o/sub/r.html")),
            Step("output", "plots", FileAction("transfer", "/o/plots")),
            Step("output", "2/n.txt", FileAction("transfer", "/o/n.txt")),
            Step("output_workdir", "logs/*.log", FileAction("transfer", "/o/logs/*.log")),
            Step("output_metadata", "tool_stdout", FileAction("transfer", "/o/tool_stdout")),
        )
        written = Written(
            outputs=("r.html", "r_files/a.png", "r.html_files/b/c", "rr_files/x", "plots/1.png", "plots/s/2.png"),
            working=("logs/a.log", "logs/b.txt"),
            metadata=("tool_stdout",),
        )
        found = collect_declared(steps, written)
        assert {step.name: step.action.path for step in found.found} == {
            "r.html": "/o/sub/r.html",
            "r_files/a.png": "/o/sub/r_files/a.png",
            "r.html_files/b/c": "/o/sub/r.html_files/b/c",
            "plots/1.png": "/o/plots/1.png",
            "plots/s/2.png": "/o/plots/s/2.png",
            "logs/a.log": "/o/logs/a.log",
            "tool_stdout": "/o/tool_stdout",
        }
        assert missing(found) == [("2/n.txt", "/o/n.txt")]

    @pytest.mark.parametrize("required", [True, False])
    def test_required_is_kept(self, required: bool) -> None:
        steps = [Step("output", name, FileAction("transfer", f"/o/{name}"), required) for name in ("here", "gone")]
        found = collect_declared(steps, Written(outputs=("here",)))
        assert [step.required for step in (*found.found, *found.missing)] == [required, required]

    def test_what_belongs_to_an_output_has_a_url_of_its_own(self) -> None:
        action = FileAction("remote_transfer", "/o/r.html", transfer_url(ENDPOINT, "/o/r.html", "output"))
        found = collect_declared([Step("output", "r.html", action)], Written(outputs=("r.html", "r_files/ä b")))
        assert [step.action.url for step in found.found] == [
            action.url,
            transfer_url(ENDPOINT, "/o/r_files/ä b", "output"),
        ]

    @pytest.mark.parametrize(
        "name",
        ["r_files/../../.bashrc", "r_files/../r.html", "r_files/a\0b", "r_files/a\\..\\b", "r_files/" + "x" * 999],
    )
    def test_a_name_that_leaves_is_refused_and_the_rest_is_found(self, name: str) -> None:
        steps = [Step("output", "r.html", FileAction("transfer", "/o/r.html"))]
        found = collect_declared(steps, Written(outputs=("r.html", name)))
        assert places(found) == {"output:r.html": "/o/r.html"}
        assert found.refused == (name,)

    def test_besides_what_the_peers_understand(self) -> None:
        """Names and actions of declared outputs count, the mapper is for the rest."""
        outputs = ClientOutputs("/w", output_files=("/a/x.dat", "/b/x.dat"), dynamic_outputs=("primary_",))
        declared = (
            Step("output", "x.dat", FileAction("remote_copy", "/a/x.dat")),
            Step("output", "2_x.dat", FileAction("remote_copy", "/b/x.dat"), required=True),
            Step("output_workdir", "log*", FileAction("copy", "/l/log*")),
        )
        written = Written(outputs=("x.dat", "2_x_files/e"), working=("log1", "primary_1"))
        found = collect(outputs, Mapper(), written, declared)
        assert {step.action.path: (step.name, step.action.type) for step in found.found} == {
            "/a/x.dat": ("x.dat", "remote_copy"),
            "/b/x_files/e": ("2_x_files/e", "transfer"),
            "/l/log1": ("log1", "copy"),
            "/w/primary_1": ("primary_1", "transfer"),
        }
        assert [(step.name, step.required) for step in found.missing] == [("2_x.dat", True)]

    def test_an_input_is_no_output(self) -> None:
        with pytest.raises(BadRequest, match="output_workdir"):
            collect_declared([Step("input", "a", FileAction("transfer", "/o/a"))], Written())
