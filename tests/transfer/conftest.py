"""Fewer rights, and more: what tests of file trees need around them."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

_NOBODY = 65534
_CANNOT_MOUNT = 77

#: (mount arguments, mount point, program, arguments) -> what the program said; what is mounted goes with it.
RunMounted = Callable[..., str]


@pytest.fixture
def as_owner(tmp_path: Path) -> Iterator[None]:
    """No more rights than the owner of the files has (root may do everything). Ask for it last: what is in
    `tmp_path` by then is the owner's."""
    if os.geteuid() != 0:
        yield
        return
    modes = [(folder, folder.stat().st_mode) for folder in tmp_path.parents if not folder.stat().st_mode & 0o001]
    for folder, _ in modes:
        folder.chmod(0o755)
    for place in (tmp_path, *tmp_path.rglob("*")):
        os.chown(place, _NOBODY, _NOBODY)
    os.seteuid(_NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)
        for folder, mode in modes:
            folder.chmod(mode)


@pytest.fixture
def run_mounted() -> RunMounted:
    """Run a Python program while something is mounted, in a mount namespace of its own."""

    def run(mount: str, mount_point: Path, program: str, *arguments: object) -> str:
        namespace = ["unshare", "--mount", *(() if os.geteuid() == 0 else ("--map-root-user",))]
        shell = f'mount {mount} "$0" || exit {_CANNOT_MOUNT}; exec "$@"'
        command = [sys.executable, "-c", program, *map(str, arguments)]
        ended = subprocess.run(
            [*namespace, "sh", "-c", shell, str(mount_point), *command], capture_output=True, text=True, check=False
        )
        if ended.returncode == _CANNOT_MOUNT or "unshare" in ended.stderr:
            pytest.skip("this machine lets nobody mount, not even in a namespace")
        assert ended.returncode == 0, ended.stderr
        return ended.stdout

    return run
