"""sshd lets in who has the key, and nobody else; rsync and scp move files through it, both ways."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.machines.programs import needed
from tests.machines.sshd import Sshd
from tests.support import DEADLINE_S

CONTENT = bytes(range(256)) * 400


@pytest.fixture(scope="module")
def sshd(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Sshd]:
    with Sshd(tmp_path_factory.mktemp("sshd")) as server:
        yield server


def options(identity: Path, known_hosts: Path) -> list[str]:
    """For ssh and scp: this key, this host, nothing of the user's own, and no question."""
    words = {
        "IdentityFile": identity,
        "IdentitiesOnly": "yes",
        "IdentityAgent": "none",
        "UserKnownHostsFile": known_hosts,
        "GlobalKnownHostsFile": "/dev/null",
        "StrictHostKeyChecking": "yes",
        "BatchMode": "yes",
    }
    return ["-F", "/dev/null", *(part for name, value in words.items() for part in ("-o", f"{name}={value}"))]


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_S, stdin=subprocess.DEVNULL)


def test_rsync_and_scp_go_both_ways(sshd: Sshd, tmp_path: Path) -> None:
    needed("rsync", "rsync")
    source = tmp_path / "a source"
    source.write_bytes(CONTENT)
    keys = options(sshd.identity, sshd.known_hosts)
    far = f"{sshd.user}@{sshd.host}:{tmp_path}"
    shell = " ".join(["ssh", "-p", str(sshd.port), *keys])
    commands: list[list[str | Path]] = [
        ["rsync", "-s", "-e", shell, source, f"{far}/pushed"],
        ["rsync", "-s", "-e", shell, f"{far}/a source", tmp_path / "pulled"],
        ["scp", "-q", "-P", str(sshd.port), *keys, source, f"{far}/sent"],
        ["scp", "-q", "-P", str(sshd.port), *keys, f"{far}/pushed", tmp_path / "fetched"],
    ]
    for command in commands:
        done = run(*command)
        assert done.returncode == 0, f"{done.stderr}\n{sshd.log()}"
    for name in ("pushed", "pulled", "sent", "fetched"):
        assert (tmp_path / name).read_bytes() == CONTENT


def test_only_its_key_and_its_host_are_accepted(sshd: Sshd, tmp_path: Path) -> None:
    def log_in(identity: Path, known_hosts: Path) -> subprocess.CompletedProcess[str]:
        keys = options(identity, known_hosts)
        return run("ssh", "-p", str(sshd.port), *keys, f"{sshd.user}@{sshd.host}", "exit 7")

    own = tmp_path / "key"
    own.touch(mode=0o600)
    own.write_text(sshd.private_key)
    named = tmp_path / "known_hosts"
    named.write_text(f"[{sshd.host}]:{sshd.port} {sshd.host_key}\n")
    assert log_in(own, named).returncode == 7
    other = tmp_path / "other"
    run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", other)
    assert "Permission denied (publickey)" in log_in(other, named).stderr
    named.write_text(f"[{sshd.host}]:{sshd.port} {' '.join((tmp_path / 'other.pub').read_text().split()[:2])}\n")
    assert "Host key verification failed" in log_in(own, named).stderr
