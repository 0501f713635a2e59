"""Jobs of Galaxy's shape, whole, on a real server: every action with real bytes, and what a hostile server tries."""

from __future__ import annotations

import json
import os
import secrets
import shlex
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from lwr.client import Event, Outcome, RemoteServer, SetUp, Submitted, Travel
from lwr.client.described import DescribedJob, resume_described, run_described
from lwr.client.description import InputFile, InputKind, JobDescription
from lwr.client.rules import mapper_from_file
from lwr.core.mapper import CONFIGURABLE, Mapper
from lwr.core.outputs import PULSAR_DYNAMIC_OUTPUTS, ClientOutputs
from lwr.core.receipt import FileState
from lwr.core.staging import ACTIONS, Mover, Ssh
from lwr.errors import BadRequest, PeerError
from tests.client.scripted import Answer, json_answer, scripted
from tests.machines.job_files import JobFilesServer
from tests.machines.sshd import Sshd
from tests.server.http.served import Served, served

KEY = "a-job-key-that-nobody-may-see"
CONTENT = secrets.token_bytes(300_000)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(tmp_path_factory.mktemp("served")) as one:
        yield one


@pytest.fixture
def server(running: Served) -> Iterator[RemoteServer]:
    with RemoteServer(running.url) as remote:
        yield remote


class Galaxy:
    """A small Galaxy's disk."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.outputs = ClientOutputs(self.made("job/working"), self.made("job/metadata"))

    def made(self, name: str) -> str:
        (self.root / name).mkdir(parents=True)
        return self.path(name)

    def file(self, name: str, content: str | bytes = "x") -> str:
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return str(path)

    def path(self, name: str) -> str:
        return str(self.root / name)

    def mapper(self, text: str, default: str = "transfer", endpoint: str = "", ssh: Ssh | None = None) -> Mapper:
        """The mapper of an admin's file; `DISK` in it is this disk."""
        where = json.dumps(str(self.root))[1:-1]
        file = Path(self.file("actions.yaml", text.replace("DISK", where)))
        return mapper_from_file(file, default_action=default, files_endpoint=endpoint, ssh=ssh)

    def text(self, name: str) -> str:
        return (self.root / name).read_text()


@pytest.fixture
def galaxy(tmp_path: Path) -> Galaxy:
    """Its name is one that shells take badly."""
    return Galaxy(tmp_path / 'a "disk"')


def words(*paths: str) -> str:
    return shlex.join(paths)


def moved(outcome: Outcome) -> set[tuple[bool, str, str, str]]:
    assert {record.state for record in outcome.records} <= {FileState.WHOLE}, outcome.records
    return {(record.upward, record.kind, record.mover, record.action) for record in outcome.records}


def submitted(events: list[Event]) -> str:
    return next(event.command_line for event in events if isinstance(event, Submitted))


#: Server-side copies out of Galaxy's object store need one.
ACTIONS_TRIED = [name for name in CONFIGURABLE if name != "remote_object_store_copy"]
RULES = """\
paths:
  - path: "DISK/data"
    path_types: "*any*"
    action: ACTION
"""


@pytest.fixture(scope="module")
def ssh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ssh]:
    with Sshd(tmp_path_factory.mktemp("sshd")) as sshd:
        yield Ssh(sshd.user, sshd.host, sshd.port, sshd.private_key)


