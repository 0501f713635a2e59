"""SHA-256 as HTTP writes it down: the field `Repr-Digest` of RFC 9530. Knows neither files nor sockets."""

from __future__ import annotations

import base64
import binascii
import re

WANT_DIGEST = {"Want-Repr-Digest": "sha-256=10"}

_SHA256 = re.compile(r"(?:^|,)\s*sha-256=:([A-Za-z0-9+/=]{1,100}):", re.IGNORECASE)


def digest_field(sha256: bytes) -> str:
    """The value of `Repr-Digest` for a SHA-256 of 32 bytes."""
    return f"sha-256=:{base64.b64encode(sha256).decode('ascii')}:"


def sha256_of_field(value: str) -> bytes | None:
    """The SHA-256 (32 bytes) in a value of `Repr-Digest`; None when it holds none that can be read."""
    found = _SHA256.search(value)
    if found is None:
        return None
    try:
        raw = base64.b64decode(found[1], validate=True)
    except binascii.Error:
        return None
    return raw if len(raw) == 32 else None
