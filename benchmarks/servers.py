"""The servers that are measured: ours, Pulsar's as its `pulsar` command starts it, and nginx, all on loopback.

Each is started with fresh state below a given directory and stopped when its `with` block ends. Knows how to start
them and what they are made of (processes, memory); knows no row of the table.
"""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil

ROOT = Path(__file__).parents[1]
PULSAR_BIN = ROOT / ".venv-peers" / "pulsar-app-0.16.0" / "bin"
START_LIMIT_S = 60


@dataclass(frozen=True, slots=True)
class Server:
    """A running server. `url` ends without a slash; `start_s` is the time from its start until it answered."""

    name: str
    url: str
    process: psutil.Process
    start_s: float

    def _processes(self) -> list[psutil.Process]:
        """The server and its workers; the jobs are sessions or process groups below it, and sleep."""
        children = self.process.children(recursive=False)
        return [self.process, *(child for child in children if child.name() == self.process.name())]

    def memory_bytes(self) -> int:
        return sum(process.memory_info().rss for process in self._processes())

    def thread_count(self) -> int:
        return sum(process.num_threads() for process in self._processes())


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def _running(
    name: str, command: list[str | Path], directory: Path, url: str, is_ready: Callable[[], bool]
) -> Iterator[Server]:
    """Start a program and wait until it is ready."""
    began = time.monotonic()
    environ = {"PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin", "HOME": str(directory), "LC_ALL": "C.UTF-8"}
    with (directory / f"{name}.log").open("ab") as log:
        started = subprocess.Popen(command, cwd=directory, env=environ, stdout=log, stderr=log)
    try:
        while not is_ready():
            if started.poll() is not None or time.monotonic() - began > START_LIMIT_S:
                raise SystemExit(f"{name} did not start:\n{(directory / f'{name}.log').read_text()[-2000:]}")
            time.sleep(0.005)
        yield Server(name, url, psutil.Process(started.pid), time.monotonic() - began)
    finally:
        started.terminate()
        started.wait(timeout=START_LIMIT_S)


def _answers(url: str) -> bool:
    """Whether something answers there with any status below 500."""
    try:
        with urllib.request.urlopen(url, timeout=5):  # noqa: S310  (our own loopback address)
            return True
    except urllib.error.HTTPError as error:
        return error.code < 500
    except OSError:
        return False


def without_power() -> list[str]:
    """What to put before a command so that modes of files count for it even if root starts it, as for any other user.

    Nothing where it is not root: there they count anyway.
    """
    powers = "-dac_override,-dac_read_search"
    is_root = psutil.Process().username() == "root"
    return ["setpriv", f"--bounding-set={powers}", f"--inh-caps={powers}"] if is_root else []


@contextmanager
def lwr(directory: Path, slots_count: int = 4, *, options: str = "", guard: Sequence[str] = ()) -> Iterator[Server]:
    """`lwr serve`. Starting it again on the same directory takes the earlier state up.

    Args:
        options: lines for `[app:main]`.
        guard: put before the command (`without_power`).
    """
    directory.mkdir(parents=True, exist_ok=True)
    port = free_port()
    (directory / "server.ini").write_text(
        f"[server:main]\nhost = 127.0.0.1\nport = {port}\n[app:main]\njob_managers_config = job_managers.ini\n"
        f"log_level = warning\n{options}"
    )
    (directory / "job_managers.ini").write_text(
        f"[manager:_default_]\ntype = queued_python\nnum_concurrent_jobs = {slots_count}\n"
    )
    url = f"http://127.0.0.1:{port}"
    command: list[str | Path] = [*guard, Path(sys.executable).with_name("lwr"), "serve", directory / "server.ini"]
    with _running("lwr", command, directory, url, lambda: _answers(f"{url}/readyz")) as server:
        yield server


