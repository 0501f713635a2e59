"""Staging by the server, whole: real jobs on a served server, and Galaxy's side as the machines of `tests.machines`."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from lwr.core.staging import ACTIONS, Mover, transfer_url
from tests.machines.fault_proxy import Fault, FaultProxy, answering
from tests.machines.job_files import JobFilesServer
from tests.machines.sshd import Sshd
from tests.server.http.served import Served, served
from tests.support import RunningServer, wait_until

KEY = "a-job-key-that-nobody-may-see"
#: Not text, larger than what the lane for small files takes, and unlike anything else.
CONTENT = secrets.token_bytes(100_000) * 13
COPY = "cat ../inputs/* > ../outputs/out.dat"


class Galaxy:
    """Galaxy's disk and what reaches it."""

    def __init__(self, disk: Path, files: JobFilesServer) -> None:
        self.disk = disk
        self.files = files
        self.input = disk / "in put+é&%.dat"
        self.output = disk / "datasets" / "out.dat"
        self.output.parent.mkdir(parents=True)
        self.input.write_bytes(CONTENT)
        self.ssh: Mapping[str, Any] = {}

    def action(self, action: str, path: Path, kind: str, endpoint: str = "") -> dict[str, Any]:
        """An action object for one file, as Galaxy's client makes it."""
        value = {"action_type": action, "path": str(path), "source": {"path": str(path)}}
        if action.startswith("remote_transfer"):
            value["url"] = transfer_url(endpoint or self.files.endpoint, str(path), kind)
        return value | (
            {key: text for key, text in self.ssh.items() if key != "ssh_key"}
            if "_rsync_" in action or "_scp_" in action
            else {}
        )

    def staging(self, action: str, *, endpoint: str = "", outputs: bool = True, inputs: bool = True) -> dict[str, Any]:
        """A peer's `remote_staging` for one input and one output."""
        setup = [
            {"name": self.input.name, "type": "input", "action": self.action(action, self.input, "input", endpoint)}
        ]
        mapper = {
            "default_action": action if outputs else "transfer",
            "files_endpoint": endpoint or self.files.endpoint,
        }
        return {
            "setup": setup if inputs else [],
            "action_mapper": {**mapper, "paths": [], **self.ssh},
            "client_outputs": {
                "working_directory": str(self.disk / "w"),
                "metadata_directory": str(self.disk / "m"),
                "output_files": [str(self.output)],
                "work_dir_outputs": [],
                "version_file": None,
            },
        } | ({"ssh_key": self.ssh["ssh_key"]} if self.ssh else {})


@pytest.fixture
def galaxy(tmp_path: Path) -> Iterator[Galaxy]:
    disk = tmp_path / "galaxy"
    disk.mkdir()
    with JobFilesServer(disk, KEY) as files:
        yield Galaxy(disk, files)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Served]:
    with served(tmp_path / "server") as running:
        yield running


def begin(server: Served, staging: Mapping[str, Any], command: str = COPY, *, extras: str = "{}") -> None:
    server.setup("7")
    query = {"command_line": command, "remote_staging": json.dumps(staging), "submit_extras": extras}
    answer = server.ask("POST", "/jobs/7/submit", query=query)
    assert (answer.status, answer.body) == (200, b"OK"), answer.body


def receipt(server: Served) -> list[dict[str, Any]]:
    answer = server.ask("GET", "/jobs/7/receipt")
    assert answer.status == 200, answer.body
    assert KEY not in answer.body.decode()
    files: list[dict[str, Any]] = answer.json()["files"]
    return files


def by_direction(server: Served) -> dict[bool, dict[str, Any]]:
    return {record["upward"]: record for record in receipt(server)}


SSH_ACTIONS = ("remote_rsync_transfer", "remote_scp_transfer")
PLAIN_ACTIONS = ("remote_transfer", "remote_transfer_tus", "remote_copy")


