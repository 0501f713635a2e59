"""The certificate of the server: made, kept, renewed, refused, and good enough for a strict client."""

from __future__ import annotations

import socket
import ssl
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key

from lwr.errors import ConfigError
from lwr.server.tls import own_certificate, ssl_context


def shake_hands(server: ssl.SSLContext, client: ssl.SSLContext, name: str) -> str | None:
    """Connect the two over a pair of sockets; returns the version of TLS that they agreed on."""
    here, there = socket.socketpair()

    def serve() -> None:
        with server.wrap_socket(there, server_side=True) as answering:
            answering.recv(1)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        with client.wrap_socket(here, server_hostname=name) as asking:
            asking.send(b"x")
            return asking.version()
    finally:
        thread.join()


@pytest.mark.parametrize("name", ["localhost", "127.0.0.1", socket.gethostname()])
def test_a_client_that_pins_the_own_certificate_trusts_it(tmp_path: Path, name: str) -> None:
    server = ssl_context("*", tmp_path)
    client = ssl.create_default_context(cafile=str(tmp_path / "host.pem"))
    client.verify_flags |= ssl.VERIFY_X509_STRICT
    assert shake_hands(server, client, name) == "TLSv1.3"


def test_the_own_certificate_is_kept_and_for_this_user_only(tmp_path: Path) -> None:
    path = own_certificate(tmp_path)
    first = path.read_bytes()
    assert path == tmp_path / "host.pem"
    assert path.stat().st_mode & 0o777 == 0o600
    assert isinstance(load_pem_private_key(first, None), ec.EllipticCurvePrivateKey)
    path.chmod(0o644)
    assert own_certificate(tmp_path).read_bytes() == first
    assert path.stat().st_mode & 0o777 == 0o600
    assert [entry.name for entry in tmp_path.iterdir()] == ["host.pem"]


def test_an_expired_own_certificate_is_made_anew(tmp_path: Path) -> None:
    long_ago = datetime.now(UTC) - timedelta(days=20 * 365)
    old = own_certificate(tmp_path, now=long_ago).read_bytes()
    assert x509.load_pem_x509_certificate(old).not_valid_after_utc < datetime.now(UTC)
    new = own_certificate(tmp_path).read_bytes()
    assert new != old
    assert x509.load_pem_x509_certificate(new).not_valid_after_utc > datetime.now(UTC) + timedelta(days=365)


def test_a_file_of_the_admin_is_used_and_old_protocols_are_not(tmp_path: Path) -> None:
    pem = own_certificate(tmp_path).rename(tmp_path / "mine.pem")
    server = ssl_context(str(pem), tmp_path)
    client = ssl.create_default_context(cafile=str(pem))
    assert shake_hands(server, client, "localhost") == "TLSv1.3"
    assert server.minimum_version == ssl.TLSVersion.TLSv1_2
    assert not (tmp_path / "host.pem").exists()


def test_files_that_cannot_serve_are_refused_by_name(tmp_path: Path) -> None:
    pem = own_certificate(tmp_path).read_text()
    certificate_only = tmp_path / "cert.pem"
    certificate_only.write_text(pem[pem.index("-----BEGIN CERT") :])
    for path in (tmp_path / "nowhere.pem", certificate_only, tmp_path):
        with pytest.raises(ConfigError, match="cannot be used") as refused:
            ssl_context(str(path), tmp_path)
        assert str(path) in refused.value.message


def test_a_key_with_a_password_is_refused_instead_of_asking_for_it(tmp_path: Path) -> None:
    from cryptography.hazmat.primitives import serialization

    pem = own_certificate(tmp_path).read_bytes()
    key = load_pem_private_key(pem, None)
    locked = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.BestAvailableEncryption(b"x")
    )
    (tmp_path / "locked.pem").write_bytes(locked + pem[pem.index(b"-----BEGIN CERT") :])
    with pytest.raises(ConfigError, match="without a password"):
        ssl_context(str(tmp_path / "locked.pem"), tmp_path)


def test_a_damaged_own_certificate_is_not_replaced_behind_the_admins_back(tmp_path: Path) -> None:
    (tmp_path / "host.pem").write_text("not a certificate")
    with pytest.raises(ConfigError, match="Remove it"):
        ssl_context("*", tmp_path)


def test_a_directory_that_is_not_there_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read or written"):
        own_certificate(tmp_path / "nowhere")
