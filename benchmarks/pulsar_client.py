"""Pulsar's own client stages the files of one job: `python pulsar_client.py URL DIRECTORY`, by the peer's own Python.

Prints the seconds of the staging, set-up included, and of the submit after it. Every file of the directory is an
input, and no path is rewritten (as for Galaxy's newer tools), so that nothing is timed but the staging. Knows nothing
of LWR.
"""

from __future__ import annotations

import importlib
import os
import sys
import time
import uuid


def main(url: str, directory: str) -> None:
    inputs = importlib.import_module("pulsar.client.staging.inputs")
    models = importlib.import_module("pulsar.client.staging.models")
    up = importlib.import_module("pulsar.client.staging.up")
    manager = importlib.import_module("pulsar.client.manager").build_client_manager()
    client = manager.get_client({"url": url}, uuid.uuid4().hex)
    paths = [os.path.join(directory, name) for name in sorted(os.listdir(directory))]
    kind = inputs.CLIENT_INPUT_PATH_TYPES.INPUT_PATH
    description = models.ClientJobDescription(
        command_line="true",
        client_inputs=inputs.ClientInputs([inputs.ClientInput(path, kind) for path in paths]),
        client_outputs=models.ClientOutputs(),
        rewrite_paths=False,
    )
    began = time.monotonic()
    # What `submit_job` of the same module does, in its two halves: the stager's constructor stages.
    stager = up.FileStager(client, description, None)
    staged = time.monotonic()
    client.launch(stager.get_command_line())
    submitted = time.monotonic()
    while client.raw_check_complete()["status"] != "complete":
        time.sleep(0.05)
    client.clean()
    print(f"seconds {staged - began} {submitted - staged}")


if __name__ == "__main__":
    main(*sys.argv[1:3])