class TestEveryAction:
    @pytest.mark.parametrize("action", PLAIN_ACTIONS)
    def test_both_ways(self, action: str, galaxy: Galaxy, server: Served) -> None:
        begin(server, galaxy.staging(action))
        assert server.finished("7")["status"] == "complete"
        assert galaxy.output.read_bytes() == CONTENT  # at once: complete means that the results have arrived
        records = by_direction(server)
        for upward in (True, False):
            record = records[upward]
            assert (record["state"], record["mover"], record["action"]) == ("whole", "server", action)
            assert record["size_bytes"] == len(CONTENT)
            assert record["tries"] == 1
        assert records[True]["sha256"] == records[False]["sha256"]

    @pytest.mark.parametrize("action", SSH_ACTIONS)
    def test_both_ways_by_ssh(self, action: str, galaxy: Galaxy, server: Served, tmp_path: Path) -> None:
        with Sshd(tmp_path / "sshd") as sshd:
            galaxy.ssh = {
                "ssh_key": sshd.private_key, "ssh_user": sshd.user, "ssh_host": sshd.host, "ssh_port": sshd.port,
            }  # fmt: skip
            begin(server, galaxy.staging(action))
            assert server.finished("7")["status"] == "complete", receipt(server)
        assert galaxy.output.read_bytes() == CONTENT
        assert {record["state"] for record in receipt(server)} == {"whole"}

    def test_message(self, galaxy: Galaxy, server: Served) -> None:
        text = "a configuration, é\n"
        action = {"action_type": "message", "contents": text}
        staging = {"setup": [{"name": "c.txt", "type": "config", "action": action}]}
        begin(server, staging, "cat ../configs/c.txt")
        assert server.finished("7")["stdout"] == text

    @pytest.mark.parametrize("action", ["none", "rewrite"])
    def test_nobody_moves_anything(self, action: str, galaxy: Galaxy, server: Served) -> None:
        staging = galaxy.staging(action)
        staging["setup"][0]["action"] |= {"source_directory": "/a", "destination_directory": "/b"}
        begin(server, staging, f"cat '{galaxy.input}' > '{galaxy.output}'")
        assert server.finished("7")["returncode"] == 0
        assert galaxy.output.read_bytes() == CONTENT
        assert not galaxy.files.requests

    def test_what_the_client_moves_is_left_to_it(self, galaxy: Galaxy, server: Served) -> None:
        begin(server, galaxy.staging("remote_transfer", outputs=False))
        assert server.finished("7")["outputs_directory_contents"] == ["out.dat"]
        assert not galaxy.output.exists()
        assert by_direction(server)[False]["state"] == "ready to be fetched"
        server.ask("GET", "/jobs/7/files", query={"name": "out.dat"})
        assert by_direction(server)[False]["state"] == "whole"

    def test_the_table_has_no_row_that_is_not_tested(self) -> None:
        by_server = {name for name, kind in ACTIONS.items() if kind.mover is Mover.SERVER}
        assert by_server == {*PLAIN_ACTIONS, *SSH_ACTIONS, "message", "remote_object_store_copy"}

    def test_the_object_store_is_refused_with_a_cure(self, galaxy: Galaxy, server: Served) -> None:
        begin(server, galaxy.staging("remote_object_store_copy"))
        status = server.finished("7")
        assert status["status"] == "failed"
        assert "object store" in status["stderr"]
        assert "remote_transfer" in status["stderr"]


