"""What ssh, rsync and sftp say when something went wrong, and what that means.

One table of their words, the first that fits counts; what is in none of its rows does not pass by itself. The words are
those of OpenSSH and rsync in the C locale.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

from lwr.core.staging import Ssh
from lwr.errors import BadRequest, BadTransfer, LwrError, NotFound, PeerRefused, PeerUnreachable, Unavailable
from lwr.transfer.programs import Ended


@dataclass(frozen=True, slots=True)
class _Meaning:
    """`sentence` and `hint` may name {host}, {user}, {path}, {known_hosts} and {entry}, the host's name in there."""

    words: str
    kind: type[LwrError]
    sentence: str
    hint: str = ""


_MEANINGS = (
    _Meaning(
        "IDENTIFICATION HAS CHANGED|Host key verification failed", PeerRefused,
        "{host} shows another host key than before, so nothing was sent to it.",
        "If the new key is right, forget the old one: ssh-keygen -f {known_hosts} -R {entry}",
    ),
    _Meaning(
        "Load key .*(?:invalid format|error in libcrypto|incorrect passphrase|bad permissions)", BadRequest,
        "The key that came with the job for {host} is no private key that ssh can read.",
        "ssh_key is the text of a private key without a passphrase.",
    ),
    _Meaning(
        r"Permission denied \((?:publickey|password|keyboard)|Too many authentication failures", PeerRefused,
        "{host} does not let {user} in with the key that came with the job.",
        "Compare ssh_user and ssh_key in Galaxy's destination with ~/.ssh/authorized_keys there.",
    ),
    _Meaning(
        "command not found|rsync: not found|subsystem request failed", PeerRefused,
        "{host} has no program for it.", "Install rsync there, or switch on sftp in its sshd_config.",
    ),
    _Meaning("No space left|quota exceeded", Unavailable, "A disk is full on the way to or from {path} on {host}."),
    _Meaning("failed verification|vanished", BadTransfer, "{path} on {host} changed while it was moved."),
    _Meaning(
        "not a regular file|non-regular file|skipping directory|make way for|[Ii]s a directory|Not a directory|"
        "File exists|remote rename",
        BadRequest, "{path} on {host} is no regular file, or something else is in its way.",
    ),
    _Meaning(
        "Permission denied|Operation not permitted|Read-only file system", PeerRefused,
        "{path} on {host} may not be read or written by {user}.",
    ),
    _Meaning("No such file or directory|not found", NotFound, "{host} has no {path}."),
)  # fmt: skip
#: ssh: no connection. rsync: its connection broke or its other end died (10, 12), nothing came for long (30, 35).
_BROKEN_STATUSES = frozenset({255, 10, 12, 30, 35})
#: What sftp was told, and its complaints about directories that are there.
_NO_NEWS = re.compile(r"^(?:sftp> .*|remote mkdir .*: Failure)$", re.MULTILINE)


def error_of(ended: Ended, ssh: Ssh, path: str, known_hosts: Path) -> LwrError:
    """The error that a program's end means, with the first line of what it said: there is no secret in it."""
    # The path could hold such words too.
    said = _NO_NEWS.sub("", ended.said).replace(path, "")
    facts = {
        "host": ssh.host,
        "user": ssh.user or "the user of this server",
        "path": repr(path[:300]),
        "known_hosts": shlex.quote(str(known_hosts)),
        "entry": ssh.host if ssh.port == 22 else f"'[{ssh.host}]:{ssh.port}'",
    }
    first = _first_line(said)
    for meaning in _MEANINGS:
        if re.search(meaning.words, said):
            return meaning.kind(f"{meaning.sentence.format(**facts)}{first}", meaning.hint.format(**facts))
    if ended.status in _BROKEN_STATUSES or ended.status < 0:
        return PeerUnreachable(f"The connection to {ssh.host} by ssh failed or broke.{first}")
    return PeerRefused(f"{facts['path']} could not be moved from or to {ssh.host} (status {ended.status}).{first}")


def _first_line(said: str) -> str:
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    words = "".join(char if char.isprintable() else "?" for char in lines[0])[:200] if lines else ""
    return f" ({words.rstrip('.')}.)" if words else ""
