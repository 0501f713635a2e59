"""One small job with Pulsar's client, to a destination with any parameters.

Run by a peer's own Python with one JSON object: `directory`, which holds `in.dat`, `job_id` and `destination`. Ends
with 0 when the job went well and both of its results are there, as copies of `in.dat`. Knows nothing of LWR.
"""

from __future__ import annotations

import importlib
import json
import sys
import time
from pathlib import Path

# The self-test names all that a submitter needs, wherever a release of the client keeps it.
pulsar = importlib.import_module("pulsar.client.test.check")

options = json.loads(sys.argv[1])
directory = Path(options["directory"])
source, result, found, working, tool = (
    str(directory / name) for name in ("in.dat", "dataset_1.dat", "dataset_2.dat", "working", "tool")
)
for new in (working, tool):
    Path(new).mkdir()

manager = pulsar.build_client_manager()
client = manager.get_client(options["destination"], options["job_id"])
outputs = pulsar.ClientOutputs(
    working_directory=working, output_files=[result, found], work_dir_outputs=[(f"{working}/made.dat", found)]
)
description = pulsar.ClientJobDescription(
    command_line=f"cat {source} > {result}; cat {source} > made.dat",
    tool=pulsar.MockTool(tool),
    client_inputs=pulsar.ClientInputs([pulsar.ClientInput(source, pulsar.CLIENT_INPUT_PATH_TYPES.INPUT_PATH)]),
    client_outputs=outputs,
    working_directory=working,
)
pulsar.submit_job(client, description)
while (status := client.raw_check_complete())["complete"] != "true":
    time.sleep(0.1)
assert status["status"] == "complete", status
failures = pulsar.finish_job(
    client=client,
    cleanup_job="always",
    job_completed_normally=True,
    client_outputs=outputs,
    pulsar_outputs=pulsar.PulsarOutputs.from_status_response(status),
)
assert not failures, failures
for path in (result, found):
    assert Path(path).read_bytes() == Path(source).read_bytes(), path