class TestOutputs:
    def test_one_that_was_not_written_is_no_failure(self, galaxy: Galaxy, server: Served) -> None:
        begin(server, galaxy.staging("remote_transfer"), "true")
        assert server.finished("7")["status"] == "complete"
        assert by_direction(server)[False]["state"] == "not written by the job"

    def test_one_that_the_server_made_and_nobody_wrote_is_told(self, galaxy: Galaxy, server: Served) -> None:
        begin(server, {}, "true", extras=json.dumps({"touch_outputs": ["out.dat"]}))
        assert server.finished("7")["status"] == "complete"
        assert by_direction(server)[False]["state"] == "created empty by the server"

    def test_one_that_was_required_fails_the_job_by_name(self, galaxy: Galaxy, server: Served) -> None:
        action = galaxy.action("remote_transfer", galaxy.output, "output")
        staging = {"outputs": [{"name": "out.dat", "type": "output", "action": action, "required": True}]}
        begin(server, staging, "true")
        status = server.finished("7")
        assert status["status"] == "failed"
        assert "out.dat" in status["stderr"]

    def test_streams_with_metadata_names_are_not_doubled_by_a_repeat(self, galaxy: Galaxy, server: Served) -> None:
        galaxy.files.lose_answers(1)
        staging = galaxy.staging("remote_transfer", inputs=False)
        (galaxy.disk / "m").mkdir()
        begin(server, staging, "echo told > ../metadata/tool_stdout")
        assert server.finished("7")["status"] == "complete"
        assert (galaxy.disk / "m" / "tool_stdout").read_text() == "told\n"

    def test_one_that_galaxy_refuses_is_a_warning(self, galaxy: Galaxy, server: Served) -> None:
        staging = galaxy.staging("remote_transfer", inputs=False)
        staging["client_outputs"]["output_files"].append("/not/galaxys/other.dat")
        begin(server, staging, "echo a > ../outputs/out.dat; echo b > ../outputs/other.dat")
        assert server.finished("7")["status"] == "complete"
        states = {record["name"]: record["state"] for record in receipt(server)}
        assert states == {"out.dat": "whole", "other.dat": "refused by the receiver"}

    def test_all_refused_fails_the_job(self, galaxy: Galaxy, server: Served) -> None:
        galaxy.files.active = False
        begin(server, galaxy.staging("remote_transfer", inputs=False), "echo a > ../outputs/out.dat")
        status = server.finished("7")
        assert status["status"] == "failed"
        assert "no longer takes" in status["stderr"]

    @pytest.mark.parametrize("status", [404, 410, 413])
    def test_what_cannot_pass_fails_at_once_by_name(self, status: int, galaxy: Galaxy, server: Served) -> None:
        galaxy.files.fail_next(status, times=99, method="POST")
        begin(server, galaxy.staging("remote_transfer", inputs=False), "echo a > ../outputs/out.dat")
        told = server.finished("7")
        assert told["status"] == "failed"
        assert "out.dat" in told["stderr"]
        assert str(status) in told["stderr"]
        assert galaxy.files.counts()["POST", "files"] == 1

    @pytest.mark.parametrize(
        "command",
        [
            "ln -s /etc/passwd ../outputs/out.dat",
            "mkdir ../outputs/out.dat",
            "mkfifo ../outputs/out.dat",
            "echo > ../outputs/out.dat; cd ..; rm -r working; ln -s outputs working",
        ],
    )
    def test_one_that_is_there_and_cannot_be_read_fails_the_job(
        self, command: str, galaxy: Galaxy, server: Served
    ) -> None:
        begin(server, galaxy.staging("remote_transfer", inputs=False), command)
        assert server.finished("7")["status"] == "failed"
        assert not galaxy.output.exists()

    def test_one_that_was_only_made_before_the_job_is_not_written(self, galaxy: Galaxy, server: Served) -> None:
        action = galaxy.action("remote_transfer", galaxy.output, "output")
        staging = {"outputs": [{"name": "out.dat", "type": "output", "action": action, "required": True}]}
        begin(server, staging, "true", extras=json.dumps({"touch_outputs": ["out.dat"]}))
        assert server.finished("7")["status"] == "failed"

    def test_one_for_two_places_gets_to_both_or_fails(self, galaxy: Galaxy, server: Served) -> None:
        staging = galaxy.staging("remote_transfer", inputs=False)
        first, second = galaxy.disk / "first", galaxy.disk / "second"
        pairs = [[f"{galaxy.disk}/w/wd.txt", str(first)], [f"{galaxy.disk}/w/wd.txt", str(second)]]
        staging["client_outputs"] |= {"output_files": [], "work_dir_outputs": pairs}
        galaxy.files.fail_next(403, method="POST")
        begin(server, staging, "echo told > wd.txt")
        assert server.finished("7")["status"] == "complete"
        assert [path.exists() for path in (first, second)].count(True) == 1
        assert sorted(record["state"] for record in receipt(server)) == ["refused by the receiver", "whole"]

    def test_patterns_that_never_end_hold_nobody_up(self, galaxy: Galaxy, server: Served) -> None:
        staging = galaxy.staging("remote_transfer", inputs=False)
        staging["client_outputs"]["dynamic_outputs"] = ["(x|xx)+z"] * 1000
        begin(server, staging, f"touch {'x' * 60}")
        wait_until(lambda: "postprocessing" in server.ask("GET", "/jobs/7/status").body.decode(), "the patterns")
        server.ask("PUT", "/jobs/7/cancel")
        assert server.finished("7")["status"] in ("cancelled", "failed")

    @pytest.mark.parametrize(
        "wrong",
        [{"client_outputs": {"dynamic_outputs": ["("]}}, {"action_mapper": {"default_action": "remote_transfer"}}],
    )
    def test_what_could_not_be_collected_is_not_even_run(
        self, wrong: dict[str, Any], galaxy: Galaxy, server: Served
    ) -> None:
        begin(server, {**galaxy.staging("remote_transfer", inputs=False), **wrong}, "true")
        assert server.finished("7")["status"] == "failed"
        assert not server.job_file("7", "started").exists()


