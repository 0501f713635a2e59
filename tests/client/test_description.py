"""The plan of a Galaxy-shaped job: what travels under which name, who moves it, and what the texts say afterwards."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from hashlib import md5
from pathlib import Path
from typing import Any

import pytest

from lwr.client.description import DescribedPlan, InputFile, InputKind, JobDescription, LocalDisk, plan_description
from lwr.client.pathmapper import Names, PathMapper
from lwr.client.places import RemotePlaces
from lwr.core.mapper import ALL_KINDS, Mapper, Match, Rule
from lwr.core.outputs import ClientOutputs, Written, client_outputs_from_wire, collect
from lwr.core.staging import FileAction, Mover, plan_from_wire
from lwr.errors import BadRequest

DIRECTORIES = {
    "input": "inputs", "config": "configs", "tool": "tool_files", "workdir": "working", "metadata": "metadata",
    "unstructured": "unstructured", "output": "outputs", "output_workdir": "working", "output_metadata": "metadata",
}  # fmt: skip
PLACES = RemotePlaces("j", "/", {kind: f"/r/{name}" for kind, name in DIRECTORIES.items()})
WINDOWS = RemotePlaces("j", "\\", {kind: f"C:\\r\\{name}" for kind, name in DIRECTORIES.items()})
ENDPOINT = "http://galaxy/api/jobs/1/files?job_key=k"
INDEX = frozenset({"unstructured"})


class Galaxy:
    """A small Galaxy's disk."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.outputs = ClientOutputs(str(root / "w"))
        (root / "w").mkdir()

    def file(self, name: str, text: str = "x") -> str:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        return str(path)

    def path(self, name: str) -> str:
        return str(self.root / name)

    def job(self, command: str, inputs: Sequence[str | InputFile] = (), **changed: Any) -> JobDescription:
        files = [item if isinstance(item, InputFile) else InputFile(item) for item in inputs]
        return replace(JobDescription(command, self.outputs, input_files=files), **changed)

    def sent(self, plan: DescribedPlan) -> dict[str, str]:
        """Local file by remote name."""
        return {f"{s.kind}:{s.name}": s.action.path.removeprefix(f"{self.root}/") for s in plan.staging.inputs}


@pytest.fixture
def galaxy(tmp_path: Path) -> Galaxy:
    return Galaxy(tmp_path)


def planned(description: JobDescription, *rules: Rule, default: str = "transfer", **changed: Any) -> DescribedPlan:
    return plan_description(description, Mapper(rules, default, **changed), PLACES)


def hexed(path: str) -> str:
    return md5(path.encode(), usedforsecurity=False).hexdigest()


