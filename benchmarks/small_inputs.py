"""A job with 1,000 inputs of 4 KiB: our client and server against Pulsar's client and server, on a real disk.

Our client sends several at a time; Pulsar's sends one after the other, which is all that it can. Both are timed for
the staging, set-up included; and, for interest, until the submit is answered: LWR has synced all files by then, and
Pulsar none.
"""

from __future__ import annotations

import os
import tempfile
from functools import partial
from pathlib import Path

from benchmarks.clients import Work, our_client, pulsar_staging
from benchmarks.servers import lwr, pulsar
from benchmarks.table import Plan, Row, interleaved, ratio_row

FILE_BYTES = 4096


def measure(plan: Plan) -> list[Row]:
    with tempfile.TemporaryDirectory(dir=plan.disk) as name:
        directory = Path(name)
        inputs = directory / "inputs"
        inputs.mkdir()
        for number in range(plan.inputs_count):
            (inputs / f"input-{number}").write_bytes(os.urandom(FILE_BYTES))
        files = [str(path) for path in sorted(inputs.iterdir())]
        with lwr(directory / "lwr") as ours, pulsar(directory / "pulsar") as theirs, our_client() as client:
            rounds = interleaved(
                [
                    partial(client.run, Work(ours.url + "/", files=files)),
                    partial(pulsar_staging, theirs.url + "/", inputs),
                ],
                plan.pairs_count,
            )
    staged = [[len(files) / seconds["stage_s"] for seconds in each] for each in rounds]
    submitted = [[len(files) / (seconds["stage_s"] + seconds["submit_s"]) for seconds in each] for each in rounds]
    what = f"{plan.inputs_count:,} inputs of 4 KiB staged by the client"
    return [
        ratio_row(what, "files/s", staged[0], staged[1], "Pulsar's", 3),
        ratio_row(f"{what} and submitted", "files/s", submitted[0], submitted[1], "Pulsar's"),
    ]
