"""Files that are moved over ssh: by rsync, or the way of scp, which is sftp.

Knows the two programs: what they are told, and what their words mean. Both get what they need from one ssh
configuration, made for the occasion, in which the client's machine has a name of its own; so nothing that a job says
becomes an option, and no shell reads it here. The private key is never on a disk and in no argument: ssh reads it out
of this process's memory. Needs Linux, OpenSSH 7.6 and rsync 3.0. Must not know jobs.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import posixpath
import re
import shlex
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from lwr.core.staging import Ssh, Way
from lwr.errors import BadRequest, BadTransfer, ServerError, Unavailable
from lwr.transfer.interrupt import Interrupt
from lwr.transfer.jobfiles import OpenFile, Part
from lwr.transfer.partial import Partial, Transferred
from lwr.transfer.programs import Ended, run
from lwr.transfer.sshwords import error_of

_HOST = re.compile(r"[A-Za-z0-9_:][A-Za-z0-9_.:-]{0,254}")
_USER = re.compile(r"(?:[A-Za-z0-9_][A-Za-z0-9_.@+-]{0,63})?")
_PATH = re.compile(r"/[^\x00-\x1f\x7f\ud800-\udfff]{1,4095}")

#: No file system has longer names.
_NAME_BYTES = 255
#: The client's machine, in the configuration and so for both programs.
_PEER = "peer"
#: A machine that says nothing for a minute is away. No agent, no forwarding, no other connection is of use here.
_CONFIGURATION = """\
Host peer
HostName {host}
Port {port}
{user}IdentityFile {key}
UserKnownHostsFile "{known_hosts}"
StrictHostKeyChecking accept-new
UpdateHostKeys no
IdentitiesOnly yes
IdentityAgent none
PreferredAuthentications publickey
BatchMode yes
ConnectTimeout 10
ServerAliveInterval 15
ServerAliveCountMax 4
ClearAllForwardings yes
ControlPath none
LogLevel ERROR
"""
#: The file's size in what the programs say of it once it was moved. (rsync says that as it is asked to.)
_MOVED = {
    Way.RSYNC: re.compile(r"^moved:(\d+)$", re.MULTILINE),
    Way.SCP: re.compile(r"^-\S+ +\S+ +\S+ +\S+ +(\d+) ", re.MULTILINE),
}
# Compare contents, whatever the times say; follow links; send names as they are.
_RSYNC = ("--ignore-times", "--copy-links", "--protect-args", "--timeout=600", "--out-format=moved:%l")


def fetch_by_ssh(
    way: Way, ssh: Ssh, path: str, part: Part, interrupt: Interrupt, known_hosts: Path
) -> Transferred:  # fmt: skip
    """Fill `part` with a file of the client's machine: one try. rsync goes on with what is there, scp begins anew.

    `known_hosts`: where the keys of hosts are kept: the first that a host shows is its key from then on.

    Raises:
        BadRequest: host, user, path or key cannot be used, or the path names no regular file.
        NotFound: there is no such file.
        PeerUnreachable, BadTransfer, Unavailable: may pass.
        PeerRefused: the host did not let us, or has another key than before.
        Interrupted: on purpose.
    """
    with _line(ssh, path, known_hosts) as line, _alone(part.path) as lock:
        wasted_bytes = 0
        if way is Way.RSYNC:
            command = line.rsync([f"{_PEER}:{_literal(path)}", part.path], "--inplace")
        else:
            wasted_bytes = part.size_bytes
            part.restart()
            command = line.sftp(f"get {_quoted(path)} {_quoted(part.path)}", f"ls -ln {_quoted(path)}")
        ended = run(command, interrupt, [lock])
        part.look_again()
    size_bytes = _moved_bytes(way, ended, ssh, path, known_hosts)
    if size_bytes != part.size_bytes:
        raise BadTransfer(f"Of {path!r}, {size_bytes} bytes on {ssh.host}, {part.size_bytes} bytes came.")
    return Transferred(size_bytes, Partial(part).sha256(), "size", wasted_bytes)


def deliver_by_ssh(
    way: Way, ssh: Ssh, source: OpenFile, path: str, interrupt: Interrupt, known_hosts: Path
) -> Transferred:
    """Write all of an open file to a path of the client's machine: one try. Directories are made; the file gets its
    name there when it is whole. rsync goes on with what a cut try left (in `.lwr-partial` beside it), scp begins anew.

    Raises as `fetch_by_ssh`.
    """
    with _line(ssh, path, known_hosts) as line:
        above, name = posixpath.split(path)
        # What is open is sent, whatever its name may point at by now.
        place = f"/proc/{os.getpid()}/fd/{source.fd}"
        if way is Way.RSYNC:
            named = os.path.join(line.directory, "named", name)
            os.mkdir(os.path.dirname(named))
            os.symlink(place, named)
            there = f"{_PEER}:{posixpath.join(above, '')}"
            make = f"mkdir -p -- {shlex.quote(above)} && rsync"
            command = line.rsync([named, there], "--partial-dir=.lwr-partial", f"--rsync-path={make}")
        else:
            command = line.sftp(*_upload(place, above, path, source))
        ended = run(command, interrupt)
    size_bytes = _moved_bytes(way, ended, ssh, path, known_hosts)
    status = os.fstat(source.fd)
    if (size_bytes, status.st_size, status.st_mtime_ns) != (source.size_bytes, source.size_bytes, source.mtime_ns):
        raise BadTransfer(f"The file for {path!r} on {ssh.host} changed while it was sent, or arrived short.")
    return Transferred(size_bytes, None, "size")


def _upload(place: str, above: str, path: str, source: OpenFile) -> Iterator[str]:
    """What sftp is told. Directories that are there already make it complain, which is not heard."""
    directories = [above]
    while directories[-1] != "/":
        directories.append(posixpath.dirname(directories[-1]))
    yield from (f"-mkdir {_quoted(directory)}" for directory in reversed(directories[:-1]))
    # The same name for each try with this file, so that no two of them stay.
    identity = hashlib.sha256(f"{source.inode} {source.mtime_ns} {path}".encode()).hexdigest()[:16]
    part = posixpath.join(above, f".lwr-{identity}.part")
    yield f"put {_quoted(place)} {_quoted(part)}"
    yield f"rename {_quoted(part)} {_quoted(path)}"
    yield f"ls -ln {_quoted(path)}"


def _moved_bytes(way: Way, ended: Ended, ssh: Ssh, path: str, known_hosts: Path) -> int:
    said = _MOVED[way].findall(ended.said)
    if ended.status != 0 or not said:
        raise error_of(ended, ssh, path, known_hosts)
    return int(said[-1])


class _Line:
    """How to call the programs; good as long as its directory is there."""

    def __init__(self, directory: str, configuration: str) -> None:
        self.directory = directory
        self._configuration = os.path.join(directory, "config")
        Path(self._configuration).write_text(configuration, "utf-8")

    def rsync(self, places: Sequence[str], *options: str) -> list[str]:
        # rsync itself takes this apart, at blanks, and knows quotes.
        return ["rsync", "-e", f"ssh -F '{self._configuration}'", *_RSYNC, *options, "--", *places]

    def sftp(self, *steps: str) -> list[str]:
        """The steps, up to the first that fails."""
        batch = Path(self.directory, "batch")
        batch.write_text("".join(f"{step}\n" for step in steps), "utf-8")
        return ["sftp", "-F", self._configuration, "-b", str(batch), _PEER]


@contextlib.contextmanager
def _line(ssh: Ssh, path: str, known_hosts: Path) -> Iterator[_Line]:
    """Look at what the job says, and make what ssh needs; nothing of it is left afterwards. What the system does not
    let us do meanwhile may pass."""
    _check(ssh, path)
    with contextlib.ExitStack() as stack:
        try:
            known_hosts.parent.mkdir(parents=True, exist_ok=True)
            key = os.memfd_create("key")
            stack.callback(os.close, key)
            os.fchmod(key, 0o600)  # ssh reads no key that others might read as well
            os.write(key, b"%b\n" % ssh.key.replace("\r", "").strip().encode())
            directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="lwr-ssh-"))
            configuration = _CONFIGURATION.format(
                host=ssh.host,
                port=ssh.port,
                user=f"User {ssh.user}\n" if ssh.user else "",
                key=f"/proc/{os.getpid()}/fd/{key}",
                known_hosts=str(known_hosts.absolute()).replace("%", "%%"),
            )
            line = _Line(directory, configuration)
        except OSError as error:
            raise Unavailable(
                f"A connection by ssh could not be prepared: {error.strerror}.", "It may pass."
            ) from error
        yield line


def _check(ssh: Ssh, path: str) -> None:
    if not _HOST.fullmatch(ssh.host) or not _USER.fullmatch(ssh.user):
        raise BadRequest(
            f"{ssh.host[:80]!r} is no host, or {ssh.user[:80]!r} no user, to reach by ssh.",
            "Set ssh_host and ssh_user in Galaxy's destination.",
        )
    name = posixpath.basename(path)
    if not _PATH.fullmatch(path) or name in ("", ".", "..") or len(name.encode()) > _NAME_BYTES:
        raise BadRequest(
            f"{path[:200]!r} names no file to move by ssh.", "Use an absolute path without control characters."
        )
    if not ssh.key:
        raise BadRequest("No key came with the job to reach its files by ssh.", "Set ssh_key in Galaxy's destination.")
    if not hasattr(os, "memfd_create"):
        raise BadRequest("This server's system cannot move files by ssh.", "Use another file action.")


@contextlib.contextmanager
def _alone(path: str) -> Iterator[int]:
    """A lock on a file that the program inherits: one that outlived a killed server would write to it still."""
    import fcntl  # not on every system that imports this module

    try:
        fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW)
    except OSError as error:
        raise ServerError(f"The file that is to be fetched could not be opened: {error.strerror}.") from error
    try:
        # Some file systems know no locks: then this cannot be told.
        with contextlib.suppress(OSError):
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise Unavailable("An earlier try still writes to the file that is to be fetched.") from None
        yield fd
    finally:
        os.close(fd)


def _quoted(path: str) -> str:
    """As sftp reads a word: wildcards in quotes stand for themselves."""
    return '"' + re.sub(r'(["\\])', r"\\\1", path) + '"'


def _literal(path: str) -> str:
    """As rsync's other end reads a path: it knows backslashes only in one with wildcards."""
    return re.sub(r"([*?\[\\])", r"\\\1", path) if re.search(r"[*?\[]", path) else path
