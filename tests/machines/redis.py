"""A real redis on loopback ports of its own, plain and TLS, which keeps nothing when it ends; a context manager."""

from __future__ import annotations

from pathlib import Path
from types import TracebackType

import trustme

from tests.machines.programs import Program, needed
from tests.support import free_port


class Redis:
    """redis-server with its log in `directory`.

    Attributes:
        url, tls_url: the second is for `localhost`, for which alone the certificate is good, and not for 127.0.0.1.
        ca_pem, other_ca_pem: of the authority that signed it, and of another one.
    """

    def __init__(self, directory: Path) -> None:
        program = needed("redis-server", "redis-server")
        directory.mkdir(parents=True, exist_ok=True)
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.tls_port = free_port()
        self.tls_url = f"rediss://localhost:{self.tls_port}/0"
        self.ca_pem, self.other_ca_pem = directory / "ca.pem", directory / "other_ca.pem"
        ca, certificate = trustme.CA(), directory / "server.pem"
        ca.cert_pem.write_to_path(self.ca_pem)
        trustme.CA().cert_pem.write_to_path(self.other_ca_pem)
        ca.issue_cert("localhost").private_key_and_cert_chain_pem.write_to_path(certificate)
        command: list[str | Path]
        command = [program, "--bind", "127.0.0.1", "--port", str(self.port), "--save", "", "--dir", str(directory),
                   "--tls-port", str(self.tls_port), "--tls-auth-clients", "no", "--tls-ca-cert-file", self.ca_pem,
                   "--tls-cert-file", certificate, "--tls-key-file", certificate]  # fmt: skip
        self._program = Program(command, self.port, directory / "redis.log")

    def start(self) -> None:
        self._program.start()

    def stop(self) -> None:
        self._program.stop()

    def __enter__(self) -> Redis:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()
