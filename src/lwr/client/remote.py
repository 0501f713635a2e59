"""LWR's REST dialect as a client speaks it: one method for each thing that a server can be asked.

Works with LWR's servers and, as far as they go, Pulsar's: those send no digests, so there only sizes are compared.
Each call is tried again while that may help (`Patience`), which is safe: the server takes a repeated set-up,
upload or submit for the same one. Must not know which files a job needs or where results go.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar
from urllib.parse import quote

from lwr.client.caching import CacheRoutes, Contents, Place, contents_from_environ
from lwr.client.endpoint import Endpoint
from lwr.client.http import NEVER, Conversation, nobody
from lwr.client.parts import Addresses, PartFile
from lwr.client.places import RemotePlaces, told_places
from lwr.client.resumable import ResumableUpload
from lwr.client.status import RemoteStatus, read_status
from lwr.errors import BadRequest, LwrError, PeerRefused
from lwr.transfer.bodies import OnBytes, Upload
from lwr.transfer.digests import WANT_DIGEST, sha256_of_field
from lwr.transfer.interrupt import Interrupt, Interrupted
from lwr.transfer.partial import Transferred
from lwr.transfer.retry import Patience

Result = TypeVar("Result")

#: From this size on a file goes in pieces that a cut line does not undo, if the server takes it so.
RESUMABLE_BYTES = 8 << 20


class RemoteServer:
    """A server as its client sees it. Thread-safe, but for `in_a_hurry`; close it, or use `with`.

    Every method may raise PeerUnreachable, PeerRefused or BadTransfer, when patience is over or trying again cannot
    help; those that take an Interrupt, Interrupted.

    Args:
        on_retry: told of each failure that is followed by another try, with the pause before it in seconds; from the
            thread that tries.
        memory: a directory for what a later process needs to go on with uploads that were cut; None: only this
            process goes on with them.
        contents: what is known of contents that servers may have, to be shared by several servers and jobs.
    """

    def __init__(
        self,
        url: str,
        token: str = "",
        *,
        patience: Patience | None = None,
        on_retry: Callable[[LwrError, float], None] | None = None,
        memory: Path | None = None,
        contents: Contents | None = None,
    ) -> None:
        self._http = Conversation(Endpoint(url, token))
        self._addresses = Addresses(memory)
        self._contents = contents or contents_from_environ(os.environ)
        self._cache = CacheRoutes(self._http, self._patiently)
        self._takes_pieces = True  # until it is seen not to
        self.patience = patience or Patience()
        self.on_retry = on_retry or (lambda error, pause_s: None)

    @property
    def url(self) -> str:
        return self._http.endpoint.url

    @property
    def files(self) -> RemoteServer:
        """Who is asked to move the client's part of a job's files."""
        return self

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

    def _while_it_moves(
        self, call: Callable[[], Result], interrupt: Interrupt | None, reached_bytes: Callable[[], int]
    ) -> Result:
        """The same for what goes on where it was cut, and may be interrupted."""
        patience = self.patience if interrupt is None else replace(self.patience, sleep=interrupt.wait)
        return patience.run(call, self.on_retry, reached_bytes)

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
        return told_places(reply, job_id)

    def upload(
        self,
        job_id: str,
        kind: str,
        name: str,
        source: Path | bytes,
        on_bytes: OnBytes = nobody,
        interrupt: Interrupt | None = None,
    ) -> Transferred:
        """Send a file (or bytes) as `name` of `kind`; an earlier one of that name is replaced.

        Called again after an error, also by a later process that has the same `memory`, a large file goes on where it
        was cut.

        Raises:
            BadRequest: `source` cannot be read.
        """
        what = f"send {name} to job {job_id}"
        query = {"job_id": job_id, "name": name, "type": kind}
        path = f"jobs/{_part(job_id)}/files"
        pieces = ResumableUpload(self._http, self._addresses, path, query, what)
        ends = interrupt or NEVER

        def send() -> Transferred:
            try:
                file = io.BytesIO(source) if isinstance(source, bytes) else source.open("rb", buffering=0)
            except OSError as error:
                raise BadRequest(f"{source!s} cannot be read: {error.strerror}.", "Check its name.") from error
            with file:
                size_bytes = file.seek(0, io.SEEK_END)
                file.seek(0)
                if size_bytes >= RESUMABLE_BYTES and self._takes_pieces:
                    moved = pieces.send(file, size_bytes, name, on_bytes, ends)
                    if moved is not None:
                        return moved
                    self._takes_pieces = False
                return self._http.send(path, query, Upload(file, size_bytes, name, on_bytes), what, ends)[1]

        def upload() -> Transferred:
            return self._while_it_moves(send, interrupt, lambda: pieces.reached_bytes)

        if isinstance(source, bytes):
            return upload()
        return self._contents.send(self._cache, Place(job_id, kind, name), source, upload, ends)

    def arrived(self, job_id: str, kind: str, name: str) -> Transferred | None:
        """What the server has of a file of a job, with its digest; None when it is not there or tells none."""
        query = {"job_id": job_id, "name": name, "type": kind}
        path, what = f"jobs/{_part(job_id)}/files", f"ask for {name} of job {job_id}"

        def ask() -> Transferred | None:
            with self._http.exchange("HEAD", path, query, what, headers=WANT_DIGEST, accepted=(404, 405)) as answer:
                sha256 = sha256_of_field(answer.headers.get("Repr-Digest", ""))
                length = answer.headers.get("Content-Length", "")
                if answer.status != 200 or sha256 is None or not length.isdigit():
                    return None
                return Transferred(int(length), sha256, "sha-256")

        return self._patiently(ask)

    def submit(
        self,
        job_id: str,
        command_line: str,
        *,
        env: Sequence[Mapping[str, str]] = (),
        params: Mapping[str, str] | None = None,
        remote_staging: Mapping[str, Any] | None = None,
        setup: Mapping[str, Any] | None = None,
        dependencies: Mapping[str, Any] | None = None,
        touch_outputs: Sequence[str] = (),
        dynamic_sources: Sequence[tuple[str, str]] = (),
    ) -> None:
        """Have the job run. When this returns, the server has it for good.

        Args:
            env: items as the peers send them: `{"name": ..., "value": ...}`, `{"file": ...}`, `{"execute": ...}`.
            params: what the server's manager takes (`native_specification`, ...).
            remote_staging: what the server moves itself (lwr.core.staging).
            setup: has the job set up before, with these parameters: for one whose places were computed here.
            dependencies: what the server should resolve (`requirements`, `installed_tool_dependencies`).
            touch_outputs: names that the server makes empty in `outputs` before the job.
            dynamic_sources: (path in the working directory, type) of files whose contents the status is to tell.
        """
        query = {"job_id": job_id, "command_line": command_line}
        parts: dict[str, Any] = {"params": params, "remote_staging": remote_staging, "setup_params": setup}
        parts |= {
            "env": list(env),
            "dependencies_description": dependencies,
            "submit_extras": {"touch_outputs": list(touch_outputs)} if touch_outputs else {},
            "dynamic_file_sources": [{"path": path, "type": kind} for path, kind in dynamic_sources],
        }
        query |= {key: json.dumps(value, default=dict) for key, value in parts.items() if value}
        self._patiently(lambda: self._http.ask("POST", f"jobs/{_part(job_id)}/submit", query, f"submit job {job_id}"))

    def status(self, job_id: str) -> RemoteStatus:
        """Ask how a job stands. A job that the server does not know is `lost`."""
        what = f"ask for the status of job {job_id}"
        path = f"jobs/{_part(job_id)}/status"
        reply = self._patiently(lambda: self._http.ask_json("GET", path, {"job_id": job_id}, what))
        if not isinstance(reply, dict) or not isinstance(reply.get("status"), str):
            raise PeerRefused(f"Could not {what}: the answer has no status.", "Check the address.")
        return read_status(job_id, reply, finished=reply.get("complete") == "true")

    def download(
        self,
        job_id: str,
        kind: str,
        name: str,
        target: Path,
        on_bytes: OnBytes = nobody,
        interrupt: Interrupt | None = None,
        *,
        on_size: OnBytes = nobody,
    ) -> Transferred:
        """Fetch a file of a job to `target`, which is only there when it is whole.

        `on_size` is told how large it is, before any byte, if the server says so; again with each try.

        When that fails in a way that may pass, or is interrupted, what came of a large file stays beside the target,
        and a later call, also of another process, goes on with it. `lwr.client.parts.discard` removes it.

        Raises:
            ServerError: this machine could not keep it.
        """
        query = {"name": name, "job_id": job_id, "type": kind}
        what, path = f"fetch {name} of job {job_id}", f"jobs/{_part(job_id)}/files"
        with PartFile(target) as part:
            part.keep = True
            try:
                return self._while_it_moves(
                    lambda: self._http.fetch(path, query, part, what, on_bytes, interrupt or NEVER, on_size=on_size),
                    interrupt,
                    lambda: part.size_bytes if part.bookmark else 0,
                )
            except LwrError as error:
                part.keep = error.transient or isinstance(error, Interrupted)
                raise

    def path(self, job_id: str, kind: str, name: str) -> str:
        """Where a file of a job is, or would be, on the server's machine."""
        query = {"job_id": job_id, "name": name, "type": kind}
        what, path = f"ask for the place of {name} of job {job_id}", f"jobs/{_part(job_id)}/files/path"
        reply = self._patiently(lambda: self._http.ask_json("GET", path, query, what))
        if not isinstance(reply, dict) or not isinstance(reply.get("path"), str):
            raise PeerRefused(f"Could not {what}: the answer has no path.", "Check the address.")
        return str(reply["path"])

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

    def server_status(self) -> dict[str, Any]:
        """How the server itself is (lwr.server.http.status): one request, tried once. LWR's own servers only."""
        reply = self._http.ask_json("GET", "status", {}, "ask how the server is")
        if not isinstance(reply, dict) or not isinstance(reply.get("ready"), bool):
            raise PeerRefused("Could not ask how the server is: it does not say.", "Only LWR's own servers do.")
        return reply

    def receipt(self, job_id: str) -> dict[str, Any]:
        """What the server knows of each file of a job (lwr.core.receipt). LWR's own servers only."""
        path = f"jobs/{_part(job_id)}/receipt"
        reply = self._patiently(lambda: self._http.ask_json("GET", path, {}, f"ask for the receipt of job {job_id}"))
        return reply if isinstance(reply, dict) else {}


def _part(job_id: str) -> str:
    return quote(job_id, safe="")
