"""https: the certificate of the server, given by the admin or made by itself. Knows nothing of HTTP."""

from __future__ import annotations

import os
import socket
import ssl
import tempfile
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from lwr.errors import ConfigError

SELF_SIGNED = "*"
_FILE = "host.pem"
# Clients pin it, so a short life would only bring interruptions.
_LIFE = timedelta(days=3650)


def ssl_context(ssl_pem: str, beside: Path) -> ssl.SSLContext:
    """What to serve https with.

    Args:
        ssl_pem: path of a PEM file with certificate, chain and unencrypted private key; `*` for a certificate of
            our own, kept as `host.pem`.
        beside: the directory for that.

    Raises:
        ConfigError: the file cannot be read or used, or the own one cannot be written.
    """
    path = own_certificate(beside) if ssl_pem == SELF_SIGNED else Path(ssl_pem)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    try:
        # Without a password given, an encrypted key would ask for one on the terminal.
        context.load_cert_chain(path, password="")
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
        raise ConfigError(
            f"ssl_pem {path} cannot be used: {reason}.",
            "It must hold the certificate, its chain and the private key without a password, all as PEM.",
        ) from error
    return context


def own_certificate(directory: Path, now: datetime | None = None) -> Path:
    """The path of `host.pem` in `directory`: the one that is there, or a new one if there is none or it has expired.

    Afterwards only this user can read it. May be called again; the file is never partial.

    Raises:
        ConfigError: it holds no certificate, or cannot be read or written.
    """
    path = directory / _FILE
    moment = now or datetime.now(UTC)
    try:
        if not path.exists() or _expires(path) <= moment:
            _write(path, _self_signed(moment))
        path.chmod(0o600)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read or written: {error.strerror}.", "Set ssl_pem to a file.") from error
    return path


def _expires(path: Path) -> datetime:
    try:
        return x509.load_pem_x509_certificate(path.read_bytes()).not_valid_after_utc
    except ValueError as error:
        raise ConfigError(f"{path} holds no certificate.", "Remove it, and a new one is made.") from error


def _self_signed(now: datetime) -> bytes:
    """A new key and its certificate, as PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    host = socket.gethostname()
    names: list[x509.GeneralName] = [x509.DNSName("localhost"), x509.IPAddress(ip_address("127.0.0.1"))]
    names.append(x509.IPAddress(ip_address("::1")))
    if host.isascii() and host != "localhost":
        names.insert(0, x509.DNSName(host))
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host[:64] or "localhost")])
    identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))  # clocks differ a little
        .not_valid_after(now + _LIFE)
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        .add_extension(identifier, critical=False)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    return private + certificate.public_bytes(serialization.Encoding.PEM)


def _write(path: Path, pem: bytes) -> None:
    """Put a whole file, readable by its owner only, under `path`."""
    descriptor, part = tempfile.mkstemp(prefix=f"{_FILE}.", dir=path.parent)  # 0600 from the beginning
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(pem)
            file.flush()
            os.fsync(file.fileno())
        os.replace(part, path)
    except BaseException:
        Path(part).unlink(missing_ok=True)
        raise
