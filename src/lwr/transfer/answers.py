"""What an HTTP answer, or its failure, means for a transfer; for both sides.

Knows the statuses that may pass, the headers that a file is held against, and which error of ours stands for each of
`requests`. Sends nothing, and knows neither routes nor files.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from email.utils import parsedate_to_datetime

import requests

from lwr.errors import BadRequest, BadTransfer, LwrError, PeerRefused, PeerUnreachable
from lwr.transfer.digests import sha256_of_field
from lwr.transfer.partial import Transferred

#: Statuses of a machine that is busy or restarting. 500 is none: some say it for a file that is not there.
MAY_PASS_STATUSES = frozenset({408, 425, 429, 502, 503, 504})


def compare(headers: Mapping[str, str], size_bytes: int, sha256: bytes, what: str) -> Transferred:
    """Hold what came against what the headers of the answer announced.

    Raises:
        BadTransfer: it is not the same. (Of a short body not every urllib3 tells.)
    """
    announced = headers.get("Content-Length", "")
    if announced.isdigit() and int(announced) != size_bytes:
        raise BadTransfer(f"Could not {what}: {size_bytes} of {announced} bytes came.")
    expected = sha256_of_field(headers.get("Repr-Digest", ""))
    if expected is not None and expected != sha256:
        raise BadTransfer(f"Could not {what}: the bytes changed on the way (SHA-256 differs).")
    return Transferred(size_bytes, sha256, "sha-256" if expected is not None else "size" if announced else "framing")


_OURS = (
    requests.exceptions.InvalidURL,
    requests.exceptions.MissingSchema,
    requests.exceptions.InvalidSchema,
    requests.exceptions.InvalidHeader,
    requests.exceptions.URLRequired,
)
_UNREADABLE = (
    requests.exceptions.ChunkedEncodingError,
    requests.exceptions.ContentDecodingError,
    requests.exceptions.StreamConsumedError,
    requests.exceptions.UnrewindableBodyError,
)


def foreign(error: requests.RequestException, what: str, url: str) -> LwrError:
    """The error of ours for one of `requests`; what matters most about it is whether trying again can help."""
    root: BaseException = error
    bad_certificate = False
    while (deeper := root.__cause__ or root.__context__) is not None:
        root = deeper
        bad_certificate = bad_certificate or isinstance(root, ssl.SSLCertVerificationError)
    reason = root.strerror if isinstance(root, OSError) and root.strerror else ""
    match error:
        case requests.exceptions.SSLError() if bad_certificate:
            return PeerRefused(
                f"Could not {what}: no secure connection to {url} ({reason or 'TLS failed'}).",
                "If its certificate is self-signed, name it in REQUESTS_CA_BUNDLE.",
            )
        case requests.exceptions.ProxyError():
            return PeerUnreachable(
                f"Could not {what}: the proxy does not reach {url}.", "Look at HTTP_PROXY, HTTPS_PROXY and NO_PROXY."
            )
        case requests.exceptions.ConnectTimeout() | requests.exceptions.Timeout():
            return PeerUnreachable(f"Could not {what}: {url} does not answer in time.")
        case requests.exceptions.ConnectionError():
            return PeerUnreachable(
                f"Could not {what}: no connection to {url} ({reason or 'it broke'}).",
                "Is the server running? Start it with `lwr serve`, or correct the address.",
            )
        case _ if isinstance(error, _OURS):
            return BadRequest(f"Could not {what}: the request to {url} cannot be formed.", "Check the address.")
        case _ if isinstance(error, _UNREADABLE):
            return BadTransfer(f"Could not {what}: the answer was cut short or cannot be read.")
    return PeerRefused(f"Could not {what}: the answer of {url} cannot be used.")


def retry_after_s(value: str, now: float) -> float:
    """What `Retry-After` asks to wait, in seconds: a number or a date (RFC 9110, 10.2.3). 0 when it cannot be read.

    `now`: seconds since the epoch.
    """
    if value.strip().isdecimal():
        return float(value)
    try:
        return max(0.0, parsedate_to_datetime(value).timestamp() - now)
    except (ValueError, OverflowError):
        return 0.0
