"""The clients that are measured, ours and Pulsar's, each as a process of its own.

Knows how to start them and to tell them what to do; knows no row of the table.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from benchmarks.servers import PULSAR_BIN, ROOT

_ENVIRON = {"PATH": "/usr/local/bin:/usr/bin:/bin", "LC_ALL": "C.UTF-8", "HOME": "/nonexistent"}


@dataclass(frozen=True, slots=True)
class Work:
    """A job for our client: sent, run, fetched and cleaned.

    Args:
        url: of the server, or of a proxy before it.
        command: has to end with 0. What stands in it of `files` and `outputs` becomes the server's path.
        outputs: written below `output_dir`.
    """

    url: str
    command: str = "true"
    files: Sequence[str] = ()
    outputs: Sequence[str] = ()
    output_dir: str = "."


class OurClient:
    """Our client, running. For one job at a time."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def run(self, work: Work) -> Mapping[str, float]:
        """Do a whole job. Returns the seconds of its steps: `stage_s`, `submit_s`, `wait_s`, `collect_s`; `total_s`
        has the removal on the server as well."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps(asdict(work)), file=self._process.stdin, flush=True)
        said = self._process.stdout.readline()
        if not said:
            raise SystemExit(f"Our client failed with {str(work)[:300]}")
        seconds: dict[str, float] = json.loads(said)
        return seconds

    def memory_bytes(self) -> int:
        return int(psutil.Process(self._process.pid).memory_info().rss)


@contextmanager
def our_client() -> Iterator[OurClient]:
    command = [sys.executable, "-m", "benchmarks.our_client"]
    process = subprocess.Popen(
        command, cwd=ROOT, env=_ENVIRON, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with process:  # its input is closed at the end, and it is waited for
        yield OurClient(process)


def pulsar_staging(url: str, directory: Path) -> Mapping[str, float]:
    """Have Pulsar's client send all files of a directory as one job's inputs. Returns its `stage_s` and `submit_s`."""
    command: list[str | Path] = [PULSAR_BIN / "python", Path(__file__).with_name("pulsar_client.py"), url, directory]
    done = subprocess.run(command, env=_ENVIRON, capture_output=True, text=True, check=False, timeout=600)
    said = re.search(r"^seconds (\S+) (\S+)$", done.stdout, re.MULTILINE)
    if said is None:
        raise SystemExit(f"Pulsar's client failed:\n{done.stdout}\n{done.stderr}")
    return {"stage_s": float(said[1]), "submit_s": float(said[2])}
