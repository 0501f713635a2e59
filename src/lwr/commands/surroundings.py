"""Where a server's configuration is, and the environment that `local_env.sh` beside it makes."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping
from pathlib import Path

from lwr.errors import ConfigError

LOCAL_ENV = "local_env.sh"
_DEADLINE_S = 60.0
#: Variables of the shell itself, which it would change for us.
_SHELL_OWN = ("_", "SHLVL", "PWD", "OLDPWD")


def find_ini(given: str | None) -> Path | None:
    """The configuration to use: what was named, else ./server.ini, else None where there is no such file."""
    if given is not None:
        return Path(given).absolute()
    here = Path("server.ini").absolute()
    return here if here.exists() else None


def surroundings(ini: Path | None, environ: Mapping[str, str]) -> dict[str, str]:
    """The environment after `local_env.sh` beside server.ini was read by a shell; `environ` where there is none.

    Raises:
        ConfigError: the file fails or does not come to an end.
    """
    script = (ini.parent if ini else Path.cwd()) / LOCAL_ENV
    if os.name != "posix" or not script.is_file():
        return dict(environ)
    shell = "bash" if _on_path("bash", environ) else "sh"
    # What the file prints must not mix with the variables.
    argv = [shell, "-c", '. "$1" >&2 && env -0', shell, str(script)]
    try:
        done = subprocess.run(
            argv, env=dict(environ), cwd=script.parent, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            timeout=_DEADLINE_S, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        raise ConfigError(f"{script} did not come to an end within {_DEADLINE_S:.0f} s.", "Run it by hand.") from error
    if done.returncode != 0:
        raise ConfigError(
            f"{script} failed with exit code {done.returncode}.", f"Try it by hand: `{shell} -x {script}`."
        )
    lines = (os.fsdecode(line).partition("=") for line in done.stdout.split(b"\0") if line)
    made = {name: value for name, _, value in lines if name not in _SHELL_OWN}
    return made | {name: environ[name] for name in _SHELL_OWN if name in environ}


def _on_path(program: str, environ: Mapping[str, str]) -> bool:
    return any((Path(part) / program).is_file() for part in environ.get("PATH", os.defpath).split(os.pathsep))