class TestInputs:
    def test_equal_basenames_and_extra_files(self, galaxy: Galaxy) -> None:
        one, two = galaxy.file("a/dataset_1.dat"), galaxy.file("b/dataset_1.dat")
        extra = galaxy.file("b/dataset_1_files/sub/e.txt")
        plan = planned(galaxy.job(f"x {one} '{two}' {extra}", [one, two]))
        assert galaxy.sent(plan) == {
            "input:dataset_1.dat": "a/dataset_1.dat",
            "input:2/dataset_1.dat": "b/dataset_1.dat",
            "input:2/dataset_1_files/sub/e.txt": "b/dataset_1_files/sub/e.txt",
        }
        assert plan.command_line == (
            "x /r/inputs/dataset_1.dat '/r/inputs/2/dataset_1.dat' /r/inputs/2/dataset_1_files/sub/e.txt"
        )

    def test_the_directory_of_extra_files_is_enough(self, galaxy: Galaxy) -> None:
        one, _ = galaxy.file("dataset_1.dat"), galaxy.file("dataset_1_files/e")
        directory = galaxy.path("dataset_1_files")
        for inputs in ([InputFile(one)], [InputFile(one), InputFile(directory, InputKind.EXTRA_FILES)]):
            plan = planned(galaxy.job(f"ls '{directory}'/*", inputs))
            assert galaxy.sent(plan) == {"input:dataset_1_files/e": "dataset_1_files/e"}
            assert plan.command_line == "ls '/r/inputs/dataset_1_files'/*"

    def test_only_what_is_mentioned_travels_and_that_must_be_there(self, galaxy: Galaxy) -> None:
        here, gone = galaxy.file("1.dat"), galaxy.path("2.dat")
        assert galaxy.sent(planned(galaxy.job(f"x {here}.idx", [here, gone]))) == {}
        with pytest.raises(BadRequest, match=r"2\.dat does not exist"):
            planned(galaxy.job(f"x {gone}", [here, gone]))
        assert planned(galaxy.job(f"x {gone}", [gone]), default="none").command_line == f"x {gone}"

    def test_what_galaxy_asked_for_travels_in_any_case(self, galaxy: Galaxy) -> None:
        one = galaxy.file("1.dat")
        plan = planned(galaxy.job("x", [one], rewrite_paths=False))
        assert galaxy.sent(plan) == {"input:1.dat": "1.dat"}
        with pytest.raises(BadRequest, match=r"2\.dat"):
            planned(galaxy.job("x", [galaxy.path("2.dat")], rewrite_paths=False))

    def test_metadata_files(self, galaxy: Galaxy) -> None:
        path = galaxy.file("m/7.dat")
        plan = planned(galaxy.job(f"x {path}", [InputFile(path, InputKind.METADATA)]))
        assert galaxy.sent(plan) == {"input:metadata_7.dat": "m/7.dat"}

    def test_rewritten_without_staging(self, galaxy: Galaxy) -> None:
        path, root = galaxy.file("data/1.dat"), galaxy.path("data")
        rule = Rule("rewrite", root, source_directory=root, destination_directory="/work/data")
        plan = planned(galaxy.job(f"x {path}", [path]), rule)
        assert (plan.command_line, plan.staging.inputs) == ("x /work/data/1.dat", ())