class TestEveryAction:
    @pytest.fixture
    def endpoint(self, galaxy: Galaxy) -> Iterator[str]:
        with JobFilesServer(galaxy.root, KEY) as files:
            yield files.endpoint

    @pytest.mark.parametrize("action", ACTIONS_TRIED)
    def test_both_ways(self, action: str, galaxy: Galaxy, server: RemoteServer, endpoint: str, ssh: Ssh) -> None:
        data, result = galaxy.file("data/it's in put.dat", CONTENT), galaxy.path("data/it's out put.dat")
        index, script = galaxy.file("data/index.fa", "an index\n"), galaxy.path("data/configs/run.sh")
        galaxy.file("data/configs/run.sh", f"#!/bin/sh\ncat {words(data, index)} > {words(result)}\nls ../inputs\n")
        text = RULES
        if action == "rewrite":
            # The server sees the same disk under another name.
            (galaxy.root / "mounted").symlink_to(galaxy.root / "data")
            text += '    source_directory: "DISK/data"\n    destination_directory: "DISK/mounted"\n'
        job = JobDescription(
            f"sh {words(script)}",
            replace(galaxy.outputs, output_files=(result,)),
            config_files=[script],
            input_files=[InputFile(data)],
        )
        mapper = galaxy.mapper(text.replace("ACTION", action), endpoint=endpoint, ssh=ssh)
        events: list[Event] = []
        outcome = run_described(server, job, travel=Travel(mapper), on_event=events.append)
        assert (outcome.status.state, outcome.status.exit_code) == ("complete", 0), outcome.status.stderr
        assert Path(result).read_bytes() == CONTENT + b"an index\n"
        assert (outcome.missing, outcome.refused) == ((), ())
        mover = ACTIONS[action].mover
        text_action = {Mover.CLIENT: ("client", "transfer"), Mover.SERVER: ("server", "message")}
        moves = {(True, "input"), (True, "unstructured"), (False, "output")} if mover is not Mover.NOBODY else set()
        expected = {(*move, str(mover), action) for move in moves}
        expected |= {(True, "config", *text_action[mover])} if mover in text_action else set()
        assert moved(outcome) == expected
        assert outcome.collected == ((Path(result),) if mover is Mover.CLIENT else ())
        assert outcome.status.stdout == ("it's in put.dat\n" if moves else "")
        if action in ("none", "rewrite"):
            assert ("mounted" in submitted(events)) == (action == "rewrite")
        assert KEY not in repr(outcome) + repr(events)


DOCUMENTED = """\
paths: 
  # Use transfer (or remote_transfer) if only Galaxy mounts a directory.
  - path: "DISK/galaxy/files/store/1"
    action: transfer

  # Use copy (or remote_copy) if remote LWR server also mounts the directory
  # but the actual compute servers do not.
  - path: "DISK/galaxy/files/store/2"
    action: copy

  # If Galaxy, the LWR, and the compute nodes all mount the same directory
  # staging can be disabled altogether for given paths.
  - path: "DISK/galaxy/files/store/3"
    action: none

  # Following block demonstrates specifying paths by globs as well as rewriting
  # unstructured data in .loc files.
  - path: "DISK/mnt/indices/**/bwa/**/*.fa"
    match_type: glob
    path_types: unstructured  # Set to *any* to apply to defaults & unstructured paths.
    action: transfer
    depth: 1  # Stage whole directory with job and just file.

  # Following block demonstrates rewriting paths without staging. Useful for
  # instance if Galaxy's data indices are mounted on both servers but with
  # different paths.
  - path: "DISK/galaxy/data"
    path_types: unstructured
    action: rewrite
    source_directory: "DISK/galaxy/data"
    destination_directory: "DISK/work/galaxy/data"
"""  # noqa: W291  # as it was published


