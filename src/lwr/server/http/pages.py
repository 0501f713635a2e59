"""What is LWR's own and for everybody with the secret: the list of jobs, and one job with its events.

    GET /jobs?state=&manager=&limit=&before=   {"jobs": [JOB, ...], "next": NUMBER or null}
    GET /jobs/{id}                             JOB with "events": [{"at", "state", "reason"}, ...] and "trouble"
    GET /jobs/{id}/receipt                     what is known of each of its files (lwr.core.receipt)

JOB: `job_id`, `manager`, `state`, `reason`, `exit_code`, `tool_id`, `tool_version`, `directory`, `cancel_requested`,
and `created_at`, `submitted_at`, `started_at`, `ended_at`, `cleaned_at` (seconds since the epoch, or null). Newest
first; `next` is the `before` of the next page. States are LWR's own words, not those of a dialect. `trouble` says why
a file of the job is being tried again, if one is.
"""

from __future__ import annotations

from typing import Any

from aiohttp import web

from lwr.core.job import Job, JobState
from lwr.core.receipt import receipt_document
from lwr.errors import BadRequest, NotFound
from lwr.server.engine import Engine
from lwr.server.http.answers import json_answer
from lwr.server.http.pool import Pool
from lwr.server.http.routing import Call, Route, route

_PAGE_JOBS = 100
_MAX_PAGE_JOBS = 1000
_MAX_SEQ = 2**53


class Pages:
    """Handlers that only look."""

    def __init__(self, engine: Engine, pool: Pool) -> None:
        self._view = engine.view
        self._trouble = engine.trouble
        self._pool = pool

    def routes(self) -> list[Route]:
        return [
            route("GET", "/jobs", self.jobs),
            route("GET", "/jobs/{job_id}", self.job),
            route("GET", "/jobs/{job_id}/receipt", self.receipt),
        ]

    async def jobs(self, call: Call) -> web.StreamResponse:
        state = _state(call.values.get("state", ""))
        # The plain route lists the jobs of all managers, the one below /managers/NAME those of that manager.
        named = call.request.raw_path.startswith("/managers/")
        manager = call.manager if named else call.values.get("manager") or None
        if manager is not None:
            self._view.entry(manager)
        limit = call.count("limit", _PAGE_JOBS, _MAX_PAGE_JOBS)
        before = call.count("before", 1, _MAX_SEQ) if "before" in call.values else None
        found = await self._pool.run(self._view.jobs, state, manager, limit, before)
        return json_answer(
            {"jobs": [_shown(job) for job in found], "next": found[-1].seq if len(found) == limit else None}
        )

    async def job(self, call: Call) -> web.StreamResponse:
        job = await self._job(call)
        events = await self._pool.run(self._view.events, job)
        told = [{"at": event.at, "state": str(event.state), "reason": event.reason} for event in events]
        return json_answer({**_shown(job), "events": told, "trouble": self._trouble(job)})

    async def receipt(self, call: Call) -> web.StreamResponse:
        job = await self._job(call)
        records = await self._pool.run(self._view.receipt, job)
        return json_answer(receipt_document(job.key.job_id, job.key.manager, job.directory, job.state, records))

    async def _job(self, call: Call) -> Job:
        self._view.entry(call.manager)
        job = await self._pool.run(self._view.latest, call.key)
        if job is None:
            raise NotFound(f"There is no job {call.key.job_id} here.", "GET /jobs lists those that are.")
        return job


def _state(word: str) -> JobState | None:
    try:
        return JobState(word) if word else None
    except ValueError:
        raise BadRequest(f"There is no state {word[:40]!r}.", f"States are {', '.join(sorted(JobState))}.") from None


def _shown(job: Job) -> dict[str, Any]:
    return {
        "job_id": job.key.job_id,
        "manager": job.key.manager,
        "state": str(job.state),
        "reason": job.reason,
        "exit_code": job.exit_code,
        "tool_id": job.tool_id,
        "tool_version": job.tool_version,
        "directory": job.directory,
        "cancel_requested": job.cancel_requested,
        "created_at": job.created_at,
        "submitted_at": job.submitted_at,
        "started_at": job.started_at,
        "ended_at": job.ended_at,
        "cleaned_at": job.cleaned_at,
    }