class TestInputs:
    @pytest.mark.parametrize("status", [403, 404, 410])
    def test_what_cannot_pass_fails_after_one_request(self, status: int, galaxy: Galaxy, server: Served) -> None:
        galaxy.files.fail_next(status, times=99)
        begin(server, galaxy.staging("remote_transfer"))
        told = server.finished("7")
        assert told["status"] == "failed"
        assert str(status) in told["stderr"]
        assert galaxy.input.name in told["stderr"]
        assert len(galaxy.files.requests) == 1
        assert not server.job_file("7", "started").exists()

    def test_what_may_pass_is_tried_again_and_told(self, galaxy: Galaxy, server: Served) -> None:
        galaxy.files.fail_next(502, times=2)
        begin(server, galaxy.staging("remote_transfer"))
        wait_until(lambda: "502" in server.ask("GET", "/jobs/7").json()["trouble"], "the trouble to be told")
        assert server.finished("7")["status"] == "complete"
        assert by_direction(server)[True]["tries"] == 3
        assert server.ask("GET", "/jobs/7").json()["trouble"] == ""

    def test_a_page_instead_of_the_file_is_never_taken_for_it(self, galaxy: Galaxy, server: Served) -> None:
        galaxy.files.answers_html(2)
        begin(server, galaxy.staging("remote_transfer"))
        assert server.finished("7")["status"] == "complete"
        assert galaxy.output.read_bytes() == CONTENT

    def test_a_cut_line_goes_on_where_it_was(self, galaxy: Galaxy, server: Served) -> None:
        cuts = [Fault(cut_down_bytes=400_000), Fault(cut_down_bytes=500_000)]
        with FaultProxy(galaxy.files.port, cuts) as proxy:
            begin(
                server, galaxy.staging("remote_transfer", endpoint=galaxy.files.endpoint_at(proxy.port), outputs=False)
            )
            assert server.finished("7")["status"] == "complete"
            moved = proxy.down_bytes
        assert server.job_file("7", "outputs", "out.dat").read_bytes() == CONTENT
        assert moved < len(CONTENT) + 2 * 1024 * 1024

    def test_one_failure_ends_the_others(self, galaxy: Galaxy, server: Served) -> None:
        galaxy.input.unlink()
        staging = galaxy.staging("remote_copy")
        with FaultProxy(galaxy.files.port, otherwise=Fault(delay_s=600)) as silent:
            endpoint = galaxy.files.endpoint_at(silent.port)
            for number in range(20):
                path = galaxy.disk / f"{number}"
                action = galaxy.action("remote_transfer", path, "input", endpoint)
                staging["setup"].append({"name": f"{number}", "type": "input", "action": action})
            begin(server, staging)
            assert server.finished("7")["status"] == "failed"

    @pytest.mark.parametrize("name", ["../../etc/x", "/etc/x", "a/../../b", ""])
    def test_a_name_that_leaves_the_job_fails_it(self, name: str, galaxy: Galaxy, server: Served) -> None:
        staging = galaxy.staging("remote_transfer")
        staging["setup"][0]["name"] = name
        begin(server, staging)
        assert server.finished("7")["status"] == "failed"

    def test_two_files_of_one_name_are_refused_and_the_same_twice_is_one(self, galaxy: Galaxy, server: Served) -> None:
        staging = galaxy.staging("remote_transfer")
        (same,) = staging["setup"]
        begin(server, {**staging, "setup": [same, same]})
        assert server.finished("7")["status"] == "complete"
        other = {**same, "action": galaxy.action("remote_copy", galaxy.output, "input")}
        begin(server, {**staging, "setup": [same, other]})
        assert "Two files" in server.finished("7")["stderr"]

    def test_one_that_is_too_large_is_given_up(self, galaxy: Galaxy, tmp_path: Path) -> None:
        with served(tmp_path / "small", options="maximum_upload_bytes = 1000000\n") as server:
            begin(server, galaxy.staging("remote_transfer"))
            assert "maximum_upload_bytes" in server.finished("7")["stderr"]
            assert server.parts("7") == []

    def test_a_message_stands_in_the_receipt(self, galaxy: Galaxy, server: Served) -> None:
        action = {"action_type": "message", "contents": "é"}
        begin(server, {"setup": [{"name": "c.txt", "type": "config", "action": action}]}, "true")
        assert server.finished("7")["status"] == "complete"
        assert [(record["action"], record["size_bytes"]) for record in receipt(server)] == [("message", 2)]