def test_the_documentations_example(tmp_path: Path, server: RemoteServer) -> None:
    galaxy = Galaxy(tmp_path / "plain")  # nobody can tell where a path with blanks ends in a .loc file
    stores = [galaxy.file(f"galaxy/files/store/{number}/in.dat", f"store {number}\n") for number in (1, 2, 3)]
    results = [galaxy.path(f"galaxy/files/store/{number}/out.dat") for number in (1, 2, 3)]
    galaxy.file("mnt/indices/hg19/bwa/hg19.fa", "genome\n")
    galaxy.file("mnt/indices/hg19/bwa/hg19.fa.bwt", "beside it\n")
    galaxy.file("mnt/indices/hg19/other/not.fa", "not staged\n")
    galaxy.file("galaxy/data/ref.2bit", "Galaxy's\n")
    galaxy.file("work/galaxy/data/ref.2bit", "the server's\n")
    genome, reference = galaxy.path("mnt/indices/hg19/bwa/hg19.fa"), galaxy.path("galaxy/data/ref.2bit")
    loc = galaxy.file("tool.loc", f"{genome}\n{reference}\n")
    first, second, third = results
    command = (
        f"cat {words(*stores)} > {words(first)}; "
        f'while read -r path; do cat "$path"; done < {words(loc)} > {words(second)}; '
        f"{{ ls ../unstructured/*; cat {words(genome + '.bwt')}; ls ../inputs; }} > {words(third)}; cat {words(loc)}"
    )
    job = JobDescription(
        command,
        replace(galaxy.outputs, output_files=tuple(results)),
        config_files=[loc],
        input_files=[InputFile(path) for path in stores],
    )
    events: list[Event] = []
    outcome = run_described(server, job, travel=Travel(galaxy.mapper(DOCUMENTED)), on_event=events.append)
    assert (outcome.status.stderr, outcome.missing) == ("", ())
    assert galaxy.text("galaxy/files/store/1/out.dat") == "store 1\nstore 2\nstore 3\n"
    assert galaxy.text("galaxy/files/store/2/out.dat") == "genome\nthe server's\n"
    assert galaxy.text("galaxy/files/store/3/out.dat") == "hg19.fa\nhg19.fa.bwt\nbeside it\n2\nin.dat\n"
    assert words(stores[2]) in submitted(events)
    assert moved(outcome) == {
        (True, "config", "client", "transfer"),
        (True, "input", "client", "copy"),
        (True, "input", "client", "transfer"),
        (True, "unstructured", "client", "transfer"),
        (False, "output", "client", "copy"),
        (False, "output", "client", "transfer"),
    }


def test_everything_that_a_job_can_have(galaxy: Galaxy, server: RemoteServer, running: Served) -> None:
    inputs = [galaxy.file(f"{name}/dataset_1.dat", f"{name}\n") for name in ("one", "two")]
    extra = galaxy.file("two/dataset_1_files/sub dir/e.txt", "extra\n")
    metadata = galaxy.file("meta/metadata_9.dat", "bai\n")
    tool = galaxy.file("tools/bwa/lib/helper.sh", '#!/bin/sh\necho helped by "$1"\n')
    config = galaxy.file("configs/tool.ini", f"path = {inputs[1]}\n")
    galaxy.file("job/working/sub/given.txt", "given\n")
    galaxy.file("job/metadata/params/one", "params\n")
    dynamic = {"filename": "found/two.txt", "ext": "txt"}
    results = {
        name: galaxy.path(f"out/{name}.dat") for name in ("plain", "from_wd", "tree", "glob", "touched", "never")
    }
    inside, work = galaxy.path("job/working/direct.dat"), Path(galaxy.outputs.working_directory)
    outputs = replace(
        galaxy.outputs,
        output_files=(*results.values(), inside),
        work_dir_outputs=tuple(
            (str(work / source), results[name])
            for source, name in (("deep/wd.txt", "from_wd"), ("a tree", "tree"), ("*.tsv", "glob"))
        ),
        version_file=galaxy.path("job/VERSION"),
        dynamic_outputs=PULSAR_DYNAMIC_OUTPUTS,
        dynamic_sources=(("galaxy.json", "galaxy"),),
    )
    own_extra = f"{results['plain'].removesuffix('.dat')}_files"
    command = f"""
        cat {words(*inputs, extra, metadata)} sub/given.txt ../metadata/params/one \
            {words(config)} > {words(results["plain"])}
        sh {words(tool)} "$WHO" >> {words(results["plain"])}
        mkdir -p {words(own_extra + "/sub")} deep found primary_dir 'a tree/b'
        echo beside > {words(own_extra + "/sub/x.png")}
        echo wd > deep/wd.txt; echo leaf > 'a tree/b/leaf'; echo 1 > 1.tsv; echo direct > {words(inside)}
        echo found > found/two.txt; echo no > found/other.txt; echo p > primary_dir/p
        echo {words(json.dumps(dynamic))} > galaxy.json
        echo 1.2 > {words(outputs.version_file)}; echo said > ../metadata/tool_stdout
    """
    job = JobDescription(
        command,
        outputs,
        tool_id="bwa",
        tool_directory=galaxy.path("tools/bwa"),
        config_files=[config],
        input_files=[*(InputFile(path) for path in inputs), InputFile(metadata, InputKind.METADATA)],
        env=[{"name": "WHO", "value": "all"}],
        touch_outputs=["touched.dat"],
    )
    outcome = run_described(server, job, job_id="everything", travel=Travel(at_a_time=3), keep=True)
    assert (outcome.status.state, outcome.status.exit_code) == ("complete", 0), outcome.status.stderr
    there = running.staging / "everything"
    configured = f"path = {there}/inputs/2/dataset_1.dat\n"
    assert galaxy.text("out/plain.dat") == (f"one\ntwo\nextra\nbai\ngiven\nparams\n{configured}helped by all\n")
    assert galaxy.text("out/plain_files/sub/x.png") == "beside\n"
    assert [galaxy.text(f"out/{name}") for name in ("from_wd.dat", "tree.dat/b/leaf", "glob.dat", "touched.dat")] == [
        "wd\n", "leaf\n", "1\n", "",
    ]  # fmt: skip
    assert galaxy.text("job/VERSION") == "1.2\n"
    assert Path(inside).read_text() == "direct\n"
    assert galaxy.text("job/working/found/two.txt") == "found\n"
    assert galaxy.text("job/working/primary_dir/p") == "p\n"
    assert galaxy.text("job/metadata/tool_stdout") == "said\n"
    assert not (work / "found" / "other.txt").exists()
    assert (outcome.missing, outcome.refused) == (("never.dat",), ())
    assert not Path(results["never"]).exists()
    assert (there / "tool_files" / "lib" / "helper.sh").exists()
    assert (there / "inputs" / "2" / "dataset_1_files" / "sub dir" / "e.txt").exists()
    server.clean("everything")


