"""A job with 1,000 inputs of 4 KiB: our client and server against Pulsar's client and server, on a real disk.

Both are timed from the set-up until the submit is answered. LWR has synced the files by then; Pulsar syncs nothing.
Our client sends several at a time; Pulsar's sends one after the other, which is all that it can.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from benchmarks.clients import Work, our_client, pulsar_staging_s
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

            def our_rate() -> float:
                seconds = client.run(Work(ours.url + "/", files=files))
                return len(files) / (seconds["stage_s"] + seconds["submit_s"])

            def their_rate() -> float:
                return len(files) / pulsar_staging_s(theirs.url + "/", inputs)

            rounds = interleaved([our_rate, their_rate], plan.pairs_count)
    what = f"{plan.inputs_count:,} inputs of 4 KiB staged by the client"
    return [ratio_row(what, "files/s", rounds[0], rounds[1], "Pulsar's", 3)]
