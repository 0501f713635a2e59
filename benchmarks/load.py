"""What puts load on a server: wrk with a script, and curl; and the few plain requests that a row needs around them.

A Python client would be the limit for requests, so wrk sends them; curl is what one large file is moved by. Knows the
dialect that LWR and Pulsar share, and not which of them it talks to.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import subprocess
import time
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode, urlsplit

SCRIPTS = Path(__file__).parent / "wrk"
CONNECTIONS_COUNT = 16
MIB = 1 << 20

#: A peer's wish for what the server moves itself, as it stands in a submit.
Staging = dict[str, list[dict[str, Any]]]


class Client:
    """The requests around a measurement, each on a connection of its own. Not for measuring."""

    def __init__(self, url: str) -> None:
        where = urlsplit(url)
        self._address = (where.hostname or "", where.port)

    def ask(self, method: str, path: str, query: dict[str, str]) -> bytes:
        connection = http.client.HTTPConnection(*self._address, timeout=120)
        with closing(connection):
            connection.request(method, f"{path}?{urlencode(query)}")
            answer = connection.getresponse()
            said = answer.read()
        if answer.status >= 400:
            raise SystemExit(f"{method} {path}: {answer.status} {said[:300]!r}")
        return said

    def set_up(self, job_id: str) -> None:
        self.ask("POST", "/jobs", {"job_id": job_id})

    def submit(self, job_id: str, command_line: str, staging: Staging | None = None) -> None:
        query = {"job_id": job_id, "command_line": command_line}
        query |= {"remote_staging": json.dumps(staging)} if staging else {}
        self.ask("POST", f"/jobs/{job_id}/submit", query)

    def wait(self, job_id: str, status: str) -> None:
        """Until the job has this status (`running`, `complete`); for good if it never has."""
        said = b""
        while f'"{status}"'.encode() not in said:
            said = self.ask("GET", f"/jobs/{job_id}/status", {"job_id": job_id})
            time.sleep(0.02)

    def whole_job(self, command_line: str, staging: Staging) -> list[dict[str, Any]]:
        """Run a job for which the server moves files; returns what its receipt says of those. Cleaned when it is over.

        LWR only. Raises SystemExit when it does not end well, or the server has moved nothing.
        """
        job_id = f"staged-{time.monotonic_ns()}"
        self.set_up(job_id)
        self.submit(job_id, command_line, staging)
        self.wait(job_id, "true")  # `complete`, however it ended
        status = json.loads(self.ask("GET", f"/jobs/{job_id}/status", {"job_id": job_id}))
        receipt = json.loads(self.ask("GET", f"/jobs/{job_id}/receipt", {}))
        moved = [file for file in receipt["files"] if file["mover"] == "server" and file["state"] == "whole"]
        if status["status"] != "complete" or status["returncode"] != 0 or not moved:
            raise SystemExit(f"{command_line}, {staging}: {status}, {receipt}")
        self.end(job_id)
        return moved

    def end(self, job_id: str) -> None:
        """Cancel, if need be, and clean."""
        self.ask("PUT", f"/jobs/{job_id}/cancel", {"job_id": job_id})
        self.ask("DELETE", f"/jobs/{job_id}", {"job_id": job_id})


def file_path(job_id: str, name: str, kind: str) -> str:
    """Where a job's file is sent to or fetched from."""
    return f"/jobs/{job_id}/files?" + urlencode({"job_id": job_id, "name": name, "type": kind}, quote_via=quote)


def fetching(url: str, name: str) -> Staging:
    """An input that the server fetches."""
    return {"setup": [{"name": name, "type": "input", "action": _action(url, name)}]}


def delivery(url: str, name: str) -> Staging:
    """An output that the server delivers."""
    return {"outputs": [{"name": name, "type": "output", "action": _action(url, name), "required": True}]}


def _action(url: str, name: str) -> dict[str, str]:
    return {"action_type": "remote_transfer", "path": f"/client/{name}", "url": url}


def make_large(path: Path, size_bytes: int) -> Path:
    """A file that is really there: no holes, no compressible pattern that a file system could know."""
    piece = os.urandom(MIB)
    with path.open("wb") as file:
        for _ in range(size_bytes // MIB):
            file.write(piece)
    return path


def wrk(url: str, script: str, argument: str, *, threads_count: int, duration_s: int) -> dict[str, float]:
    """Run wrk with one of our scripts over 16 connections; returns what it prints as `figure NAME VALUE`.

    Errors of the server (a status that is not 2xx, a broken connection) end the run: a figure with errors in it
    compares nothing.
    """
    command = ["wrk", f"-t{threads_count}", f"-c{CONNECTIONS_COUNT}", f"-d{duration_s}s", "--timeout", "60s"]
    command += ["-s", str(SCRIPTS / script), url, "--", argument]
    # The scripts load their common part from their own folder.
    done = subprocess.run(command, capture_output=True, text=True, check=True, cwd=SCRIPTS, timeout=duration_s + 120)
    figures = {name: float(value) for name, value in re.findall(r"^figure (\w+) (\S+)$", done.stdout, re.MULTILINE)}
    if figures.pop("errors") > 0:
        raise SystemExit(f"{script} at {url}: errors\n{done.stdout}\n{done.stderr}")
    return figures


def curl(*arguments: str) -> float:
    """Run curl and return the seconds that the transfer took, as curl measured them."""
    command = ["curl", "-sS", "--fail", "-o", "/dev/null", "-w", "%{time_total}", *arguments]
    return float(subprocess.run(command, capture_output=True, text=True, check=True, timeout=1800).stdout)


def curl_hashing(file: Path, *arguments: str) -> float:
    """Send `file` by curl while another process hashes the same stream; returns the seconds until both are done.

    What a server that hashes what it receives is compared with.
    """
    # Not sha256sum: coreutils' own code is several times slower than the processor's SHA instructions.
    pipeline = 'tee >(openssl dgst -sha256 >&2) < "$0" | curl -sS --fail -o /dev/null -T - "$@"; wait'
    began = time.monotonic()
    subprocess.run(["bash", "-o", "pipefail", "-c", pipeline, str(file), *arguments], check=True, capture_output=True)
    return time.monotonic() - began