def test_galaxy_asks_for_each_path(galaxy: Galaxy, server: RemoteServer, running: Served) -> None:
    """`rewrite_parameters`: the command has remote paths when it is described."""
    data = [galaxy.file(f"{name}/d.dat", f"{name}\n") for name in ("a", "b")]
    index = galaxy.file("idx/x.fa", "index\n")
    first, second = galaxy.path("o1/o.dat"), galaxy.path("o2/o.dat")
    outputs = replace(galaxy.outputs, output_files=(second, first), version_file=galaxy.path("v/VERSION"))
    rules = 'paths:\n  - path: "DISK/idx"\n    path_types: unstructured\n    action: transfer\n'
    job = DescribedJob(server, travel=Travel(galaxy.mapper(rules)))
    places = job.set_up("cat", "1.0")
    assert places.job_directory == str(running.staging / job.job_id)
    paths = job.paths(outputs.working_directory)
    remote = [paths.input(path) for path in data]
    targets = [paths.output(first), paths.output(second)]
    arbitrary = paths.unstructured(index)
    version = paths.version(outputs.version_file)
    assert all(
        path and path.startswith(places.job_directory) for path in (*remote, *targets, version, arbitrary.remote)
    )
    command = (
        f"cat {remote[0]} {arbitrary.remote} > {targets[0]}; cat {remote[1]} > {targets[1]}; echo 2 > {version}; "
        f"echo {words(data[0])}"
    )
    description = JobDescription(
        command,
        outputs,
        input_files=[InputFile(path) for path in data],
        arbitrary_files={step.action.path: step.name for step in arbitrary.steps},
        rewrite_paths=False,
    )
    plan = job.stage_in(description, paths)
    assert plan.command_line == command
    job.submit()
    outcome = job.collect(job.wait(), outputs, paths)
    assert outcome.missing == ()
    assert (Path(first).read_text(), Path(second).read_text()) == ("a\nindex\n", "b\n")
    assert galaxy.text("v/VERSION") == "2\n"
    job.clean()


