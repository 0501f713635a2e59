"""LWR's REST dialect as a client speaks it: one method for each thing that a server can be asked.

Works with LWR's servers and, as far as they go, Pulsar's: those send no digests, so there only sizes are compared.
Each call is tried again while that may help (`Patience`), which is safe: the server takes a repeated set-up,
upload or submit for the same one. Must not know which files a job needs or where results go.
"""

from __future__ import annotations

import contextlib
import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar
from urllib.parse import quote

from lwr.client.endpoint import Endpoint
from lwr.client.http import Conversation
from lwr.errors import BadRequest, LwrError, PeerError, PeerRefused
from lwr.transfer.bodies import OnBytes, Upload
from lwr.transfer.partial import Transferred
from lwr.transfer.retry import Patience

Result = TypeVar("Result")

_DIRECTORIES = {
    "input": "inputs_directory",
    "config": "configs_directory",
    "tool": "tools_directory",
    "workdir": "working_directory",
    "metadata": "metadata_directory",
    "unstructured": "unstructured_files_directory",
    "output": "outputs_directory",
    "output_workdir": "working_directory",
    "output_metadata": "metadata_directory",
}


@dataclass(frozen=True, slots=True)
class RemotePlaces:
    """Where a job's files live on the server, as its answer to the set-up says."""

    job_id: str
    separator: str
    directories: Mapping[str, str]  # by kind of file; a kind that an old server lacks is missing

    def path(self, kind: str, name: str) -> str:
        """The remote path of a file; `name` is '/'-relative. Raises PeerError when the server has no such place."""
        if kind not in self.directories:
            raise PeerError(f"This server has no place for files of type `{kind}`.", "It is too old for this job.")
        parts = [self.directories[kind].rstrip("/\\"), *(part for part in name.split("/") if part)]
        return self.separator.join(parts)


@dataclass(frozen=True, slots=True)
class RemoteStatus:
    """How a job stands, in the peers' words; the rest is filled when it is `finished`.

    `state` is one of preprocessing, queued, running, postprocessing, complete, failed, cancelled, lost. Listings are
    relative, with `separator`. The streams may be shortened in their middle by the server;
    `job_stderr` is what the shell around the command said, where the server tells them apart.
    """

    job_id: str
    state: str
    finished: bool
    exit_code: int | None = None
    stdout: str = ""
    stderr: str = ""
    job_stderr: str = ""
    outputs: tuple[str, ...] = ()
    working: tuple[str, ...] = ()
    metadata: tuple[str, ...] = ()
    separator: str = "/"


def nobody(_: int) -> None:
    """Nobody wants to know of progress."""


