"""What answers and failures mean: only LWR's errors come out, and only what is whole is taken."""

from __future__ import annotations

import hashlib
import inspect
import ssl

import pytest
import requests

from lwr.errors import BadRequest, BadTransfer, LwrError, PeerRefused, PeerUnreachable
from lwr.transfer.answers import compare, foreign
from lwr.transfer.digests import digest_field

DATA = bytes(range(256))
DIGEST = {"Repr-Digest": digest_field(hashlib.sha256(DATA).digest())}
ASKED = "Could not do it: "

ALL = [
    error
    for error in vars(requests.exceptions).values()
    if inspect.isclass(error) and issubclass(error, requests.RequestException)
]
MAY_PASS = {"SSLError", "ConnectionError", "ProxyError", "ConnectTimeout", "ReadTimeout", "Timeout"}
SPOILED = {"ChunkedEncodingError", "ContentDecodingError", "StreamConsumedError", "UnrewindableBodyError"}
OURS = {"InvalidURL", "MissingSchema", "InvalidSchema", "InvalidHeader", "InvalidProxyURL", "URLRequired"}


@pytest.mark.parametrize("kind", ALL, ids=lambda kind: str(kind.__name__))
def test_every_error_of_requests_is_one_of_ours(kind: type[requests.RequestException]) -> None:
    raised = kind("text", "", 0) if kind is requests.exceptions.JSONDecodeError else kind("text")
    error = foreign(raised, "do it", "http://h/")
    name = kind.__name__
    expected: type[LwrError] = PeerRefused
    if name in MAY_PASS:
        expected = PeerUnreachable
    elif name in SPOILED:
        expected = BadTransfer
    elif name in OURS:
        expected = BadRequest
    assert type(error) is expected
    assert error.transient == (name in MAY_PASS | SPOILED)
    assert error.message.startswith(ASKED)


def test_the_reason_is_the_innermost_one() -> None:
    raised = requests.ConnectionError("long and ugly")
    raised.__cause__ = ConnectionResetError(104, "Connection reset by peer")
    assert "(Connection reset by peer)" in foreign(raised, "do it", "http://h/").message


def test_what_came_is_held_against_what_was_announced() -> None:
    sha256 = hashlib.sha256(DATA).digest()
    size = {"Content-Length": str(len(DATA))}
    assert compare(DIGEST | size, len(DATA), sha256, "do it").checked == "sha-256"
    assert compare(size, len(DATA), sha256, "do it").checked == "size"
    assert compare({}, len(DATA), sha256, "do it").checked == "framing"
    with pytest.raises(BadTransfer, match=f"{len(DATA) - 1} of {len(DATA)} bytes came"):
        compare(size, len(DATA) - 1, sha256, "do it")
    with pytest.raises(BadTransfer, match="changed on the way"):
        compare(DIGEST, len(DATA), bytes(32), "do it")


def test_a_certificate_that_nobody_vouches_for_is_not_tried_again() -> None:
    raised = requests.exceptions.SSLError("long and ugly")
    raised.__cause__ = ssl.SSLCertVerificationError(1, "self-signed certificate")
    raised.__cause__.__context__ = OSError(22, "of no use")
    error = foreign(raised, "do it", "https://h/")
    assert type(error) is PeerRefused
    assert "REQUESTS_CA_BUNDLE" in error.hint


def test_a_handshake_that_broke_may_pass() -> None:
    raised = requests.exceptions.SSLError("long and ugly")
    raised.__cause__ = ssl.SSLEOFError(8, "EOF occurred in violation of protocol")
    error = foreign(raised, "do it", "https://h/")
    assert type(error) is PeerUnreachable
    assert "EOF occurred" in error.message