class TestCancel:
    @pytest.mark.parametrize("stage", ["fetching", "delivering"])
    def test_at_once_while_the_peer_says_nothing(self, stage: str, galaxy: Galaxy, server: Served) -> None:
        with FaultProxy(galaxy.files.port, otherwise=Fault(delay_s=600)) as silent:
            endpoint = galaxy.files.endpoint_at(silent.port)
            staging = galaxy.staging("remote_transfer", endpoint=endpoint, inputs=stage == "fetching")
            begin(server, staging, "echo a > ../outputs/out.dat")
            wait_until(lambda: silent.lines and silent.lines[0].up_bytes, "the server to ask")
            server.ask("PUT", "/jobs/7/cancel")
            assert server.finished("7")["status"] == "cancelled"
            assert server.parts("7") == []

    def test_while_it_waits_to_try_again(self, galaxy: Galaxy, server: Served) -> None:
        galaxy.files.fail_next(503, times=999, retry_after="3600")
        begin(server, galaxy.staging("remote_transfer"))
        wait_until(lambda: server.ask("GET", "/jobs/7").json()["trouble"], "the first failure")
        server.ask("PUT", "/jobs/7/cancel")
        assert server.finished("7")["status"] == "cancelled"


class TestRestart:
    @pytest.mark.parametrize("point", ["fetch.before_commit", "fetch.after_commit", "deliver.before", "deliver.after"])
    def test_killed_in_the_middle_nothing_is_lost_or_doubled(self, point: str, galaxy: Galaxy, tmp_path: Path) -> None:
        with RunningServer(tmp_path / "server") as server:
            server.stop()
            server.start(fault=point)
            staging = galaxy.staging("remote_transfer")
            (galaxy.disk / "m").mkdir()
            query = {"job_id": "7", "command_line": f"{COPY}; echo told > ../metadata/tool_stdout"}
            server.ask_json("POST", "/jobs?job_id=7")
            server.ask("POST", f"/jobs/7/submit?{urlencode({**query, 'remote_staging': json.dumps(staging)})}", b"")
            assert server.wait() == -9
            server.start()
            wait_until(lambda: _status(server)["complete"] == "true", "the job to end")
            assert _status(server)["status"] == "complete"
            assert KEY not in server.log()
        assert galaxy.output.read_bytes() == CONTENT
        assert (galaxy.disk / "m" / "tool_stdout").read_text() == "told\n"

    def test_a_job_that_was_handed_over_is_not_staged_again(self, galaxy: Galaxy, tmp_path: Path) -> None:
        effects = tmp_path / "effects"
        with RunningServer(tmp_path / "server") as server:
            server.stop()
            server.start(fault="observe.before_commit")
            command = f"mv ../inputs/* moved; echo started >> {effects}; sleep 1; cat moved > ../outputs/out.dat"
            query = {"command_line": command, "remote_staging": json.dumps(galaxy.staging("remote_transfer"))}
            server.ask_json("POST", "/jobs?job_id=7")
            server.ask("POST", f"/jobs/7/submit?{urlencode(query)}", b"")
            assert server.wait() == -9
            galaxy.input.unlink()
            server.start()
            wait_until(lambda: _status(server)["complete"] == "true", "the job to end")
            assert _status(server)["status"] == "complete"
        assert effects.read_text() == "started\n"
        assert galaxy.output.read_bytes() == CONTENT

    @pytest.mark.parametrize("how", ["kill", "stop"])
    def test_a_large_download_goes_on_after(self, how: str, galaxy: Galaxy, tmp_path: Path) -> None:
        galaxy.input.write_bytes(os.urandom(1 << 20) * 40)
        size_bytes = galaxy.input.stat().st_size
        with FaultProxy(galaxy.files.port, [Fault(), Fault(down_bytes_per_s=12_000_000)]) as proxy:
            staging = galaxy.staging("remote_transfer", endpoint=galaxy.files.endpoint_at(proxy.port), outputs=False)
            with RunningServer(tmp_path / "server") as server:
                server.ask_json("POST", "/jobs?job_id=7")
                query = {"command_line": COPY, "remote_staging": json.dumps(staging)}
                server.ask("POST", f"/jobs/7/submit?{urlencode(query)}", b"")
                wait_until(lambda: proxy.down_bytes > 24_000_000, "half of it")
                server.kill() if how == "kill" else server.stop()
                before = proxy.down_bytes
                server.start()
                wait_until(lambda: _status(server)["complete"] == "true", "the job to end")
                assert _status(server)["status"] == "complete"
            again = proxy.down_bytes - before
        assert again < size_bytes - 10_000_000
        assert (tmp_path / "server" / "staging" / "7" / "outputs" / "out.dat").stat().st_size == size_bytes


