"""Jobs of a real Galaxy that were recorded on its message queue, made to be sent again: here, and under other ids.

Galaxy's disk and address, the server's staging directory and the job's id are other ones; each job has a directory of
its own on Galaxy's disk, and leaves a word of each time that it runs.
"""

from __future__ import annotations

import json
import re
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from tests import recorded
from tests.machines.job_files import JobFilesServer

#: As it stands in the captures.
_ENDPOINT = "http://GALAXY:8080/api/jobs/<encoded id>/files?job_key=<job_key>"


@dataclass(frozen=True)
class Recording:
    """Where a job was recorded: its messages, and if they are there, the requests for its files."""

    capture: str
    messages: str
    files: str
    job_id: str


TWO_RESULTS = Recording("galaxy-mq-job.txt", "amqp_probe_mq", "files_probe_mq", "8")
STREAMS = Recording("galaxy-mq-live-output.txt", "live_amqp", "", "20")
KILLED = Recording("galaxy-mq-cancel.txt", "amqp_cancel", "", "12")
RECORDINGS = (TWO_RESULTS, STREAMS, KILLED)


class Replay:
    """A recorded job under another id.

    Args:
        staging: the server's staging directory.
        runs: a file that gets the job's id each time that the job runs.
    """

    def __init__(self, recording: Recording, job_id: str, galaxy: JobFilesServer, staging: Path, runs: Path) -> None:
        self.job_id = job_id
        self.disk = galaxy.root / job_id
        self._recording = recording
        self._endpoint = galaxy.endpoint
        self._staging = staging
        self._runs = runs
        self.messages = [
            recorded.Published(message.queue, self._renamed(message.body))
            for message in recorded.messages(recording.capture, recording.messages)
        ]
        self.asked = list(recorded.read(recording.capture, recording.files)) if recording.files else []
        self._fill_disk()

    def here(self, text: str) -> str:
        """What was recorded, with this machine's paths and addresses, and the job's new id."""
        old = self._recording.job_id
        text = text.replace(_ENDPOINT, self._endpoint)
        text = text.replace("%2FGALAXY%2F", quote(f"{self.disk}/", safe=""))
        text = re.sub("/GALAXY(?=/)", str(self.disk), text)
        text = text.replace(f"/STAGING/{old}/", f"{self._staging}/{self.job_id}/")
        text = text.replace(f'/STAGING/{old}"', f'{self._staging}/{self.job_id}"')
        # The recorded tools took their time.
        return text.replace("sleep 1; cat", "cat").replace("sleep 2; done", "done")

    def _renamed(self, body: dict[str, Any]) -> dict[str, Any]:
        renamed: dict[str, Any] = json.loads(self.here(json.dumps(body)))
        for part in (renamed, renamed.get("setup_params", {})):
            if "job_id" in part:
                part["job_id"] = self.job_id
        for name in ("acknowledge_uuid", "acknowledge_uuid_response"):
            if name in renamed:
                renamed[name] = str(uuid.uuid5(uuid.NAMESPACE_OID, f"{renamed[name]} {self.job_id}"))
        for entry in renamed.get("remote_staging", {}).get("setup", ()):
            if "contents" in entry["action"]:
                entry["action"]["contents"] = self._counted(entry["action"]["contents"])
        return renamed

    def _counted(self, script: str) -> str:
        return script.replace("set -e\n", f"set -e\necho {self.job_id} >> {self._runs}\n")

    def _fill_disk(self) -> None:
        """What the job fetches: as it was recorded, or else its script as it stands in the message, and anything."""
        recorded_files = {self.here(each.query["path"]): each.answer for each in self.asked if each.method == "GET"}
        entries = self.messages[0].body["remote_staging"]["setup"]
        script = next(
            each["action"]["contents"]
            for each in entries
            if each["name"] == "tool_script.sh" and "contents" in each["action"]
        )
        for entry in entries:
            path = entry["action"].get("path")
            if path is None:
                continue
            content = recorded_files.get(path, "anything\n")
            if entry["name"] == "tool_script.sh":
                content = self._counted(self.here(content)) if path in recorded_files else script
            Path(path).parent.mkdir(parents=True, exist_ok=True)
            Path(path).write_text(content)

    def sent(self) -> list[recorded.Published]:
        """What Galaxy sent, in order, but for the answers to updates: they name updates of that day."""
        return [each for each in self.messages if each.queue in ("pulsar__setup", "pulsar__kill")]

    def heard(self, queue: str) -> list[dict[str, Any]]:
        """What Galaxy was told on a queue."""
        return [each.body for each in self.messages if each.queue == queue]
