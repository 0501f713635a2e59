"""Galaxy's runner in small: Pulsar's client over a message queue, told what to do line by line.

Run by a peer's own Python with a JSON object for the client's manager. Each line of the input is a JSON object with
`do` (`submit`, `kill`, `ask`), `job_id` and `destination`; `submit` has `command` as well, and `directory`, where
`in.dat` is and `out.dat` will be. Each line of the output is a status update that came, or "done" for a line. Knows
nothing of LWR.
"""

from __future__ import annotations

import importlib
import json
import sys
import threading
from pathlib import Path
from typing import Any

pulsar = importlib.import_module("pulsar.client.test.check")
speaking = threading.Lock()


def tell(what: object) -> None:
    with speaking:
        sys.stdout.write(json.dumps(what) + "\n")
        sys.stdout.flush()


def submit(client: Any, command: str, directory: str) -> None:
    source, result, working, tool = (f"{directory}/{name}" for name in ("in.dat", "out.dat", "working", "tool"))
    for needed in (working, tool):
        Path(needed).mkdir(exist_ok=True)
    description = pulsar.ClientJobDescription(
        command_line=command,
        tool=pulsar.MockTool(tool),
        client_inputs=pulsar.ClientInputs([pulsar.ClientInput(source, pulsar.CLIENT_INPUT_PATH_TYPES.INPUT_PATH)]),
        client_outputs=pulsar.ClientOutputs(working_directory=working, output_files=[result]),
        working_directory=working,
    )
    pulsar.submit_job(client, description)


manager = pulsar.build_client_manager(**json.loads(sys.argv[1]))
manager.ensure_has_status_update_callback(tell)
for line in sys.stdin:
    order = json.loads(line)
    client = manager.get_client(order["destination"], order["job_id"])
    if order["do"] == "submit":
        submit(client, order["command"], order["directory"])
    elif order["do"] == "kill":
        client.kill()
    else:
        client.get_status()
    tell("done")
manager.shutdown(ensure_cleanup=True)
