"""rsync and scp through a real sshd: bytes, odd names, cut lines, hosts that changed, and what cannot be."""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import hashlib
import os
import socket
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from lwr.core.staging import Ssh, Way
from lwr.errors import (
    BadRequest,
    BadTransfer,
    LwrError,
    NotFound,
    PeerRefused,
    PeerUnreachable,
    Unavailable,
)
from lwr.transfer.interrupt import Interrupt, Interrupted
from lwr.transfer.jobfiles import JobFiles
from lwr.transfer.partial import Transferred
from lwr.transfer.programs import Ended
from lwr.transfer.ssh import deliver_by_ssh, fetch_by_ssh
from lwr.transfer.sshwords import error_of
from tests.machines.fault_proxy import Fault, FaultProxy
from tests.machines.programs import needed
from tests.machines.sshd import Sshd
from tests.support import wait_until

#: Nothing that rsync or ssh could make smaller.
DATA = os.urandom(3_000_000)
SHA256 = hashlib.sha256(DATA).digest()

both_ways = pytest.mark.parametrize("way", [Way.RSYNC, Way.SCP])


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    needed("rsync", "rsync")
    needed("sftp", "openssh-client")
    with Sshd(tmp_path_factory.mktemp("sshd")) as running:
        yield running


@dataclass
class Site:
    """A job's files here and a directory there; `ssh` is how to get there."""

    ssh: Ssh
    files: JobFiles
    there: Path
    known_hosts: Path

    def fetch(self, way: Way, path: Path | str, interrupt: Interrupt | None = None) -> Transferred:
        """One try, to be gone on with by the next; a whole file is named `input`."""
        part = self.files.resumable("fetch-1")
        try:
            moved = fetch_by_ssh(way, self.ssh, str(path), part, interrupt or Interrupt(), self.known_hosts)
        except LwrError:
            part.keep()
            raise
        part.commit(("input",))
        return moved

    def fetched(self) -> bytes:
        with self.files.open(("input",)) as opened:
            return opened.file.readall()  # type: ignore[attr-defined,no-any-return]

    def deliver(self, way: Way, path: Path | str, interrupt: Interrupt | None = None) -> Transferred:
        with self.files.open(("output",)) as source:
            return deliver_by_ssh(way, self.ssh, source, str(path), interrupt or Interrupt(), self.known_hosts)

    def by(self, port: int) -> Site:
        return dataclasses.replace(self, ssh=dataclasses.replace(self.ssh, port=port))


@pytest.fixture
def site(tmp_path: Path, sshd: Sshd) -> Site:
    files = JobFiles(str(tmp_path / "job"))
    files.make([])
    files.write(("output",), DATA)
    (tmp_path / "there").mkdir()
    known_hosts = tmp_path / "a directory" / "known%hosts"
    return Site(Ssh(sshd.user, sshd.host, sshd.port, sshd.private_key), files, tmp_path / "there", known_hosts)


# -- bytes ------------------------------------------------------------------------------------------------------------


@both_ways
def test_a_file_comes_over_what_an_earlier_try_left(site: Site, way: Way) -> None:
    (site.there / "input").write_bytes(DATA)
    part = site.files.resumable("fetch-1")
    part.write(b"something else")
    part.keep()
    moved = site.fetch(way, site.there / "input")
    assert site.fetched() == DATA
    assert moved == Transferred(len(DATA), SHA256, "size", wasted_bytes=14 if way is Way.SCP else 0)


def test_contents_are_compared_and_not_times(site: Site) -> None:
    (site.there / "input").write_bytes(b"right")
    part = site.files.resumable("fetch-1")
    part.write(b"wrong")
    modified_ns = (site.there / "input").stat().st_mtime_ns
    os.utime(part.path, ns=(modified_ns, modified_ns))
    part.keep()
    site.fetch(Way.RSYNC, site.there / "input")
    assert site.fetched() == b"right"