class RemoteServer:
    """A server as its client sees it. For one thread at a time; close it, or use `with`.

    Every method may raise PeerUnreachable, PeerRefused or BadTransfer, when patience is over or trying again cannot
    help.
    """

    def __init__(
        self,
        url: str,
        token: str = "",
        *,
        patience: Patience | None = None,
        on_retry: Callable[[LwrError, float], None] | None = None,
    ) -> None:
        self._http = Conversation(Endpoint(url, token))
        self.patience = patience or Patience()
        self.on_retry = on_retry or (lambda error, pause_s: None)

    @property
    def url(self) -> str:
        return self._http.endpoint.url

    def __enter__(self) -> RemoteServer:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections. May be called twice."""
        self._http.close()

    def _patiently(self, call: Callable[[], Result]) -> Result:
        return self.patience.run(call, self.on_retry)

    @contextlib.contextmanager
    def in_a_hurry(self, total_s: float) -> Iterator[None]:
        """Within it each call is given up after `total_s`: for what is only tidying up."""
        patience = self.patience
        self.patience = replace(patience, total_s=min(total_s, patience.total_s))
        try:
            yield
        finally:
            self.patience = patience

    def greet(self) -> None:
        """Make sure that a server answers, speaks LWR and takes the secret: one request, tried once."""
        self._http.ask_json("GET", "jobs/lwr-greeting/status", {}, "reach the server")

    def setup(self, job_id: str, tool_id: str = "", tool_version: str = "") -> RemotePlaces:
        """Have a job's directory made. The answer may name another id, which counts from then on."""
        query = {"job_id": job_id, "use_metadata": "true"}
        query |= {key: value for key, value in (("tool_id", tool_id), ("tool_version", tool_version)) if value}
        what = f"set up job {job_id}"
        reply = self._patiently(lambda: self._http.ask_json("POST", "jobs", query, what))
        if not isinstance(reply, dict) or not isinstance(reply.get("working_directory"), str):
            raise PeerRefused(f"Could not {what}: what answers at {self.url} does not speak LWR.", "Check the address.")
        directories = {kind: reply[key] for kind, key in _DIRECTORIES.items() if isinstance(reply.get(key), str)}
        # LWR's servers before 2013 kept configuration files in the working directory.
        directories.setdefault("config", directories["workdir"])
        return RemotePlaces(str(reply.get("job_id") or job_id), _separator(reply), directories)

    def upload(
        self, job_id: str, kind: str, name: str, source: Path | bytes, on_bytes: OnBytes = nobody
    ) -> Transferred:
        """Send a file (or bytes) as `name` of `kind`; an earlier one of that name is replaced.

        Raises:
            BadRequest: `source` cannot be read.
        """
        what = f"send {name} to job {job_id}"
        query = {"job_id": job_id, "name": name, "type": kind}

        def send() -> Transferred:
            try:
                file = io.BytesIO(source) if isinstance(source, bytes) else source.open("rb")
            except OSError as error:
                raise BadRequest(f"{source!s} cannot be read: {error.strerror}.", "Check its name.") from error
            with file:
                size_bytes = file.seek(0, io.SEEK_END)
                file.seek(0)
                return self._http.send(
                    f"jobs/{_part(job_id)}/files", query, Upload(file, size_bytes, name, on_bytes), what
                )[1]

        return self._patiently(send)

    def submit(
        self,
        job_id: str,
        command_line: str,
        *,
        env: Sequence[Mapping[str, str]] = (),
        params: Mapping[str, str] | None = None,
    ) -> None:
        """Have the job run. When this returns, the server has it for good.

        Args:
            env: items as the peers send them: `{"name": ..., "value": ...}`, `{"file": ...}`, `{"execute": ...}`.
            params: what the server's manager takes (`native_specification`, ...).
        """
        query = {"job_id": job_id, "command_line": command_line}
        query |= {"env": json.dumps(list(env))} if env else {}
        query |= {"params": json.dumps(dict(params))} if params else {}
        self._patiently(lambda: self._http.ask("POST", f"jobs/{_part(job_id)}/submit", query, f"submit job {job_id}"))

    def status(self, job_id: str) -> RemoteStatus:
        """Ask how a job stands. A job that the server does not know is `lost`."""
        what = f"ask for the status of job {job_id}"
        path = f"jobs/{_part(job_id)}/status"
        reply = self._patiently(lambda: self._http.ask_json("GET", path, {"job_id": job_id}, what))
        if not isinstance(reply, dict) or not isinstance(reply.get("status"), str):
            raise PeerRefused(f"Could not {what}: the answer has no status.", "Check the address.")
        code = reply.get("returncode")
        return RemoteStatus(
            job_id=job_id,
            state=reply["status"],
            finished=reply.get("complete") == "true",
            exit_code=code if isinstance(code, int) else None,
            stdout=str(reply.get("stdout") or ""),
            stderr=str(reply.get("stderr") or ""),
            job_stderr=str(reply.get("job_stderr") or ""),
            outputs=_names(reply.get("outputs_directory_contents")),
            working=_names(reply.get("working_directory_contents")),
            metadata=_names(reply.get("metadata_directory_contents")),
            separator=_separator(reply),
        )

    def download(self, job_id: str, kind: str, name: str, target: Path, on_bytes: OnBytes = nobody) -> Transferred:
        """Fetch a file of a job to `target`, which is only there when it is whole.

        Raises:
            ServerError: this machine could not keep it.
        """
        query = {"name": name, "job_id": job_id, "type": kind}
        what, path = f"fetch {name} of job {job_id}", f"jobs/{_part(job_id)}/files"
        return self._patiently(lambda: self._http.fetch(path, query, target, what, on_bytes))

    def cancel(self, job_id: str) -> None:
        """Wish a job's end; `status` tells when it is there. A job that is unknown or over: nothing happens."""
        path = f"jobs/{_part(job_id)}/cancel"
        self._patiently(lambda: self._http.ask("PUT", path, {"job_id": job_id}, f"cancel job {job_id}"))

    def clean(self, job_id: str) -> None:
        """Have a job and its files removed. One that is not there: nothing happens."""
        path = f"jobs/{_part(job_id)}"
        self._patiently(lambda: self._http.ask("DELETE", path, {"job_id": job_id}, f"clean job {job_id}"))

    def jobs(self, *, state: str = "", limit: int = 20) -> list[dict[str, Any]]:
        """The newest jobs, newest first, as the server describes them. LWR's own servers only."""
        query = {"limit": str(limit)} | ({"state": state} if state else {})
        reply = self._patiently(lambda: self._http.ask_json("GET", "jobs", query, "list the jobs"))
        found = reply.get("jobs") if isinstance(reply, dict) else None
        if not isinstance(found, list):
            raise PeerRefused("Could not list the jobs: the server does not offer it.", "Only LWR's own servers do.")
        return [job for job in found if isinstance(job, dict)]

    def job(self, job_id: str) -> dict[str, Any]:
        """All that the server tells of a job, its events with it. Raises PeerRefused (404) when it is unknown."""
        reply = self._patiently(lambda: self._http.ask_json("GET", f"jobs/{_part(job_id)}", {}, f"show job {job_id}"))
        return reply if isinstance(reply, dict) else {}

    def receipt(self, job_id: str) -> dict[str, Any]:
        """What the server knows of each file of a job (lwr.core.receipt). LWR's own servers only."""
        path = f"jobs/{_part(job_id)}/receipt"
        reply = self._patiently(lambda: self._http.ask_json("GET", path, {}, f"ask for the receipt of job {job_id}"))
        return reply if isinstance(reply, dict) else {}


def _part(job_id: str) -> str:
    return quote(job_id, safe="")


def _names(value: object) -> tuple[str, ...]:
    return tuple(name for name in value if isinstance(name, str)) if isinstance(value, list) else ()


def _separator(reply: Mapping[str, Any]) -> str:
    properties = reply.get("system_properties")
    told = properties.get("separator") if isinstance(properties, dict) else reply.get("path_separator")
    return "\\" if told == "\\" else "/"