@contextmanager
def pulsar(directory: Path, slots_count: int = 4) -> Iterator[Server]:
    """`pulsar-serve` (gunicorn, one worker with four threads), what the `pulsar` command runs by default."""
    directory.mkdir(parents=True, exist_ok=True)
    port = free_port()
    (directory / "server.ini").write_text(
        f"[server:main]\nhost = 127.0.0.1\nport = {port}\n"
        "[app:main]\npaste.app_factory = pulsar.web.wsgi:app_factory\napp_config = %(here)s/app.yml\n"
    )
    (directory / "app.yml").write_text(
        f"staging_directory: {directory}/files\npersistence_directory: {directory}/persisted\n"
        f"managers:\n  _default_:\n    type: queued_python\n    num_concurrent_jobs: {slots_count}\n"
    )
    url = f"http://127.0.0.1:{port}"
    command: list[str | Path] = [PULSAR_BIN / "pulsar-serve", directory / "server.ini"]
    with _running("pulsar", command, directory, url, lambda: _answers(f"{url}/healthz")) as server:
        yield server


@contextmanager
def pulsar_of_queue(
    directory: Path,
    queue_url: str,
    is_ready: Callable[[], bool],
    *,
    slots_count: int = 4,
    manager: str = "_default_",
    options: Mapping[str, object] | None = None,
) -> Iterator[Server]:
    """`pulsar-main`, what `pulsar --mode webless` runs: it takes jobs from a message queue and listens nowhere.

    Args:
        is_ready: tells when it takes them.
        options: more for its app.yml.
    """
    directory.mkdir(parents=True, exist_ok=True)
    configuration = {
        "staging_directory": f"{directory}/files",
        "persistence_directory": f"{directory}/persisted",
        "message_queue_url": queue_url,
        "managers": {manager: {"type": "queued_python", "num_concurrent_jobs": slots_count}},
        **(options or {}),
    }
    (directory / "app.yml").write_text(json.dumps(configuration))  # JSON is YAML
    # Jobs that want `python` find the one of its virtualenv, as with an activated one.
    path = f"PATH={PULSAR_BIN}:/usr/local/bin:/usr/bin:/bin"
    command: list[str | Path] = ["env", path, PULSAR_BIN / "pulsar-main", "--app_conf_path", directory / "app.yml"]
    with _running("pulsar", command, directory, "", is_ready) as server:
        yield server


NGINX_CONF = """\
daemon off;
worker_processes 2;
pid {directory}/nginx.pid;
error_log stderr;
events {{ worker_connections 512; }}
http {{
  access_log off; sendfile on; tcp_nopush on;
  client_max_body_size 0; client_body_buffer_size 1m; client_body_temp_path {directory}/temp;
  server {{
    listen 127.0.0.1:{port};
    root {directory}/root;
    location = /ping {{ return 200 "pong"; }}
    location = /stored {{ default_type application/json; return 200 '{{"message": "ok"}}'; }}
    location = /sink {{
      client_body_in_file_only clean;
      proxy_pass_request_body off; proxy_set_header Content-Length "";
      proxy_pass http://127.0.0.1:{port}/stored;
    }}
    location / {{ dav_methods PUT DELETE; create_full_put_path on; }}
  }}
}}
"""


@contextmanager
def nginx(directory: Path) -> Iterator[Server]:
    """nginx with WebDAV's PUT, files below `directory`/root, and `/ping` to find the load generator's own ceiling.

    What is sent to `/sink` by POST is written to a file, removed, and answered as Galaxy answers."""
    program = shutil.which("nginx", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")
    if program is None:
        raise SystemExit("The benchmarks need nginx and wrk: apt-get install nginx-light wrk")
    (directory / "root").mkdir(parents=True, exist_ok=True)
    directory.chmod(0o755)
    port = free_port()
    # The workers of a server that root starts are another user otherwise, and may not write here.
    user = "user root;\n" if psutil.Process().username() == "root" else ""
    (directory / "nginx.conf").write_text(user + NGINX_CONF.format(directory=directory, port=port))
    url = f"http://127.0.0.1:{port}"
    command: list[str | Path] = [program, "-p", directory, "-e", "stderr", "-c", directory / "nginx.conf"]
    with _running("nginx", command, directory, url, lambda: _answers(f"{url}/ping")) as server:
        yield server
