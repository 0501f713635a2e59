"""LWR's classic routes, as every released Galaxy `lwr` runner speaks them: one word per path, any method.

Only their names and their words for kinds of files are here; what they do is what the REST routes do.
"""

from __future__ import annotations

from functools import partial

from aiohttp import web

from lwr.core.wire import FILE_KINDS
from lwr.errors import BadName, NotFound
from lwr.server.http.answers import json_answer
from lwr.server.http.downloads import Downloads
from lwr.server.http.pool import Pool
from lwr.server.http.rest import Jobs
from lwr.server.http.routing import Call, Handler, Route
from lwr.server.http.uploads import Uploads

#: `input_type` where it differs from REST's `type`.
_INPUT_TYPES = {"input_extra": "input", "work_dir": "workdir"}
#: `output_type`; whatever else means outputs.
_WORKING_OUTPUTS = ("task", "work_dir")

_UPLOADS = {
    "/upload_tool_file": "tool",
    "/upload_input": "input",
    "/upload_extra_input": "input",
    "/upload_config_file": "config",
    "/upload_working_directory_file": "workdir",
    "/upload_unstructured_file": "unstructured",
}


def routes(jobs: Jobs, uploads: Uploads, downloads: Downloads, pool: Pool) -> list[Route]:
    """The routes of section 9 of LWR's HTTP API; those of the cache are in `lwr.server.http.cache`."""
    files = _Files(uploads, downloads, pool)
    handlers: dict[str, Handler] = {
        "/setup": jobs.setup,
        "/launch": jobs.submit,
        "/check_complete": jobs.status,
        "/kill": jobs.cancel,
        "/clean": jobs.clean,
        "/upload_file": files.upload,
        "/input_path": files.input_path,
        "/output_path": files.output_path,
        "/get_output_type": files.output_type,
        **{path: partial(uploads.upload_as, kind_name) for path, kind_name in _UPLOADS.items()},
    }
    plain = [Route(path, handler, classic=True) for path, handler in handlers.items()]
    return [*plain, Route("/download_output", files.download, classic=True, file=True)]


class _Files:
    """Handlers that only translate the classic words for kinds of files."""

    def __init__(self, uploads: Uploads, downloads: Downloads, pool: Pool) -> None:
        self._uploads = uploads
        self._downloads = downloads
        self._pool = pool

    async def upload(self, call: Call) -> web.StreamResponse:
        return await self._uploads.upload_as(_input_kind(call), call)

    async def input_path(self, call: Call) -> web.StreamResponse:
        return await self._downloads.path_as(_input_kind(call), call)

    async def output_path(self, call: Call) -> web.StreamResponse:
        return await self._downloads.path_as(_output_kind(call), call)

    async def download(self, call: Call) -> web.StreamResponse:
        return await self._downloads.download_as(_output_kind(call), call)

    async def output_type(self, call: Call) -> web.StreamResponse:
        """Where a result of that name is: in outputs (`direct`), in working (`task`), or nowhere (`none`)."""
        for word, kind_name in (("direct", "output"), ("task", "output_workdir")):
            try:
                found = await self._pool.run(self._downloads.find, call, FILE_KINDS[kind_name])
            except (NotFound, BadName):
                continue
            found.opened.close()
            return json_answer(word)
        return json_answer("none")


def _input_kind(call: Call) -> str:
    word = call.need("input_type")
    return _INPUT_TYPES.get(word, word)


def _output_kind(call: Call) -> str:
    return "output_workdir" if call.values.get("output_type") in _WORKING_OUTPUTS else "output"