def test_nothing_comes_back_of_a_job_that_failed(galaxy: Galaxy, server: RemoteServer) -> None:
    gone, result = galaxy.file("gone.dat"), galaxy.path("out.dat")
    job = JobDescription(
        f"cat {words(gone)} > {words(result)}",
        replace(galaxy.outputs, output_files=(result,)),
        input_files=[InputFile(gone)],
    )
    mapper = galaxy.mapper("paths: []", default="remote_copy")
    started = DescribedJob(server, travel=Travel(mapper))
    started.set_up()
    started.stage_in(job)
    Path(gone).unlink()
    started.submit()
    outcome = started.collect(started.wait(), job.outputs)
    assert (outcome.status.state, outcome.collected, outcome.records) == ("failed", (), ())
    assert "gone.dat" in outcome.status.stderr
    started.clean()


def test_submit_needs_a_description(server: RemoteServer) -> None:
    with pytest.raises(BadRequest, match="no description yet"):
        DescribedJob(server).submit()


class TestKnownJobsDirectory:
    """`jobs_directory`: the places are computed here."""

    def job(self, galaxy: Galaxy) -> JobDescription:
        data, result = galaxy.file("remote/in.dat", "far\n"), galaxy.path("remote/out.dat")
        return JobDescription(
            f"cat {words(data)} > {words(result)}",
            replace(galaxy.outputs, output_files=(result,)),
            input_files=[InputFile(data)],
        )

    def test_the_setup_goes_with_the_submit(self, galaxy: Galaxy, server: RemoteServer, running: Served) -> None:
        mapper = galaxy.mapper("paths: []", default="remote_copy")
        job = DescribedJob(server, job_id="carried", travel=Travel(mapper, f"{running.staging}/"))
        places = job.set_up("cat", "1.0")
        job.stage_in(self.job(galaxy))
        assert not (running.staging / "carried").exists()
        job.submit()
        outcome = job.collect(job.wait(), self.job(galaxy).outputs)
        assert places.job_directory == str(running.staging / "carried")
        assert galaxy.text("remote/out.dat") == "far\n"
        assert moved(outcome) == {
            (up, kind, "server", "remote_copy") for up, kind in ((True, "input"), (False, "output"))
        }
        assert server.job("carried")["tool_id"] == "cat"
        job.clean()

    @pytest.mark.parametrize("action", ["transfer", "copy"])
    def test_with_files_that_the_client_moves(
        self, action: str, galaxy: Galaxy, server: RemoteServer, running: Served
    ) -> None:
        near = galaxy.file("near/in.dat", "near\n")
        result = galaxy.path("near/out.dat")
        job = self.job(galaxy)
        job = replace(
            job,
            command_line=f"{job.command_line}; cat {words(near)} > {words(result)}",
            input_files=[*job.input_files, InputFile(near)],
            outputs=replace(job.outputs, output_files=(*job.outputs.output_files, result)),
        )
        rules = (
            f'paths:\n  - path: "DISK/remote"\n    action: remote_copy\n  - path: "DISK/near"\n    action: {action}\n'
        )
        events: list[Event] = []
        travel = Travel(galaxy.mapper(rules), str(running.staging))
        outcome = run_described(server, job, travel=travel, on_event=events.append)
        assert (galaxy.text("remote/out.dat"), Path(result).read_text()) == ("far\n", "near\n")
        assert {(mover, action) for _, _, mover, action in moved(outcome)} == {
            ("server", "remote_copy"),
            ("client", action),
        }
        assert sum(isinstance(event, SetUp) for event in events) == 1

    def test_another_directory_is_noticed(self, galaxy: Galaxy, server: RemoteServer, tmp_path: Path) -> None:
        travel = Travel(jobs_directory=str(tmp_path / "elsewhere"))
        with pytest.raises(PeerError, match="elsewhere"):
            run_described(server, self.job(galaxy), travel=travel)


