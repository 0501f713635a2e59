"""One HTTP conversation at a time with a server: the only module of the client that knows `requests`.

Turns every way in which a request can go wrong into an error of `lwr.errors`, streams bodies in both directions
with their digests, and sends the secret as `Authorization: Bearer`, never in a URL. Proxies and a CA bundle come
from the environment (`HTTPS_PROXY`, `NO_PROXY`, `REQUESTS_CA_BUNDLE`). Must not know what the routes mean, and never
tries again: that is `lwr.transfer.retry`, around it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import urlsplit

import requests

from lwr import __version__
from lwr.client.endpoint import Endpoint
from lwr.errors import BadRequest, BadTransfer, PeerRefused, ServerError
from lwr.transfer.answers import MAY_PASS_STATUSES, compare, foreign
from lwr.transfer.bodies import PIECE_BYTES, OnBytes, Upload
from lwr.transfer.digests import WANT_DIGEST, sha256_of_field
from lwr.transfer.partial import Transferred

_MOST_OF_AN_ERROR_BYTES = 64 * 1024

_HINT_401 = "Give the server's private_key: `--token-file FILE`, or the file's path in LWR_TOKEN_FILE."
_HINTS = {
    404: "Check the address, and the manager's name in it.",
    413: "Ask the server's admin for a higher limit.",
    507: "The server's disk is full; ask its admin.",
}


class _Bearer(requests.auth.AuthBase):
    # Also set without a secret: otherwise requests would send what ~/.netrc holds for the host.
    def __init__(self, token: str) -> None:
        self._token = token.encode().decode("latin-1")  # as http.client encodes it again

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        if self._token:
            request.headers["Authorization"] = f"Bearer {self._token}"
        return request


class Conversation:
    """Requests to one server over kept-alive connections. For one thread at a time; close it, or use `with`.

    Every method may raise PeerUnreachable (transient), PeerRefused (transient for answers that may pass in time),
    BadTransfer (transient) and BadRequest. `what` completes the sentence "Could not ...".
    """

    def __init__(self, endpoint: Endpoint, *, connect_timeout_s: float = 10.0, read_timeout_s: float = 120.0) -> None:
        self.endpoint = endpoint
        self._timeouts = (connect_timeout_s, read_timeout_s)
        host = urlsplit(endpoint.url).hostname or ""
        # No proxy can reach this machine's own loopback, whatever the environment says.
        self._proxies = {"no_proxy": host} if host in ("localhost", "::1") or host.startswith("127.") else {}
        self._hashes = False  # whether the server was seen to send digests
        self._session = requests.Session()
        self._session.auth = _Bearer(endpoint.token)
        self._session.headers.update({"User-Agent": f"lwr/{__version__}", "Accept-Encoding": "identity"})

    def close(self) -> None:
        """Close the connections. May be called twice."""
        self._session.close()

    def ask(self, method: str, path: str, query: Mapping[str, str], what: str) -> bytes:
        """Send a request without a body; return the body of the answer."""
        with self._answer(method, path, query, what) as response:
            return response.content

    def ask_json(self, method: str, path: str, query: Mapping[str, str], what: str) -> Any:
        """The same for an answer in JSON. Raises PeerRefused when it is not JSON: something else answers there."""
        return self._json(self.ask(method, path, query, what), what)

    def send(self, path: str, query: Mapping[str, str], body: Upload, what: str) -> tuple[Any, Transferred]:
        """Post a body and compare its digest with the one in the answer, if there is one. Returns the answer's JSON."""
        with self._answer("POST", path, query, what, body if len(body) else b"") as response:
            arrived = sha256_of_field(response.headers.get("Repr-Digest", ""))
            if arrived is not None and arrived != body.digest():
                raise BadTransfer(f"Could not {what}: the bytes changed on the way (SHA-256 differs).")
            self._hashes = self._hashes or arrived is not None
            checked = "size" if arrived is None else "sha-256"
            return self._json(response.content, what), Transferred(len(body), body.digest(), checked)

    def fetch(self, path: str, query: Mapping[str, str], target: Path, what: str, on_bytes: OnBytes) -> Transferred:
        """Download to `target`, replacing it. Until all is there and checked nothing appears under its name.

        Raises:
            ServerError: this machine could not keep the file.
        """
        part = target.with_name(f".lwr-{secrets.token_hex(8)}.part")
        with self._answer("GET", path, query, what, headers=WANT_DIGEST) as response:
            if self._hashes and "Repr-Digest" not in response.headers:
                raise BadTransfer(f"Could not {what}: the answer has no digest, so it is not the server's own.")
            try:
                target.parent.mkdir(parents=True, exist_ok=True)
                with part.open("xb") as file:
                    size_bytes, digest = _copy(self._pieces(response, what), file, on_bytes)
                receipt = compare(response.headers, size_bytes, digest, what)
                os.replace(part, target)
            except OSError as error:
                raise ServerError(f"{target} cannot be written: {error.strerror}.", "Choose another place.") from error
            finally:
                with contextlib.suppress(OSError):  # it is gone, or never was
                    part.unlink()
        return receipt

    @contextlib.contextmanager
    def _answer(
        self,
        method: str,
        path: str,
        query: Mapping[str, str],
        what: str,
        body: Upload | bytes = b"",
        headers: Mapping[str, str] | None = None,
    ) -> Iterator[requests.Response]:
        try:
            with self._send(method, path, query, what, body, headers) as response:
                if response.status_code >= 300:
                    raise self._refusal(response, what)
                yield response
        except requests.RequestException as error:
            raise foreign(error, what, self.endpoint.url) from error

    def _send(
        self,
        method: str,
        path: str,
        query: Mapping[str, str],
        what: str,
        body: Upload | bytes,
        headers: Mapping[str, str] | None,
    ) -> requests.Response:
        try:
            return self._session.request(
                method,
                self.endpoint.url + path,
                params=dict(query),
                data=body,
                headers=dict(headers or {}),
                timeout=self._timeouts,
                proxies=self._proxies,
                allow_redirects=False,
                stream=True,
            )
        except requests.RequestException:
            raise
        except (OSError, ValueError) as error:  # a CA bundle that is not there; a host that no rule of names allows
            raise BadRequest(
                f"Could not {what}: {error}.", "Check the address, and REQUESTS_CA_BUNDLE if it is set."
            ) from error

    def _pieces(self, response: requests.Response, what: str) -> Iterator[bytes]:
        # Apart from the writing, so that a full disk here is not taken for a broken connection.
        try:
            yield from response.iter_content(PIECE_BYTES)
        except requests.RequestException as error:
            raise foreign(error, what, self.endpoint.url) from error

    def _json(self, body: bytes, what: str) -> Any:
        try:
            return json.loads(body)
        except (ValueError, RecursionError) as error:
            raise PeerRefused(
                f"Could not {what}: what answers at {self.endpoint.url} does not speak LWR.", "Check the address."
            ) from error

    def _refusal(self, response: requests.Response, what: str) -> PeerRefused:
        status = response.status_code
        try:
            body = next(response.iter_content(_MOST_OF_AN_ERROR_BYTES), b"")
            problem = json.loads(body)
        except (ValueError, RecursionError, requests.RequestException):
            problem = None
        problem = problem if isinstance(problem, dict) else {}
        said = str(problem.get("detail") or response.reason or "no reason given")
        if 300 <= status < 400:
            said = "it redirects to another address"
        return PeerRefused(
            f"Could not {what}: the server answered {status}: {said}",
            # The server explains its header; whoever reads this has an option for it.
            _HINT_401 if status == 401 else str(problem.get("hint") or _HINTS.get(status, "")),
            status=status,
            peer_code=str(problem.get("code") or ""),
            transient=status in MAY_PASS_STATUSES,
        )


def _copy(pieces: Iterable[bytes], file: BinaryIO, on_bytes: OnBytes) -> tuple[int, bytes]:
    sha256 = hashlib.sha256()
    size_bytes = 0
    for piece in pieces:
        sha256.update(piece)
        file.write(piece)
        size_bytes += len(piece)
        on_bytes(size_bytes)
    return size_bytes, sha256.digest()
