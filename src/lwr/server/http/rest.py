"""LWR's and Pulsar's REST routes, and what they share with the classic ones: set-up, submit, status, cancel, clean.

Each handler decodes, makes one call of the engine and encodes. Which words a reader gets is decided by the route that
was asked (`Call.route.classic`). Must not know what the engine does.
"""

from __future__ import annotations

from typing import Any

from aiohttp import web

from lwr import __version__
from lwr.core.job import Job, JobKey, JobState
from lwr.core.places import JobLayout
from lwr.core.wire import (
    FILE_KINDS,
    PULSAR_VERSION,
    Results,
    SetupRequest,
    finished_reply,
    setup_reply,
    submission_from_query,
    unfinished_reply,
)
from lwr.errors import LwrError, NotFound
from lwr.server.engine import Engine
from lwr.server.http.answers import json_answer, ok
from lwr.server.http.downloads import Downloads
from lwr.server.http.pool import Pool
from lwr.server.http.resumable import Resumable
from lwr.server.http.routing import Call, Handler, Route, route
from lwr.server.http.uploads import Uploads


def routes(jobs: Jobs, uploads: Uploads, resumable: Resumable, downloads: Downloads) -> list[Route]:
    """The REST routes of sections 4 and 5 of LWR's HTTP API and of Pulsar's clients."""
    return [
        route("POST", "/jobs", jobs.setup),
        route("POST", "/jobs/{job_id}/submit", jobs.submit),
        route("GET", "/jobs/{job_id}/status", jobs.status),
        route("PUT", "/jobs/{job_id}/cancel", jobs.cancel),
        route("DELETE", "/jobs/{job_id}", jobs.clean),
        route("POST", "/jobs/{job_id}/files", jobs.set_up_if_missing(resumable.post)),
        route("PUT", "/jobs/{job_id}/files", uploads.upload),
        *resumable.routes(),
        route("GET", "/jobs/{job_id}/files", downloads.download, file=True),
        route("GET", "/jobs/{job_id}/files/path", jobs.set_up_if_missing(downloads.path)),
        route("GET", "/healthz", healthz),
    ]


class Jobs:
    """The engine's calls on a job, as handlers."""

    def __init__(self, engine: Engine, pool: Pool) -> None:
        self._engine = engine
        self._view = engine.view
        self._pool = pool

    async def setup(self, call: Call) -> web.StreamResponse:
        request = SetupRequest(
            job_id=call.key.job_id,
            tool_id=call.values.get("tool_id", ""),
            tool_version=call.values.get("tool_version", ""),
        )
        job = await self._pool.run(self._engine.setup, call.key, request)
        return json_answer(setup_reply(job, self._view.layout(job), self._view.system_properties(call.manager)))

    def set_up_if_missing(self, handler: Handler) -> Handler:
        """A handler of files that are sent before a job runs, for clients who send the first ones before the set-up.

        Pulsar's clients do so where a destination has `jobs_directory`: they compute the set-up's answer, and send its
        request along with the submit. They, and nobody else, repeat the job's id in the query; for everybody else a job
        that is not there is an error.
        """

        async def handle(call: Call) -> web.StreamResponse:
            kind = call.values.get("type", "")
            first = "job_id" in call.request.query and kind in FILE_KINDS and not kind.startswith("output")
            if first and self._view.job(call.key) is None:
                await self._pool.run(self._engine.setup, call.key, SetupRequest(job_id=call.key.job_id))
            return await handler(call)

        return handle

    async def submit(self, call: Call) -> web.StreamResponse:
        await self._pool.run(self._submit, call)
        return ok()

    def _submit(self, call: Call) -> None:
        self._view.entry(call.manager)
        submission, setup = submission_from_query(call.values)
        self._engine.submit(call.key, submission, setup)

    async def status(self, call: Call) -> web.StreamResponse:
        """Always an answer in the shape that pollers understand, also for a job that nobody knows."""
        job = self._view.job(call.key)
        if job is not None and not job.terminal:
            return json_answer(unfinished_reply(job))
        if job is None:
            return json_answer(self._lost(call))
        return json_answer(await self._pool.run(self._finished, job, call.route.classic))

    def _finished(self, job: Job, classic: bool) -> dict[str, Any]:
        try:
            results = self._view.results(job)
        except LwrError:
            results = Results()  # its directory is going away: the state still holds
        properties = self._view.system_properties(job.key.manager)
        return finished_reply(job, self._view.layout(job), results, properties, classic=classic)

    def _lost(self, call: Call) -> dict[str, Any]:
        try:
            layout = self._view.expected_layout(call.key)
            properties = self._view.system_properties(call.manager)
            reason = f"This server has no job {call.key.job_id}."
        except NotFound as error:  # the manager
            layout, properties, reason = JobLayout(""), {}, str(error)
        job = Job(seq=0, key=call.key, attempt="", state=JobState.LOST, directory=layout.root, reason=reason)
        return finished_reply(job, layout, Results(), properties, classic=call.route.classic)

    async def cancel(self, call: Call) -> web.StreamResponse:
        await self._pool.run(self._cancel, call.key)
        return ok()

    def _cancel(self, key: JobKey) -> None:
        self._view.entry(key.manager)
        self._engine.cancel(key)

    async def clean(self, call: Call) -> web.StreamResponse:
        await self._pool.run(self._clean, call.key)
        return ok()

    def _clean(self, key: JobKey) -> None:
        self._view.entry(key.manager)
        self._engine.clean(key)


async def healthz(_: Call) -> web.StreamResponse:
    """What Pulsar answers, with our own version beside the one that is announced."""
    return json_answer({"version": PULSAR_VERSION, "lwr_version": __version__})
