"""A real nginx: as the proxy that stands before most Galaxies, and as a plain web server with uploads.

As a proxy it buffers both directions in files, limits bodies if asked to, and answers 502 with its own page when the
server behind it cuts the line. A scripted 502 is therefore a `FaultProxy` behind it, with `Fault(cut_down_bytes=0)` for
each request that shall fail: nginx opens a connection for each.
"""

from __future__ import annotations

import os
from pathlib import Path
from types import TracebackType

from tests.machines.programs import Program, needed
from tests.support import free_port

# Every kind of temporary directory, for those that are not named are below /var, where only root may write.
_CONFIGURATION = """\
{user}
daemon off;
worker_processes 1;
pid {directory}/nginx.pid;
error_log stderr;
events {{ worker_connections 512; }}
http {{
  log_format short "$status $request_method $request_uri";
  access_log {directory}/access.log short;
  client_body_temp_path {directory}/temp/body;
  proxy_temp_path {directory}/temp/proxy;
  fastcgi_temp_path {directory}/temp/fastcgi;
  uwsgi_temp_path {directory}/temp/uwsgi;
  scgi_temp_path {directory}/temp/scgi;
  sendfile on;
  default_type application/octet-stream;
  server {{
    listen 127.0.0.1:{port};
    client_max_body_size {max_body_bytes};
    location / {{
      proxy_pass http://127.0.0.1:{proxied_port};
      proxy_http_version 1.1;
      proxy_set_header Host $http_host;
      proxy_request_buffering on;
      proxy_buffering on;
    }}
    location /disk/ {{
      alias {directory}/disk/;
      dav_methods PUT DELETE;
      create_full_put_path on;
    }}
  }}
}}
"""


class Nginx:
    """nginx on a loopback port of its own, with all that it writes below `directory`; a context manager.

    `/disk/` is the directory `disk`: GET with ranges, PUT, DELETE. Everything else goes to `proxied_port`; if nobody
    listens there, it is answered with 502.

    Args:
        directory: made if missing.
        proxied_port: of the server behind; 0 for none.
        max_body_bytes: a larger body is refused with 413; 0 for no bound.
    """

    def __init__(self, directory: Path, *, proxied_port: int = 0, max_body_bytes: int = 0) -> None:
        program = needed("nginx", "nginx-light")
        self.port = free_port()
        self.disk = directory / "disk"
        self._directory = directory
        for part in (self.disk, directory / "temp"):
            part.mkdir(parents=True, exist_ok=True)
        configuration = directory / "nginx.conf"
        configuration.write_text(
            _CONFIGURATION.format(
                # The workers of a master that root started are somebody else if not told, and may not write here.
                user="user root;" if os.geteuid() == 0 else "",
                directory=directory,
                port=self.port,
                max_body_bytes=max_body_bytes,
                proxied_port=proxied_port or free_port(),
            )
        )
        self._program = Program(
            [program, "-p", directory, "-e", "stderr", "-c", configuration], self.port, directory / "nginx.log"
        )

    def __enter__(self) -> Nginx:
        self._program.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._program.stop()

    def url(self, path: str = "/") -> str:
        return f"http://127.0.0.1:{self.port}{path}"

    def answered(self) -> list[str]:
        """What it answered so far, in order: status, method and target. A line is there when the answer is over."""
        return (self._directory / "access.log").read_text().splitlines()

    def log(self) -> str:
        """What it complained about."""
        return self._program.log()