@both_ways
def test_a_file_goes_out_makes_directories_and_replaces_the_old_one(site: Site, way: Way) -> None:
    target = site.there / "ne*w [x] 'q'" / "er" / "output.dat"
    assert site.deliver(way, target) == Transferred(len(DATA), None, "size")
    target.write_bytes(b"old")
    site.deliver(way, target)
    assert target.read_bytes() == DATA
    assert os.listdir(target.parent) == ["output.dat"]


@both_ways
@pytest.mark.parametrize("name", ["blank '\"*[ab]?;`id` $HOME %h #ü~", "back\\slash", "-dash"])
def test_odd_names_are_only_names(site: Site, way: Way, name: str) -> None:
    (site.there / name.replace("*[ab]?", "xxax")).write_bytes(b"what a wildcard would find")
    site.files.write(("output",), name.encode())
    site.deliver(way, site.there / name)
    assert (site.there / name).read_bytes() == name.encode()
    site.fetch(way, site.there / name)
    assert site.fetched() == name.encode()


@both_ways
def test_an_empty_file_and_a_link_to_a_file(site: Site, way: Way) -> None:
    (site.there / "input").write_bytes(b"")
    (site.there / "link").symlink_to("input")
    assert site.fetch(way, site.there / "link").size_bytes == 0
    site.files.write(("output",), b"")
    assert site.deliver(way, site.there / "output").size_bytes == 0
    assert (site.there / "output").read_bytes() == b""


@both_ways
def test_what_was_opened_is_sent_whatever_its_name_points_at_now(site: Site, way: Way) -> None:
    with site.files.open(("output",)) as source:
        output = Path(site.files.root, "output")
        output.unlink()
        output.symlink_to("/etc/passwd")
        deliver_by_ssh(way, site.ssh, source, str(site.there / "output"), Interrupt(), site.known_hosts)
    assert (site.there / "output").read_bytes() == DATA


def test_a_result_that_changed_since_it_was_opened_does_not_pass_for_it(site: Site) -> None:
    with site.files.open(("output",)) as opened:
        with Path(site.files.root, "output").open("ab") as output:
            output.write(b"more")
        for way in (Way.RSYNC, Way.SCP):
            with pytest.raises(BadTransfer, match="changed"):
                deliver_by_ssh(way, site.ssh, opened, str(site.there / "output"), Interrupt(), site.known_hosts)


# -- lines that break -------------------------------------------------------------------------------------------------


def test_rsync_goes_on_where_a_line_was_cut(site: Site, sshd: Sshd) -> None:
    data = os.urandom(12_000_000)
    (site.there / "input").write_bytes(data)
    with FaultProxy(sshd.port, [Fault(cut_down_bytes=8_000_000)]) as proxy:
        with pytest.raises(PeerUnreachable):
            site.by(proxy.port).fetch(Way.RSYNC, site.there / "input")
        site.by(proxy.port).fetch(Way.RSYNC, site.there / "input")
        # What was on its way when the line was cut is lost: as much as ssh and the system let be.
        assert len(data) < proxy.down_bytes < len(data) + 4_000_000
    assert site.fetched() == data


@both_ways
def test_a_cut_delivery_leaves_what_was_there_and_is_whole_the_next_time(site: Site, sshd: Sshd, way: Way) -> None:
    data = os.urandom(12_000_000)
    site.files.write(("output",), data)
    target = site.there / "output"
    target.write_bytes(b"old")
    with FaultProxy(sshd.port, [Fault(cut_up_bytes=8_000_000)]) as proxy:
        with pytest.raises(PeerUnreachable):
            site.by(proxy.port).deliver(way, target)
        assert target.read_bytes() == b"old"
        # rsync writes under such a name until its end there has noticed, then keeps what came.
        wait_until(lambda: not list(site.there.glob(".output.*")), "the far side to notice")
        site.by(proxy.port).deliver(way, target)
        if way is Way.RSYNC:
            assert len(data) < proxy.up_bytes < len(data) + 4_000_000
    assert target.read_bytes() == data
    assert os.listdir(site.there) == ["output"]


def test_nobody_there_may_pass(site: Site) -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        with pytest.raises(PeerUnreachable, match="Connection refused"):
            site.by(bound.getsockname()[1]).fetch(Way.SCP, "/input")