class TestTheRestOfTheJob:
    def test_tool_files_keep_their_directories(self, galaxy: Galaxy) -> None:
        script, helper = galaxy.file("tool/x.py"), galaxy.file("tool/lib/h.R")
        galaxy.file("tool/unused.py")
        tool = {"tool_directory": galaxy.path("tool")}
        plan = planned(galaxy.job(f'python "{script}" {helper} {galaxy.path("tool/$i.txt")}', **tool))
        assert galaxy.sent(plan) == {"tool:x.py": "tool/x.py", "tool:lib/h.R": "tool/lib/h.R"}
        assert plan.command_line.startswith('python "/r/tool_files/x.py" /r/tool_files/lib/h.R ')
        assert plan.absent == (galaxy.path("tool/$i.txt"),)
        # Also where Galaxy has put in all other paths itself.
        assert planned(galaxy.job(f"x {script}", rewrite_paths=False, **tool)).command_line == "x /r/tool_files/x.py"

    def test_working_and_metadata_directory_with_their_directories(self, galaxy: Galaxy) -> None:
        galaxy.file("w/sub/a")
        galaxy.file("w/a")
        galaxy.file("m/params.json")
        outputs = replace(galaxy.outputs, metadata_directory=galaxy.path("m"))
        plan = planned(
            galaxy.job(f"cd {galaxy.path('w')}; cat {galaxy.path('w/sub/a')}", outputs=outputs), default="none"
        )
        assert galaxy.sent(plan) == {
            "workdir:a": "w/a",
            "workdir:sub/a": "w/sub/a",
            "metadata:params.json": "m/params.json",
        }
        assert {step.action.type for step in plan.staging.inputs} == {"copy"}  # whatever a rule says
        assert plan.command_line == "cd /r/working; cat /r/working/sub/a"

    def test_files_of_the_job_directory_and_arbitrary_ones(self, galaxy: Galaxy) -> None:
        script, other = galaxy.file("j/tool_script.sh"), galaxy.file("idx/a")
        plan = planned(
            galaxy.job(f"x {other}", job_files=[script], arbitrary_files={other: "p/a"}),
            Rule("copy", kinds=INDEX, match=Match.ANY),
        )
        assert galaxy.sent(plan) == {"jobdir:tool_script.sh": "j/tool_script.sh", "unstructured:p/a": "idx/a"}
        assert plan.command_line == "x /r/unstructured/p/a"

    def test_configuration_files_are_rewritten_and_do_not_collide(self, galaxy: Galaxy) -> None:
        data = galaxy.file("1.dat")
        configs = [galaxy.file("c/a.ini", f"in={data}\r\n"), galaxy.file("d/a.ini", "same"), galaxy.file("c/empty", "")]
        Path(galaxy.path("c/binary")).write_bytes(b"\xff" + data.encode())
        configs.append(galaxy.path("c/binary"))
        plan = planned(galaxy.job(" ".join(["x", *configs]), [data], config_files=configs))
        assert plan.command_line == "x /r/configs/a.ini /r/configs/2_a.ini /r/configs/empty /r/configs/binary"
        assert {step.name: step.action.contents for step in plan.staging.inputs if step.kind == "config"} == {
            "a.ini": "in=/r/inputs/1.dat\r\n", "2_a.ini": "", "empty": "", "binary": "",
        }  # fmt: skip
        assert {step.action.mover for step in plan.staging.inputs} == {Mover.CLIENT}

    def test_scripts_are_rewritten_as_shells_read_them(self, galaxy: Galaxy) -> None:
        data = galaxy.file("1.dat")
        script = galaxy.file("s.sh", f"#!/bin/bash\ncat {data}\n")
        places = replace(PLACES, directories=dict(PLACES.directories) | {"input": "/r/in puts"})
        plan = plan_description(galaxy.job(script, [data], config_files=[script]), Mapper(), places)
        texts = [step.action.contents for step in plan.staging.inputs if step.kind == "config"]
        assert texts == ["#!/bin/bash\ncat '/r/in puts/1.dat'\n"]

    def test_a_configuration_file_that_is_not_there(self, galaxy: Galaxy) -> None:
        with pytest.raises(BadRequest, match="nowhere"):
            planned(galaxy.job("x", config_files=[galaxy.path("nowhere")]))

    def test_a_server_on_windows(self, galaxy: Galaxy) -> None:
        data, extra = galaxy.file("dataset_1.dat"), galaxy.file("dataset_1_files/s/e")
        job = galaxy.job(f'x "{data}" {extra} {galaxy.path("o.dat")}', [data], outputs=self.one_output(galaxy))
        plan = plan_description(job, Mapper(), WINDOWS)
        assert plan.command_line == (
            'x "C:\\r\\inputs\\dataset_1.dat" C:\\r\\inputs\\dataset_1_files\\s\\e C:\\r\\outputs\\o.dat'
        )

    def one_output(self, galaxy: Galaxy) -> ClientOutputs:
        return replace(galaxy.outputs, output_files=(galaxy.path("o.dat"),))


class TestOutputs:
    def test_each_has_a_place_of_its_own_and_an_action(self, galaxy: Galaxy) -> None:
        one, two, inner = galaxy.path("a/o.dat"), galaxy.path("b/o.dat"), galaxy.path("w/inner.dat")
        outputs = replace(
            galaxy.outputs,
            output_files=(one, two, inner),
            work_dir_outputs=((galaxy.path("w/sub/wd.txt"), one),),
            version_file=galaxy.path("v/VERSION"),
            required=frozenset({two}),
        )
        job = galaxy.job(f"x {one} {two} {two[:-4]}_files/e {inner} >{galaxy.path('v/VERSION')}", outputs=outputs)
        plan = planned(job, Rule("remote_copy", galaxy.path("b")))
        there = "x {0}/outputs/o.dat {0}/outputs/2_o.dat {0}/outputs/2_o_files/e {0}/working/inner.dat"
        assert plan.command_line == there.format("/r") + " >/r/outputs/COMMAND_VERSION"
        assert [(s.kind, s.name, s.action.path, s.action.type, s.required) for s in plan.staging.outputs] == [
            ("output_workdir", "sub/wd.txt", one, "transfer", False),
            ("output_workdir", "inner.dat", inner, "transfer", False),
            ("output", "2_o.dat", two, "remote_copy", True),
            ("output", "COMMAND_VERSION", galaxy.path("v/VERSION"), "transfer", False),
        ]

    def test_the_server_finds_what_was_planned(self, galaxy: Galaxy) -> None:
        one, two = galaxy.path("a/o.dat"), galaxy.path("b/o.dat")
        plan = planned(galaxy.job("x", outputs=replace(galaxy.outputs, output_files=(one, two))))
        sent = json.loads(json.dumps(plan.remote_staging))
        found = collect(
            client_outputs_from_wire(sent["client_outputs"]),
            Mapper(by_component=False),
            Written(outputs=("o.dat", "2_o.dat", "2_o_files/e")),
            plan.staging.outputs,
        )
        assert {step.name: step.action.path for step in found.found} == {
            "o.dat": one, "2_o.dat": two, "2_o_files/e": galaxy.path("b/o_files/e"),
        }  # fmt: skip