class TestTakenUpAgain:
    def test_by_the_outputs_alone(self, galaxy: Galaxy, server: RemoteServer, running: Served) -> None:
        """Names on the server follow from the description, also where basenames are equal."""
        data = galaxy.file("in.dat", "data\n")
        wd, first, second = (galaxy.path(f"{name}/o.dat") for name in ("w", "a", "b"))
        outputs = replace(
            galaxy.outputs,
            output_files=(wd, first, second),
            work_dir_outputs=((galaxy.path("job/working/w.txt"), wd),),
        )
        description = JobDescription(
            f"cat {words(data)} > {words(first)}; echo 2 > {words(second)}; echo w > w.txt",
            outputs,
            input_files=[InputFile(data)],
        )
        begun = DescribedJob(server)
        begun.set_up()
        begun.stage_in(description)
        begun.submit()
        Path(data).unlink()
        with RemoteServer(running.url) as another:
            outcome = resume_described(another, description, begun.job_id)
        assert (outcome.missing, outcome.not_cleaned) == ((), "")
        assert [Path(path).read_text() for path in (wd, first, second)] == ["w\n", "data\n", "2\n"]
        assert server.status(begun.job_id).state == "lost"

    def test_before_it_was_submitted(self, galaxy: Galaxy, server: RemoteServer) -> None:
        data, result = galaxy.file("in.dat", "data\n"), galaxy.path("out.dat")
        description = JobDescription(
            f"cat {words(data)} > {words(result)}",
            replace(galaxy.outputs, output_files=(result,)),
            input_files=[InputFile(data)],
        )
        begun = DescribedJob(server)
        begun.set_up()
        resume_described(server, description, begun.job_id)
        assert galaxy.text("out.dat") == "data\n"


def finished(**changed: Any) -> Answer:
    """A final status, as a server tells it."""
    return json_answer({"job_id": "h", "complete": "true", "status": "complete", "returncode": 0, **changed})


def tree(root: Path) -> dict[str, bytes]:
    return {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}


class TestHostileServers:
    """Whatever names are told, nothing is written outside of the directories of the outputs."""

    @pytest.mark.parametrize("separator", ["/", "\\"])
    def test_names_that_lead_away(self, separator: str, tmp_path: Path) -> None:
        galaxy = Galaxy(tmp_path / "disk")
        result = galaxy.path("out/o.dat")
        bad = [
            "../../evil", "primary_/../../../evil", "/etc/evil", f"{tmp_path}/evil", "C:\\evil", "C:evil", "primary_\0",
            "..", "primary_/..", "primary_//../../evil", "..\\..\\evil", "primary_/./../../evil",
        ]  # fmt: skip
        named = json.dumps([{"filename": name, "extra_files": name} for name in bad])
        status = finished(
            outputs_directory_contents=["o.dat", "o_files/ok", *(f"o_files/{name}" for name in bad), *bad],
            working_directory_contents=["primary_good", "tree/leaf", *(f"tree/{name}" for name in bad), *bad],
            metadata_directory_contents=bad,
            job_directory_contents=bad,
            realized_dynamic_file_sources=[{"path": "galaxy.json", "type": "galaxy", "contents": named}, 3, {}],
            system_properties={"separator": separator},
        )
        outputs = replace(
            galaxy.outputs,
            job_directory=galaxy.made("job/outer"),
            output_files=(result,),
            work_dir_outputs=((galaxy.path("job/working/tree"), galaxy.path("out/tree")),),
            dynamic_outputs=(".*",),
        )
        with scripted(status, Answer(body=b"evil")) as hostile, RemoteServer(hostile.url) as server:
            outcome = DescribedJob(server, job_id="h").collect(server.status("h"), outputs)
        written = {name.removeprefix("disk/") for name in tree(tmp_path)}
        assert {"out/o.dat", "out/tree/leaf", "job/working/primary_good"} <= written
        allowed = ("out/o.dat", "out/o_files/", "out/tree/", "job/working/", "job/metadata/", "job/outer/")
        assert {name for name in written if not name.startswith(allowed)} == set()
        assert "../../evil" in {name.replace("\\", "/") for name in outcome.refused}

    def test_links_on_this_disk(self, galaxy: Galaxy, tmp_path: Path) -> None:
        """A directory is not left through a link in it; a link in a result's place is replaced, not followed."""
        outside = tmp_path / "outside"
        outside.mkdir()
        (outside / "file").write_text("mine")
        work = Path(galaxy.outputs.working_directory)
        (work / "primary_dir").symlink_to(outside)
        (work / "primary_file").symlink_to(outside / "file")
        status = finished(working_directory_contents=["primary_dir/evil", "primary_file", "primary_new/x"])
        outputs = replace(galaxy.outputs, dynamic_outputs=("primary_",))
        with scripted(status, Answer(body=b"evil")) as hostile, RemoteServer(hostile.url) as server:
            outcome = DescribedJob(server, job_id="h").collect(server.status("h"), outputs)
        assert tree(outside) == {"file": b"mine"}
        assert outcome.refused == ("primary_dir/evil",)
        assert sorted(path.name for path in outcome.collected) == ["primary_file", "x"]
        assert not (work / "primary_file").is_symlink()

    def test_a_result_to_copy_that_is_a_link_out_of_the_job(self, galaxy: Galaxy, tmp_path: Path) -> None:
        secret, result = galaxy.file("private/secret"), galaxy.path("out/o.dat")
        there = tmp_path / "staging" / "h" / "outputs" / "o.dat"
        there.parent.mkdir(parents=True)
        there.symlink_to(secret)
        answers = finished(outputs_directory_contents=["o.dat"]), json_answer({"path": str(there)})
        outputs = replace(galaxy.outputs, output_files=(result,))
        travel = Travel(galaxy.mapper("paths: []", default="copy"))
        with scripted(*answers) as hostile, RemoteServer(hostile.url) as server:
            status = server.status("h")
            with pytest.raises(BadRequest, match="link that leads out"):
                DescribedJob(server, job_id="h", travel=travel).collect(status, outputs)
        assert not os.path.lexists(result)


