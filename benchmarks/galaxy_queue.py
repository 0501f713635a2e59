"""Galaxy's side of a message queue, as far as it is measured: publishes set-ups, and notes when it is told of what.

Speaks Pulsar's dialect, which both servers take. Knows kombu, bodies of set-ups and where files are; knows neither
servers nor rows of the table.
"""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections.abc import Sequence
from types import TracebackType
from typing import Any

from kombu import Connection, Consumer, Exchange, Producer, Queue

_EXCHANGE = Exchange("pulsar", "direct")
ENDS = ("complete", "failed", "cancelled", "lost")
LIMIT_S = 600


def queue(kind: str) -> Queue:
    name = f"pulsar__{kind}"
    return Queue(name, _EXCHANGE, routing_key=name)


def set_up(command_line: str, *, files_url: str = "", sink_url: str = "") -> dict[str, Any]:
    """A set-up of a new job.

    Args:
        command_line: runs in the job's directory `working`, beside `inputs` and `outputs`.
        files_url: `inputs/in.dat` is fetched from it; empty for no files at all.
        sink_url: `outputs/out.dat` is delivered there.
    """
    job_id = uuid.uuid4().hex
    here = f"/galaxy/{job_id}"
    fetched = {"action_type": "remote_transfer", "path": f"{here}/in.dat", "url": files_url}
    return {
        "job_id": job_id,
        "command_line": command_line,
        "setup_params": {"job_id": job_id, "tool_id": "t", "tool_version": "1", "use_metadata": True},
        "remote_staging": {
            "setup": [{"name": "in.dat", "type": "input", "action": fetched}] if files_url else [],
            "action_mapper": {"default_action": "remote_transfer", "files_endpoint": sink_url, "paths": []},
            "client_outputs": {
                "working_directory": f"{here}/working",
                "metadata_directory": None,
                "work_dir_outputs": [],
                "output_files": [f"{here}/out.dat"] if sink_url else [],
                "version_file": None,
                "dynamic_outputs": [],
                "dynamic_file_sources": None,
            },
        },
    }


def depth(url: str, name: str) -> tuple[int, int]:
    """Messages that wait in a queue, and its consumers; (0, 0) while there is none."""
    with Connection(url) as connection:
        channel = connection.channel()
        try:
            told = channel.queue_declare(name, passive=True)
        except connection.channel_errors:
            return 0, 0
        return told.message_count, told.consumer_count


class GalaxyQueue:
    """Publishes, and takes all updates in a thread of its own; a context manager. Declares what it uses."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._told: dict[tuple[str, str], float] = {}
        self._news = threading.Condition()
        self._stopping = threading.Event()
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._listen, name="galaxy")

    def __enter__(self) -> GalaxyQueue:
        self._thread.start()
        self._ready.wait()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping.set()
        self._thread.join()

    def _listen(self) -> None:
        with Connection(self._url) as connection:
            for kind in ("setup", "kill"):
                queue(kind)(connection).declare()
            with Consumer(connection, [queue("status_update")], callbacks=[self._hear], accept=["json"]):
                self._ready.set()
                while not self._stopping.is_set():
                    try:
                        connection.drain_events(timeout=0.1)
                    except TimeoutError:
                        continue

    def _hear(self, body: dict[str, Any], message: Any) -> None:
        with self._news:
            self._told.setdefault((body["job_id"], body["status"]), time.monotonic())
            self._news.notify_all()
        message.ack()

    def publish(self, kind: str, bodies: Sequence[dict[str, Any]]) -> float:
        """Send them one after the other on one connection; returns the `time.monotonic` before the first."""
        with Connection(self._url) as connection, connection.channel() as channel:
            producer = Producer(channel, _EXCHANGE)
            connection.connect()
            texts = [json.dumps(body) for body in bodies]
            began = time.monotonic()
            for text in texts:
                producer.publish(
                    text,
                    routing_key=queue(kind).name,
                    content_type="application/json",
                    content_encoding="utf-8",
                    delivery_mode=2,
                )
        return began

    def wait(self, job_id: str, *states: str) -> tuple[str, float]:
        """The first of these states that a job was told to be in, and when, by `time.monotonic`.

        Raises:
            SystemExit: it was none of them for ten minutes.
        """

        def seen() -> list[tuple[float, str]]:
            return sorted((self._told[job_id, state], state) for state in states if (job_id, state) in self._told)

        with self._news:
            if not self._news.wait_for(seen, LIMIT_S):
                raise SystemExit(f"{job_id} was never {' or '.join(states)}.")
            when, state = seen()[0]
            return state, when
