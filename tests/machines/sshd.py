"""A real sshd on a loopback port, which lets the user of the tests in by one new key; scp and rsync work through it."""

from __future__ import annotations

import os
import pwd
import subprocess
from pathlib import Path
from types import TracebackType

from tests.machines.programs import Program, needed
from tests.support import free_port

# Without PAM and without the checks of StrictModes it runs for a plain user too, and trusts a temporary directory.
_CONFIGURATION = """\
ListenAddress 127.0.0.1:{port}
HostKey "{directory}/host_key"
PidFile none
AuthorizedKeysFile "{directory}/authorized_keys"
AuthenticationMethods publickey
PermitRootLogin prohibit-password
UsePAM no
StrictModes no
PrintMotd no
MaxStartups 200
Subsystem sftp internal-sftp
LogLevel VERBOSE
"""


class Sshd:
    """sshd with a host key and a user key of its own, both below `directory`; a context manager.

    Attributes:
        host, port, user: where to log in.
        private_key: the text of the key that is let in; `identity` is the file of it.
        host_key: the server's public key, as `known_hosts` has it behind the host; `known_hosts` is such a file.
    """

    def __init__(self, directory: Path) -> None:
        program = needed("sshd", "openssh-server")
        keygen = needed("ssh-keygen", "openssh-client")
        directory.mkdir(parents=True, exist_ok=True)
        self.host = "127.0.0.1"
        self.port = free_port()
        self.user = pwd.getpwuid(os.geteuid()).pw_name
        self.identity = directory / "user_key"
        self.known_hosts = directory / "known_hosts"
        for key in (directory / "host_key", self.identity):
            key.unlink(missing_ok=True)
            subprocess.run([keygen, "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", key], check=True)
        self.private_key = self.identity.read_text()
        self.host_key = (directory / "host_key.pub").read_text().strip()
        self.known_hosts.write_text(f"[{self.host}]:{self.port} {self.host_key}\n")
        (directory / "authorized_keys").write_bytes((directory / "user_key.pub").read_bytes())
        configuration = directory / "sshd_config"
        configuration.write_text(_CONFIGURATION.format(directory=directory, port=self.port))
        self._program = Program([program, "-D", "-e", "-f", configuration], self.port, directory / "sshd.log")

    def __enter__(self) -> Sshd:
        if os.geteuid() == 0:
            # Where sshd separates its privileges; the system's own service makes it when it starts.
            Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
        self._program.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._program.stop()

    def log(self) -> str:
        """Who came, and what was said to them."""
        return self._program.log()
