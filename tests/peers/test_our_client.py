"""Our client against Pulsar's own server: jobs of Galaxy's shape, whole, as far as that server goes."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from benchmarks import servers

from lwr.client import RemoteServer, Travel
from lwr.client.described import run_described
from lwr.client.description import InputFile, JobDescription
from lwr.core.mapper import Mapper
from lwr.core.outputs import PULSAR_DYNAMIC_OUTPUTS, ClientOutputs
from tests.machines.job_files import JobFilesServer

pytestmark = pytest.mark.peer


@pytest.fixture(scope="module")
def pulsar(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Path]]:
    """Its URL and its staging directory."""
    if not (servers.PULSAR_BIN / "pulsar-serve").exists():
        why = "pulsar-app is not installed: `make peers` does it"
        if os.environ.get("CI"):
            pytest.fail(why)
        pytest.skip(why)
    directory = tmp_path_factory.mktemp("pulsar")
    with servers.pulsar(directory) as server:
        yield server.url, directory / "files"


@pytest.mark.parametrize("known", ["asked", "computed"])
@pytest.mark.parametrize("action", ["transfer", "copy", "remote_copy", "remote_transfer"])
def test_a_job(action: str, known: str, pulsar: tuple[str, Path], tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    for name, text in (
        ("in.dat", "data\n"),
        ("c.ini", f"in={disk}/in.dat\n"),
        ("w/given", "given\n"),
        ("m/meta", "m\n"),
    ):
        (disk / name).parent.mkdir(parents=True, exist_ok=True)
        (disk / name).write_text(text)
    result, from_work_dir, version = (f"{disk}/{name}" for name in ("o.dat", "wd.dat", "VERSION"))
    outputs = ClientOutputs(
        f"{disk}/w",
        f"{disk}/m",
        output_files=(result, from_work_dir),
        work_dir_outputs=((f"{disk}/w/wd.txt", from_work_dir),),
        version_file=version,
        dynamic_outputs=PULSAR_DYNAMIC_OUTPUTS,
        dynamic_sources=(("galaxy.json", "galaxy"),),
    )
    command = (
        f"cat {disk}/in.dat given {disk}/m/meta {disk}/c.ini > {result}; echo wd > wd.txt; echo found > f.txt; "
        f"mkdir -p {disk}/o_files; echo x > {disk}/o_files/x; echo 1 > {version}; "
        f"echo '{json.dumps({'filename': 'f.txt'})}' > galaxy.json"
    )
    job = JobDescription(
        command,
        outputs,
        input_files=[InputFile(f"{disk}/in.dat")],
        config_files=[f"{disk}/c.ini"],
        touch_outputs=["o.dat"],
    )
    url, staging = pulsar
    job_id = f"{action}-{known}"
    with JobFilesServer(disk, "a-key") as files, RemoteServer(f"{url}/") as server:
        travel = Travel(Mapper((), action, files.endpoint), str(staging) if known == "computed" else "")
        outcome = run_described(server, job, job_id=job_id, travel=travel)
    assert (outcome.status.state, outcome.status.exit_code) == ("complete", 0), outcome.status.stderr
    assert (outcome.missing, outcome.refused) == ((), ())
    assert Path(result).read_text() == f"data\ngiven\nm\nin={staging}/{job_id}/inputs/in.dat\n"
    expected = {"wd.dat": "wd\n", "VERSION": "1\n", "o_files/x": "x\n", "w/f.txt": "found\n"}
    assert {name: (disk / name).read_text() for name in expected} == expected
    assert not (disk / "w" / "wd.txt").exists()