@both_ways
def test_an_interrupt_ends_a_line_that_says_nothing_and_leaves_no_trace(site: Site, way: Way) -> None:
    interrupt = Interrupt()
    errors: list[LwrError] = []

    def work() -> None:
        try:
            silent.fetch(way, "/input", interrupt)
        except LwrError as error:
            errors.append(error)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        silent = site.by(listening.getsockname()[1])
        thread = threading.Thread(target=work)
        thread.start()
        connection, _ = listening.accept()
        with connection:
            commands = _commands_of_ours(str(listening.getsockname()[1]))
            configuration = next(word for words in commands for word in words if word.endswith("/config"))
            told = Path(configuration).read_text() + "".join(map(str, commands))
            interrupt.set()
            thread.join(30)
    assert [type(error) for error in errors] == [Interrupted]
    assert site.ssh.key.splitlines()[2] not in told
    assert not Path(configuration).parent.exists()


def _commands_of_ours(port: str) -> list[list[str]]:
    """The words of the running ssh programs that were told this port."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (process / "cmdline").read_bytes().decode().split("\0")
            names = [word for word in words if word.endswith("/config")]
            if words[0].endswith("ssh") and names and f"Port {port}\n" in Path(names[0]).read_text():
                found.append(words)
    return found


def test_a_file_that_an_orphan_still_writes_is_left_alone(site: Site) -> None:
    part = site.files.resumable("fetch-1")
    with Path(part.path).open("r+b") as orphan:
        fcntl.flock(orphan, fcntl.LOCK_EX)
        with pytest.raises(Unavailable, match="still writes") as raised:
            fetch_by_ssh(Way.RSYNC, site.ssh, "/input", part, Interrupt(), site.known_hosts)
    assert raised.value.transient
    part.discard()


# -- what cannot be ---------------------------------------------------------------------------------------------------


@both_ways
def test_what_is_not_there_or_no_file_is_final(site: Site, way: Way) -> None:
    with pytest.raises(NotFound, match="missing"):
        site.fetch(way, site.there / "missing")
    (site.there / "directory" / "in it").mkdir(parents=True)
    os.mkfifo(site.there / "fifo")
    for name in ("directory", "fifo"):
        with pytest.raises(BadRequest, match=f"{name}.* no regular file"):
            site.fetch(way, site.there / name)
    with pytest.raises(BadRequest, match="in its way"):
        site.deliver(way, site.there / "directory")
    (site.there / "file").touch()
    with pytest.raises(LwrError) as raised:
        site.deliver(way, site.there / "file" / "output")
    assert not raised.value.transient


@both_ways
def test_a_host_with_another_key_is_told_nothing_until_an_admin_says_so(site: Site, sshd: Sshd, way: Way) -> None:
    (site.there / "input").write_bytes(b"input")
    site.fetch(way, site.there / "input")
    kind, key = sshd.host_key.split()[:2]
    assert site.known_hosts.read_text() == f"[{sshd.host}]:{sshd.port} {kind} {key}\n"
    other = subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", site.there / "other"], check=True, capture_output=True
    )
    assert other.returncode == 0
    changed = (site.there / "other.pub").read_text().split()[1]
    site.known_hosts.write_text(f"[{sshd.host}]:{sshd.port} {kind} {changed}\n")
    with pytest.raises(PeerRefused, match="another host key") as raised:
        site.fetch(way, site.there / "input")
    assert not raised.value.transient
    # The cure cures.
    cure = raised.value.hint.partition(": ")[2]
    subprocess.run(cure, shell=True, check=True, capture_output=True)  # noqa: S602
    site.fetch(way, site.there / "input")


@both_ways
def test_keys_that_are_not_let_in_or_none_at_all(site: Site, sshd: Sshd, way: Way) -> None:
    stranger = site.there / "stranger"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", stranger], check=True)
    for key, kind, words in (
        (stranger.read_text(), PeerRefused, "does not let"),
        ("no key at all", BadRequest, "no private key"),
        ("", BadRequest, "No key came"),
    ):
        with pytest.raises(kind, match=words) as raised:
            dataclasses.replace(site, ssh=dataclasses.replace(site.ssh, key=key)).fetch(way, "/input")
        assert not raised.value.transient
        assert not key or key not in str(raised.value)


def test_a_key_with_the_line_ends_of_windows_is_read(site: Site) -> None:
    (site.there / "input").write_bytes(b"input")
    key = site.ssh.key.replace("\n", "\r\n").rstrip()
    dataclasses.replace(site, ssh=dataclasses.replace(site.ssh, key=key)).fetch(Way.SCP, site.there / "input")
    assert site.fetched() == b"input"


@pytest.mark.parametrize(
    ("host", "user", "path"),
    [
        ("-oProxyCommand=touch /tmp/x", "me", "/file"),
        ("host -oProxyCommand=x", "me", "/file"),
        ("host\nProxyCommand x", "me", "/file"),
        ("me@host", "me", "/file"),
        ("%h", "me", "/file"),
        ("[::1]", "me", "/file"),
        ("höst", "me", "/file"),
        ("", "me", "/file"),
        ("host", "-l", "/file"),
        ("host", "me\nProxyCommand x", "/file"),
        ("host", "me you", "/file"),
        ("host", "me", "file"),
        ("host", "me", ""),
        ("host", "me", "/directory/"),
        ("host", "me", "/directory/.."),
        ("host", "me", "/new\nline"),
        ("host", "me", "/nul\0"),
        ("host", "me", "/\x1b[31m"),
        ("host", "me", "/" + "ü" * 200),
        ("host", "me", "/" + "x/" * 3000 + "x"),
    ],
)
def test_what_is_no_host_user_or_file_reaches_no_program(
    site: Site, host: str, user: str, path: str
) -> None:  # fmt: skip
    ssh = Ssh(user, host, 22, "key")
    with site.files.part() as part, pytest.raises(BadRequest):
        fetch_by_ssh(Way.RSYNC, ssh, path, part, Interrupt(), site.known_hosts)
    with site.files.open(("output",)) as source, pytest.raises(BadRequest):
        deliver_by_ssh(Way.SCP, ssh, source, path, Interrupt(), site.known_hosts)
    assert not site.known_hosts.parent.exists()


@pytest.mark.parametrize(
    ("status", "said", "kind"),
    [
        (255, "ssh: connect to host h port 22: No route to host", PeerUnreachable),
        (255, "kex_exchange_identification: Connection closed by remote host", PeerUnreachable),
        (255, "ssh: Could not resolve hostname h: Name or service not known", PeerUnreachable),
        (12, "rsync error: error in rsync protocol data stream (code 12) at io.c(232)", PeerUnreachable),
        (30, "rsync error: timeout in data send/receive (code 30) at io.c(197)", PeerUnreachable),
        (-9, "", PeerUnreachable),
        (12, "bash: line 1: rsync: command not found", PeerRefused),
        (127, "sh: 1: rsync: not found", PeerRefused),
        (255, "subsystem request failed on channel 0", PeerRefused),
        (11, 'rsync: write failed on "/x": No space left on device (28)', Unavailable),
        (23, "ERROR: x failed verification -- update discarded.", BadTransfer),
        (23, 'rsync: [sender] send_files failed to open "/x": Permission denied (13)', PeerRefused),
        (12, "mkdir: cannot create directory '/x': Permission denied", PeerRefused),
        (1, 'remote open "/x": Permission denied', PeerRefused),
        (1, 'write remote "/No such file or directory": Failure', PeerRefused),
        (1, 'sftp> get "/No such file or directory"\nwhat nobody knows \x1b[31m', PeerRefused),
    ],
)
def test_what_their_words_mean(status: int, said: str, kind: type[LwrError]) -> None:
    path = "/No such file or directory"
    error = error_of(Ended(status, said), Ssh("me", "h"), path, Path("/known"))
    assert type(error) is kind
    assert error.transient is issubclass(kind, PeerUnreachable | BadTransfer | Unavailable)
    assert "\x1b" not in str(error)