def _status(server: RunningServer) -> dict[str, Any]:
    answer = server.ask_json("GET", "/jobs/7/status")
    assert isinstance(answer, dict)
    return answer


class TestRules:
    @pytest.mark.parametrize(
        ("option", "action", "line"),
        [
            ("remote_copy_roots = /nowhere", "remote_copy", "remote_copy_roots"),
            ("staging_url_hosts = galaxy.example.org", "remote_transfer", "staging_url_hosts"),
            ("staging_url_networks = 192.0.2.0/24", "remote_transfer", "staging_url_networks"),
            ("staging_url_schemes = https", "remote_transfer", "staging_url_schemes"),
            ("staging_url_hosts = galaxy.example.org", "remote_rsync_transfer", "staging_url_hosts"),
            ("staging_url_networks = 192.0.2.0/24", "remote_scp_transfer", "staging_url_networks"),
        ],
    )
    @pytest.mark.parametrize("inputs", [True, False], ids=["into", "out of"])
    def test_each_refuses_by_its_name(
        self, option: str, action: str, line: str, inputs: bool, galaxy: Galaxy, tmp_path: Path
    ) -> None:
        if action in SSH_ACTIONS:
            galaxy.ssh = {"ssh_key": "k", "ssh_user": "u", "ssh_host": "127.0.0.1"}
        with served(tmp_path / "server", options=option) as server:
            begin(server, galaxy.staging(action, inputs=inputs), "echo a > ../outputs/out.dat")
            told = server.finished("7")
        assert told["status"] == "failed"
        assert line in told["stderr"]
        assert not galaxy.output.exists()
        assert not galaxy.files.requests

    def test_no_secret_is_in_log_or_answers(self, galaxy: Galaxy, tmp_path: Path) -> None:
        galaxy.files.fail_next(502)
        galaxy.files.fail_next(404)
        with RunningServer(tmp_path / "server", options="log_level = debug\n") as server:
            query = {"command_line": COPY, "remote_staging": json.dumps(galaxy.staging("remote_transfer"))}
            server.ask_json("POST", "/jobs?job_id=7")
            server.ask("POST", f"/jobs/7/submit?{urlencode(query)}", b"")
            wait_until(lambda: _status(server)["complete"] == "true", "the job to end")
            answers = [server.ask_json("GET", path) for path in ("/jobs/7", "/jobs/7/receipt", "/jobs/7/status")]
            shown = json.dumps(answers) + server.log()
        assert "404" in shown
        assert KEY not in shown


def test_a_proxys_own_502_is_waited_out(galaxy: Galaxy, server: Served) -> None:
    with FaultProxy(galaxy.files.port, [answering(502), answering(502)]) as proxy:
        begin(server, galaxy.staging("remote_transfer", endpoint=galaxy.files.endpoint_at(proxy.port)))
        assert server.finished("7")["status"] == "complete"
    assert galaxy.output.read_bytes() == CONTENT