class TestWhatTheServerMoves:
    def test_setup_has_urls_and_rewritten_texts(self, galaxy: Galaxy) -> None:
        data = galaxy.file("1.dat")
        config, same = galaxy.file("a.ini", f"in={data}"), galaxy.file("b.ini", "same")
        job = galaxy.job("x", [data], config_files=[config, same])
        plan = planned(job, default="remote_transfer", files_endpoint=ENDPOINT)
        steps = plan_from_wire(json.loads(json.dumps(plan.remote_staging))).inputs
        assert {(s.name, s.action.type): s.action.contents for s in steps} == {
            ("1.dat", "remote_transfer"): "",
            ("a.ini", "message"): "in=/r/inputs/1.dat",
            ("b.ini", "remote_transfer"): "",
        }
        assert all(step.action.url.startswith(ENDPOINT) for step in steps if step.action.type == "remote_transfer")
        assert "job_key" not in repr(plan)

    def test_nothing_to_move_for_the_server(self, galaxy: Galaxy) -> None:
        assert set(planned(galaxy.job("x")).remote_staging) == {"action_mapper", "client_outputs"}


class TestUnstructuredFiles:
    def test_a_file_and_all_beside_it(self, galaxy: Galaxy) -> None:
        genome, index = galaxy.file("idx/bwa/hg.fa"), galaxy.file("idx/bwa/hg.fa.fai")
        galaxy.file("idx/bwa/.hidden/x")
        rule = Rule("transfer", galaxy.path("idx/**/*.fa"), Match.GLOB, INDEX, depth=1)
        config = galaxy.file("c.loc", f"hg\t{genome}\n")
        plan = planned(galaxy.job(f"x {genome}", config_files=[config]), rule)
        prefix = hexed(galaxy.path("idx/bwa"))
        sent = galaxy.sent(plan)
        assert sent.pop("config:c.loc")
        assert sent == {
            f"unstructured:{prefix}/hg.fa": "idx/bwa/hg.fa",
            f"unstructured:{prefix}/hg.fa.fai": "idx/bwa/hg.fa.fai",
            f"unstructured:{prefix}/.hidden/x": "idx/bwa/.hidden/x",
        }
        assert plan.command_line == f"x /r/unstructured/{prefix}/hg.fa"
        assert index not in [replaced.local for replaced in plan.replacements]

    def test_two_below_one_staged_directory_share_it(self, galaxy: Galaxy) -> None:
        paths = [galaxy.file("idx/a/1.fa"), galaxy.file("idx/b/2.fa"), galaxy.path("idx/b/2")]
        plan = planned(galaxy.job(" ".join(paths)), Rule("transfer", galaxy.path("idx"), kinds=INDEX, depth=2))
        prefix = hexed(galaxy.path("idx"))
        assert set(galaxy.sent(plan)) == {f"unstructured:{prefix}/a/1.fa", f"unstructured:{prefix}/b/2.fa"}
        # The last one is no file: the beginning of an index's names.
        assert plan.command_line == " ".join(f"/r/unstructured/{prefix}/{name}" for name in ("a/1.fa", "b/2.fa", "b/2"))

    def test_what_lies_in_a_staged_directory_belongs_to_it(self, galaxy: Galaxy) -> None:
        paths = [galaxy.file("idx/a/1.fa"), galaxy.file("idx/b/2.fa")]
        depths = {"idx/b": 1, "idx": 2}
        rules = (Rule("transfer", galaxy.path(name), kinds=INDEX, depth=depth) for name, depth in depths.items())
        plan = planned(galaxy.job(" ".join(paths)), *rules)
        prefix = hexed(galaxy.path("idx"))
        assert set(galaxy.sent(plan)) == {f"unstructured:{prefix}/a/1.fa", f"unstructured:{prefix}/b/2.fa"}

    def test_equal_basenames_and_directories(self, galaxy: Galaxy) -> None:
        one, two = galaxy.file("idx/a/x.fa"), galaxy.file("idx/b/x.fa")
        galaxy.file("idx/dir/s/y")
        plan = planned(
            galaxy.job(f"{one} {two} {galaxy.path('idx/dir')}/s"), Rule("copy", galaxy.path("idx"), kinds=INDEX)
        )
        assert set(galaxy.sent(plan)) == {
            f"unstructured:{hexed(galaxy.path('idx/a'))}/x.fa",
            f"unstructured:{hexed(galaxy.path('idx/b'))}/x.fa",
            f"unstructured:{hexed(galaxy.path('idx/dir'))}/s/y",
        }

    def test_each_further_file_has_its_own_action(self, galaxy: Galaxy) -> None:
        path = galaxy.file("idx/x.fa")
        galaxy.file("idx/big.bin")
        rules = (
            Rule("none", galaxy.path("idx/big.bin"), kinds=INDEX),
            Rule("transfer", galaxy.path("idx"), kinds=INDEX, depth=1),
        )
        assert list(galaxy.sent(planned(galaxy.job(path), *rules)).values()) == ["idx/x.fa"]

    def test_rewrite_and_none(self, galaxy: Galaxy) -> None:
        rules = (
            Rule("none", "/ref/shared", kinds=INDEX),
            Rule("rewrite", "/ref", kinds=INDEX, source_directory="/ref", destination_directory="/work/ref"),
        )
        plan = planned(galaxy.job("x /ref/a.fa '/ref/b,/ref/shared/c' /other/d /reference"), *rules)
        assert plan.command_line == "x /work/ref/a.fa '/work/ref/b,/ref/shared/c' /other/d /reference"
        assert plan.staging.inputs == ()

    def test_a_regular_expression_finds_its_group(self, galaxy: Galaxy) -> None:
        path = galaxy.file("idx/x.fa")
        rule = Rule("transfer", r"DB=(\S+);", Match.REGEX, INDEX)
        plan = planned(galaxy.job(f"DB={path}; x {path}2"), rule)
        assert plan.command_line == f"DB=/r/unstructured/{hexed(galaxy.path('idx'))}/x.fa; x {path}2"

    def test_what_is_not_there_is_told_and_left(self, galaxy: Galaxy) -> None:
        plan = planned(galaxy.job(f"x {galaxy.path('idx/gone')}"), Rule("copy", galaxy.path("idx"), kinds=INDEX))
        assert (plan.absent, plan.command_line) == ((galaxy.path("idx/gone"),), f"x {galaxy.path('idx/gone')}")

    def test_files_of_the_job_are_not_taken_for_it(self, galaxy: Galaxy) -> None:
        data, script, work = galaxy.file("1.dat"), galaxy.file("tool/x.py"), galaxy.file("w/a")
        outputs = replace(galaxy.outputs, output_files=(galaxy.path("o.dat"),))
        job = galaxy.job(
            f"{script} {data} {work} {galaxy.path('o.dat')} {galaxy.path('o_files/x')}",
            [data], tool_directory=galaxy.path("tool"), outputs=outputs,
        )  # fmt: skip
        plan = planned(job, Rule("transfer", str(galaxy.root), kinds=frozenset(ALL_KINDS), depth=1))
        assert set(galaxy.sent(plan)) == {"tool:x.py", "input:1.dat", "workdir:a"}
        assert plan.absent == ()


