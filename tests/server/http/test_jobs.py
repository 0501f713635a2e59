"""Jobs over HTTP: the whole life in both dialects, what repeats and mistakes are told, and LWR's own pages."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest

from tests.server.http.served import LARGE, Served
from tests.support import wait_until

COMMAND = "cat ../inputs/a/in.txt > ../outputs/out.txt; echo said; echo left > left.txt; exit 3"

PROBLEM_IDS = [
    "",
    ".",
    "..",
    "a/b",
    "a\\b",
    "a\0b",
    "a\nb",
    "x" * 129,
    "x" * 9000,
    "é",
    "\u202eabc",
    "a.",
    "a ",
    "NUL",
    "~",
]


@pytest.mark.parametrize("prefix", ["", "/managers/_default_", "/managers/second"])
def test_a_job_over_the_rest_routes(server: Served, job_id: str, prefix: str) -> None:
    told = server.setup(job_id, prefix)
    assert told["job_id"] == job_id
    assert told["inputs_directory"] == str(server.job_file(job_id, "inputs"))
    jobs = f"{prefix}/jobs/{job_id}"
    query = {"name": "a/in.txt", "type": "input", "job_id": "ignored"}
    assert server.ask("POST", f"{jobs}/files", b"content", query=query).json() == {
        "path": str(server.job_file(job_id, "inputs", "a", "in.txt"))
    }
    assert server.ask("POST", f"{jobs}/submit", query={"command_line": COMMAND}).body == b"OK"
    seen = server.finished(job_id, prefix + "/jobs/{}/status")
    assert (seen["status"], seen["returncode"], seen["stdout"]) == ("complete", 3, "said\n")
    assert seen["outputs_directory_contents"] == ["out.txt"]
    assert seen["working_directory_contents"] == ["left.txt"]
    assert server.ask("GET", f"{jobs}/files", query={"name": "out.txt"}).body == b"content"
    found = server.ask("GET", f"{jobs}/files", query={"name": "left.txt", "type": "output_workdir"})
    assert found.body == b"left\n"
    assert server.ask("DELETE", jobs).body == b"OK"
    assert not server.job_file(job_id).exists()


@pytest.mark.parametrize("method", ["GET", "POST", "PUT"])
def test_a_job_over_the_classic_routes(server: Served, job_id: str, method: str) -> None:
    def ask(path: str, body: bytes | None = None, **query: str) -> bytes:
        answer = server.ask(method, path, body, query={"job_id": job_id, **query})
        assert answer.status == 200, answer.body
        return answer.body

    assert json.loads(ask("/setup", tool_id="cat"))["tool_id"] == "cat"
    ask("/upload_extra_input", b"content", name="a/in.txt")
    ask("/upload_file", b"config", name="sub/conf.txt", input_type="config")
    assert server.job_file(job_id, "configs", "conf.txt").read_bytes() == b"config"
    assert json.loads(ask("/input_path", name="x/y", input_type="input_extra"))["path"].endswith("/inputs/x/y")
    assert json.loads(ask("/output_path", name="x", output_type="task"))["path"].endswith("/working/x")
    assert ask("/launch", command_line=COMMAND) == b"OK"
    seen = server.finished(job_id, "/check_complete?job_id={}")
    assert (seen["status"], seen["returncode"]) == ("complete", 3)
    assert ask("/download_output", name="out.txt") == b"content"
    assert ask("/download_output", name="left.txt", output_type="task") == b"left\n"
    assert ask("/download_output", name="left.txt", output_type="work_dir") == b"left\n"
    kinds = [json.loads(ask("/get_output_type", name=name)) for name in ("out.txt", "left.txt", "none", "../x")]
    assert kinds == ["direct", "task", "none", "none"]
    assert ask("/kill") == b"OK"
    assert ask("/clean") == b"OK"
    assert not server.job_file(job_id).exists()


def test_cancel(server: Served, job_id: str) -> None:
    server.setup(job_id)
    server.submit(job_id, "sleep 300")
    assert server.ask("PUT", f"/jobs/{job_id}/cancel").body == b"OK"
    assert server.finished(job_id)["status"] == "cancelled"
    assert server.ask("PUT", f"/jobs/{job_id}/cancel").body == b"OK"


def test_a_job_that_nobody_knows_is_lost_in_the_words_of_its_reader(server: Served, job_id: str) -> None:
    seen = server.ask("GET", f"/jobs/{job_id}/status").json()
    assert (seen["complete"], seen["status"], seen["returncode"]) == ("true", "lost", None)
    assert job_id in seen["stderr"]
    assert seen["working_directory"] == str(server.job_file(job_id, "working"))
    classic = server.ask("GET", "/check_complete", query={"job_id": job_id}).json()
    assert (classic["complete"], classic["status"], classic["returncode"]) == ("true", "complete", 1)
    assert job_id in classic["stderr"]
    nowhere = server.ask("GET", f"/managers/nowhere/jobs/{job_id}/status").json()
    assert (nowhere["complete"], nowhere["status"]) == ("true", "lost")
    assert "nowhere" in nowhere["stderr"]
    for method, path in (("PUT", f"/jobs/{job_id}/cancel"), ("DELETE", f"/jobs/{job_id}")):
        assert server.ask(method, path).body == b"OK"
    server.ask("GET", f"/jobs/{job_id}").problem(404, "not-found")


def test_set_up_again_before_the_submit_changes_nothing(server: Served, job_id: str) -> None:
    first = server.setup(job_id)
    server.ask("POST", f"/jobs/{job_id}/files", b"kept", query={"name": "in", "type": "input"})
    assert server.setup(job_id) == first
    assert server.job_file(job_id, "inputs", "in").read_bytes() == b"kept"


def test_submit_again(server: Served, job_id: str) -> None:
    server.setup(job_id)
    server.submit(job_id, "echo 1 >> ../outputs/runs")
    server.submit(job_id, "echo 1 >> ../outputs/runs")
    server.ask("POST", f"/jobs/{job_id}/submit", query={"command_line": "other"}).problem(409, "conflict")
    server.finished(job_id)
    server.submit(job_id, "echo 1 >> ../outputs/runs")
    assert server.job_file(job_id, "outputs", "runs").read_text() == "1\n"


def test_a_submit_may_carry_the_set_up(server: Served, job_id: str) -> None:
    query = {"command_line": "true", "setup_params": json.dumps({"job_id": job_id, "tool_id": "t"})}
    assert server.ask("POST", f"/jobs/{job_id}/submit", query=query).body == b"OK"
    assert server.finished(job_id)["status"] == "complete"


def test_files_may_come_before_a_set_up_that_the_submit_carries(server: Served, job_id: str) -> None:
    """From clients that say the job's id twice, as Pulsar's do, and for files that a job starts with."""
    files, said_twice = f"/jobs/{job_id}/files", {"job_id": job_id, "name": "in.txt"}
    server.ask("POST", files, b"x", query={"name": "in.txt", "type": "input"}).problem(404, "not-found")
    server.ask("GET", f"{files}/path", query={**said_twice, "type": "output"}).problem(404, "not-found")
    place = server.ask("GET", f"{files}/path", query={**said_twice, "type": "workdir"}).json()["path"]
    assert place == str(server.job_file(job_id, "working", "in.txt"))
    assert server.ask("POST", files, b"content", query={**said_twice, "type": "input"}).status == 200
    carried = {"command_line": "cat ../inputs/in.txt", "setup_params": json.dumps({"job_id": job_id})}
    assert server.ask("POST", f"/jobs/{job_id}/submit", query=carried).body == b"OK"
    assert server.finished(job_id)["stdout"] == "content"
    server.ask("POST", files, b"late", query={**said_twice, "type": "input"}).problem(409, "conflict")


def test_a_command_line_of_a_megabyte_and_a_half(server: Served, job_id: str) -> None:
    server.setup(job_id)
    server.submit(job_id, "wc -c < ../outputs/o #" + "x" * 1_500_000)
    assert server.finished(job_id)["returncode"] is not None


@pytest.mark.parametrize(
    "query",
    [
        {},
        {"command_line": "true", "params": "{"},
        {"command_line": "true", "params": "[1]"},
        {"command_line": "true", "env": "[" * 100_000},
        {"command_line": "true", "env": '[{"name": "a b", "value": "1"}]'},
        {"command_line": "true", "env": '[{"name": "A", "value": 1}]'},
        {"command_line": "true\0"},
        {"command_line": "true", "setup_params": "[1]"},
        {"command_line": "true", "dynamic_file_sources": '[{"path": 1}]'},
        {"command_line": "true", "submit_extras": '{"touch_outputs": [1]}'},
        {"command_line": "true", "remote_staging": "\ud800".encode("utf-8", "surrogatepass")},
    ],
)
def test_descriptions_that_cannot_be_understood(
    server: Served, new_job: Callable[[], str], query: dict[str, str]
) -> None:
    job_id = new_job()
    server.ask("POST", f"/jobs/{job_id}/submit", query=query).problem(400, "bad-request")
    assert server.ask("GET", f"/jobs/{job_id}").json()["state"] == "new"


@pytest.mark.parametrize("bad", PROBLEM_IDS)
def test_ids_that_cannot_be_ids(server: Served, bad: str) -> None:
    before = sorted(server.staging.rglob("*"))
    for path in ("/setup", "/launch", "/check_complete", "/kill", "/clean"):
        answer = server.ask("GET", path, query={"job_id": bad, "command_line": "true"})
        answer.problem(400, "bad-name")
    server.ask("POST", "/jobs", query={"job_id": bad}).problem(400, "bad-name")
    assert sorted(server.staging.rglob("*")) == before


@pytest.mark.parametrize("encoded", ["..", "%2e%2e", "%2E.", "..%2f..", "a%00", "%2f", "%5c", "a%0a"])
@pytest.mark.parametrize(
    ("method", "rest"), [("DELETE", ""), ("PUT", "/cancel"), ("GET", "/status"), ("GET", ""), ("POST", "/submit")]
)
def test_ids_in_the_path_that_cannot_be_ids(server: Served, encoded: str, method: str, rest: str) -> None:
    before = sorted(server.staging.parent.rglob("*"))
    answer = server.ask(method, f"/jobs/{encoded}{rest}?command_line=true")
    answer.problem(400, "bad-name")
    assert sorted(server.staging.parent.rglob("*")) == before


def test_a_manager_that_is_not_there(server: Served, job_id: str) -> None:
    for method, rest in (("POST", "/submit?command_line=true"), ("PUT", "/cancel"), ("DELETE", ""), ("GET", "")):
        server.ask(method, f"/managers/nowhere/jobs/{job_id}{rest}").problem(404, "not-found")
    server.ask("POST", f"/managers/nowhere/jobs?job_id={job_id}").problem(404, "not-found")
    server.ask("GET", "/managers/nowhere/jobs").problem(404, "not-found")


def test_an_id_that_another_manager_has(server: Served, job_id: str) -> None:
    server.setup(job_id)
    told = server.ask("POST", f"/managers/second/jobs?job_id={job_id}").problem(409, "conflict")
    assert "staging_directory" in told["hint"]


def test_the_cache_says_that_it_is_not_there(server: Served, new_job: Callable[[], str]) -> None:
    job_id = new_job()
    asked = [
        ("PUT", "/cache?path=x"),
        ("POST", "/cache?path=x"),
        ("GET", "/cache/status?path=x"),
        ("GET", "/cache_required?path=x"),
        ("GET", "/file_available?path=x"),
        ("POST", "/managers/_default_/cache_insert?path=x"),
        ("POST", f"/jobs/{job_id}/files?name=x&type=input&cache_token=../../etc/passwd"),
        ("GET", f"/upload_input?job_id={job_id}&name=x&cache_token=abc"),
    ]
    for method, target in asked:
        server.ask(method, target).problem(404, "cache-not-configured")
    assert list(server.job_file(job_id, "inputs").iterdir()) == []


def test_the_list_of_jobs_newest_first_by_state_manager_and_page(server: Served, job_id: str) -> None:
    ids = [f"{job_id}-{number}" for number in range(5)]
    for each in ids:
        server.setup(each, "/managers/second")
    server.ask("POST", f"/managers/second/jobs/{ids[0]}/submit?command_line=true")
    page = server.ask("GET", "/jobs?manager=second&limit=3").json()
    assert [job["job_id"] for job in page["jobs"]] == ids[:1:-1]
    rest = server.ask("GET", f"/managers/second/jobs?limit=2&before={page['next']}").json()
    assert [job["job_id"] for job in rest["jobs"]] == [ids[1], ids[0]]
    wait_until(
        lambda: ids[0] in [job["job_id"] for job in server.ask("GET", "/jobs?state=complete").json()["jobs"]],
        "the job in the list of complete ones",
    )
    new = server.ask("GET", "/jobs?state=new&manager=second").json()
    assert [job["job_id"] for job in new["jobs"]][:4] == ids[:0:-1]
    assert new["next"] is None
    assert server.ask("GET", "/jobs?state=lost").json() == {"jobs": [], "next": None}


@pytest.mark.parametrize(
    "query",
    ["state=odd", "limit=0", "limit=x", "limit=1001", "limit=%D9%A1", "before=-1", "before=", "before=x", "limit=1e3"],
)
def test_lists_that_cannot_be(server: Served, query: str) -> None:
    server.ask("GET", "/jobs?" + query).problem(400, "bad-request")


@pytest.mark.parametrize("target", ["/jobs?manager=nowhere", "/managers/nowhere/jobs", "/managers/nowhere/jobs/1"])
def test_lists_of_managers_that_are_not_there(server: Served, target: str) -> None:
    server.ask("GET", target).problem(404, "not-found")


def test_one_job_with_its_events(server: Served, job_id: str) -> None:
    server.setup(job_id)
    server.submit(job_id, "exit 7")
    server.finished(job_id)
    job = server.ask("GET", f"/jobs/{job_id}").json()
    assert (job["job_id"], job["manager"], job["state"], job["exit_code"]) == (job_id, "_default_", "complete", 7)
    assert [event["state"] for event in job["events"]][:3] == ["new", "preprocessing", "queued"]
    assert job["events"][-1]["state"] == "complete"
    assert job["created_at"] <= job["submitted_at"] <= job["ended_at"]
    assert "attempt" not in job
    server.ask("DELETE", f"/jobs/{job_id}")
    assert server.ask("GET", f"/jobs/{job_id}").json()["cleaned_at"] is not None


def test_what_pulsar_calls_health(server: Served) -> None:
    told = server.ask("GET", "/healthz").json()
    assert told["version"] == "0.15.15"
    assert told["lwr_version"]


def test_head_is_get_without_a_body(server: Served, new_job: Callable[[], str]) -> None:
    for path in ("/livez", "/jobs", f"/jobs/{new_job()}/status"):
        answer = server.ask("HEAD", path)
        assert (answer.status, answer.body) == (200, b"")


def test_a_body_where_none_is_wanted_is_not_read_as_the_next_request(server: Served, job_id: str) -> None:
    connection = server.connect()
    for _ in range(2):
        connection.request("POST", f"/jobs?job_id={job_id}", LARGE)
        answer = connection.getresponse()
        assert answer.status == 200
        answer.read()
    connection.close()