def test_what_is_submitted(galaxy: Galaxy) -> None:
    """To a server that knows neither receipts nor the newer places."""
    place = "/there/7"
    reply = {name: f"{place}/{name}" for name in ("working_directory", "outputs_directory", "inputs_directory")}
    result = galaxy.path("o.dat")
    outputs = replace(galaxy.outputs, output_files=(result,), dynamic_sources=(("galaxy.json", "galaxy"),))
    description = JobDescription(
        f"echo > {words(result)}",
        outputs,
        dependencies={"requirements": [{"name": "bwa"}], "installed_tool_dependencies": []},
        params={"native_specification": "-q long"},
        touch_outputs=["o.dat"],
        env=[{"file": "/etc/profile"}],
    )
    mapper = galaxy.mapper("paths: []", default="remote_copy", ssh=Ssh(key="a private key"))
    no_route = json_answer({}, status=404)
    with (
        scripted(
            json_answer({"job_id": "7", **reply}), Answer(), finished(outputs_directory_contents=["o.dat"]), no_route
        ) as old,
        RemoteServer(old.url) as server,
    ):
        job = DescribedJob(server, travel=Travel(mapper))
        job.set_up()
        job.stage_in(description)
        job.submit()
        outcome = job.collect(job.wait(), outputs)
    assert (outcome.missing, outcome.records) == ((), ())
    sent = {key: values[0] for key, values in parse_qs(urlsplit(old.asked[1].target).query).items()}
    assert sent.pop("command_line") == f"echo > '{place}/outputs_directory/o.dat'"
    assert sent.pop("job_id") == "7"
    told = {key: json.loads(value) for key, value in sent.items()}
    staging = told.pop("remote_staging")
    assert told == {
        "dependencies_description": description.dependencies,
        "params": description.params,
        "submit_extras": {"touch_outputs": ["o.dat"]},
        "env": [{"file": "/etc/profile"}],
        "dynamic_file_sources": [{"path": "galaxy.json", "type": "galaxy"}],
    }
    assert set(staging) == {"action_mapper", "client_outputs", "outputs", "ssh_key"}
    assert staging["client_outputs"]["output_files"] == [result]
    assert [(entry["name"], entry["action"]["action_type"]) for entry in staging["outputs"]] == [
        ("o.dat", "remote_copy")
    ]