class TestPathMapper:
    """What Galaxy asks when it fills the template itself."""

    def asked(
        self, galaxy: Galaxy, *rules: Rule, default: str = "transfer", places: RemotePlaces = PLACES
    ) -> PathMapper:
        return PathMapper(Mapper(rules, default), places, galaxy.path("w"), LocalDisk())

    def test_names_are_given_once_and_the_plan_has_the_same(self, galaxy: Galaxy) -> None:
        one, two = galaxy.file("a/1.dat"), galaxy.file("b/1.dat")
        paths = self.asked(galaxy)
        assert paths.input(two) == "/r/inputs/1.dat"
        assert [paths.input(one), paths.input(two)] == ["/r/inputs/2/1.dat", "/r/inputs/1.dat"]
        job = galaxy.job("x", [one, two], rewrite_paths=False)
        assert galaxy.sent(plan_description(job, paths.mapper, PLACES, paths)) == {
            "input:2/1.dat": "a/1.dat",
            "input:1.dat": "b/1.dat",
        }

    def test_outputs_version_and_configuration(self, galaxy: Galaxy) -> None:
        paths = self.asked(galaxy, places=WINDOWS)
        assert paths.output("/g/o.dat") == "C:\\r\\outputs\\o.dat"
        assert paths.output(galaxy.path("w/s/o.dat")) == "C:\\r\\working\\s\\o.dat"
        assert paths.output(galaxy.path("w2/p.dat")) == "C:\\r\\outputs\\p.dat"
        assert paths.version("/g/VERSION") == "C:\\r\\outputs\\COMMAND_VERSION"
        assert [paths.config("/a/c"), paths.config("/b/c")] == ["C:\\r\\configs\\c", "C:\\r\\configs\\2_c"]

    def test_what_stays_where_it_is(self, galaxy: Galaxy) -> None:
        paths = self.asked(galaxy, default="none")
        assert (paths.input("/g/1"), paths.output("/g/1"), paths.version("/g/v")) == (None, None, None)
        assert paths.output(galaxy.path("w/o")) == "/r/working/o"
        rule = Rule("rewrite", "/g", source_directory="/g", destination_directory="D:\\g")
        assert self.asked(galaxy, rule, places=WINDOWS).input("/g/a/1") == "D:\\g\\a\\1"

    def test_any_other_path(self, galaxy: Galaxy) -> None:
        path, _ = galaxy.file("idx/x.fa"), galaxy.file("idx/x.fai")
        paths = self.asked(galaxy, Rule("transfer", galaxy.path("idx"), kinds=INDEX, depth=1))
        arbitrary = paths.unstructured(path)
        prefix = hexed(galaxy.path("idx"))
        assert arbitrary.remote == f"/r/unstructured/{prefix}/x.fa"
        files = {step.action.path: step.name for step in arbitrary.steps}
        assert files == {path: f"{prefix}/x.fa", galaxy.path("idx/x.fai"): f"{prefix}/x.fai"}
        job = galaxy.job("x", arbitrary_files=files, rewrite_paths=False)
        plan = plan_description(job, paths.mapper, PLACES, paths)
        assert {step.action: step.name for step in plan.staging.inputs} == {
            FileAction("transfer", local): name for local, name in files.items()
        }
        assert paths.unstructured("/elsewhere") == type(arbitrary)()

    def test_no_two_names_are_one_or_inside_of_another(self) -> None:
        names = Names()
        asked = ["a", "A", "a/b", "b/c", "b", "2/a", "2"]
        given = [names.of(str(number), wanted) for number, wanted in enumerate(asked)]
        assert len({name.casefold() for name in given}) == len(asked)
        assert not any(two.casefold().startswith(f"{one.casefold()}/") for one in given for two in given)
