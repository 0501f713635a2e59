"""The sample files and the reference page, made from the table of options.

`make generate` writes them. Knows texts only.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable
from typing import Any

from lwr.config import options as o
from lwr.config.managers import own_options
from lwr.config.option import APP, MANAGER, SERVER, Option, Unserved
from lwr.managers.manager import ManagerKind, manager_kinds

_WIDTH = 100
_OWN_KINDS = ("queued_python", "unqueued")

_SERVER_HEAD = """\
The configuration of an LWR server. Copy it to server.ini and change what should differ; each option stands here \
at its default, commented out.

Relative paths start from the directory of this file, and %(here)s stands for that directory; write a plain per \
cent sign as %%. Any option can be given in the environment too, for example LWR_CONFIG_PORT=9000, and that wins \
over this file. An option that LWR does not know is an error. `lwr config check` tests the file, `lwr config show` \
prints each value and where it came from."""

_MANAGERS_HEAD = """\
The managers of jobs. Copy it to job_managers.ini and set `job_managers_config = job_managers.ini` in server.ini.

Each section [manager:NAME] is a way to run jobs. Clients choose it by NAME in the URL \
(http://host:8913/managers/NAME/); those that choose none get `_default_`. What stands in [DEFAULT] holds for all \
managers that take it."""

_LOCAL_ENV_HEAD = """\
The surroundings of an LWR server. Copy it to local_env.sh beside server.ini; `run.sh` and `lwr serve` read it \
with a shell when they start, and the server and its jobs get the resulting environment."""

#: (line, why) of local_env.sh.
_LOCAL_ENV = (
    ("export GALAXY_HOME=/path/to/galaxy", "Root of a Galaxy on this machine, for tools that need its code."),
    ("export TEST_GALAXY_LIBS=1", "Makes run.sh check first that the code in GALAXY_HOME can be imported."),
    ('export PATH="/opt/tools/bin:$PATH"', "Where the tools of the jobs are."),
    (
        "export DRMAA_LIBRARY_PATH=/path/to/libdrmaa.so",
        "The DRMAA library of the cluster, for managers that submit through it.",
    ),
    ("export LWR_CONFIG_PRIVATE_KEY=...", "Any option of server.ini, for instance the secret."),
)  # fmt: skip


def server_sample() -> str:
    """The text of server.ini.sample."""
    parts = [_comment(_SERVER_HEAD)]
    for section in (SERVER, APP):
        parts.append(f"[{section}]")
        parts += [_sample_of(option) for option in o.SERVER_OPTIONS if option.section == section]
    return "\n\n".join(parts) + "\n"


def managers_sample() -> str:
    """The text of job_managers.ini.sample, with the kinds that LWR itself brings."""
    parts = [_comment(_MANAGERS_HEAD), "[manager:_default_]", _comment(_kinds_text()), "type = queued_python"]
    for name, kind in _kinds():
        parts += [_sample_of(option, f"Only for type {name}: ") for option in own_options(kind)]
    parts += [_sample_of(option) for option in o.MANAGER_OPTIONS if option is not o.TYPE]
    parts += [_comment("A second manager, which starts each job at once:"), "#[manager:quick]\n#type = unqueued"]
    return "\n\n".join(parts) + "\n"


def local_env_sample() -> str:
    """The text of local_env.sh.sample."""
    parts = [_comment(_LOCAL_ENV_HEAD), *(f"{_comment(why)}\n#{line}" for line, why in _LOCAL_ENV)]
    return "\n\n".join(parts) + "\n"


def reference_markdown() -> str:
    """The reference page of all options, as Markdown."""
    parts = [
        "# Configuration",
        "<!-- Made from src/lwr/config/options.py by `make generate`; do not edit. -->",
        "A server reads `server.ini`, an ini file. " + _SERVER_HEAD.split("\n\n")[1],
    ]
    for section in (SERVER, APP):
        parts.append(f"## server.ini, `[{section}]`")
        parts += [_reference_of(option, environment=True) for option in o.SERVER_OPTIONS if option.section == section]
    parts += ["## job_managers.ini, `[manager:NAME]`", _MANAGERS_HEAD.split("\n\n")[1]]
    parts += [_reference_of(option, environment=False) for option in o.MANAGER_OPTIONS]
    for name, kind in _kinds():
        parts += [f"## `type = {name}`", kind.doc]
        parts += [_reference_of(option, environment=False) for option in own_options(kind)]
    parts += ["## local_env.sh", _LOCAL_ENV_HEAD, "\n".join(f"- `{line}`: {why}" for line, why in _LOCAL_ENV)]
    parts += ["## Names of older files", _unserved_text()]
    return "\n\n".join(parts) + "\n"


#: Name of each sample file -> its text.
SAMPLES = {
    "server.ini.sample": server_sample,
    "job_managers.ini.sample": managers_sample,
    "local_env.sh.sample": local_env_sample,
}


def _kinds() -> Iterable[tuple[str, ManagerKind]]:
    kinds = manager_kinds()
    return [(name, kinds[name]) for name in _OWN_KINDS]


def _kinds_text() -> str:
    return "\n\n".join([o.TYPE.doc, *(f"{name}: {kind.doc}" for name, kind in _kinds())])


def _unserved_text() -> str:
    def names(unserved: Unserved, form: str) -> str:
        return ", ".join(form.format(pattern) for pattern in unserved.patterns)

    fates = {True: "not in this version; setting one is an error", False: "accepted with a notice"}
    lines = [
        f"- {names(unserved, '`{}`')}: {fates[unserved.later]} ({unserved.what.rstrip('.')})."
        for unserved in (*o.UNSERVED_OPTIONS, *o.UNSERVED_MANAGER_OPTIONS)
    ]
    lines += [
        f"- {names(unserved, '`[{}]`')}: accepted with a notice ({unserved.what.rstrip('.')})."
        for unserved in o.UNSERVED_SECTIONS
    ]
    return "\n".join(lines)


def _sample_of(option: Option[Any], before: str = "") -> str:
    aliases = f" Also called {', '.join(option.aliases)}." if option.aliases else ""
    line = option.example if "=" in option.example else f"{option.name} = {option.default or option.example}".rstrip()
    return f"{_comment(before + option.doc + _default_text(option) + aliases)}\n#{line}"


def _reference_of(option: Option[Any], *, environment: bool) -> str:
    facts = [f"Default: `{option.default}`" if option.default else "No default"]
    if option.unit:
        facts.append(option.unit)
    if option.aliases:
        facts.append("also called " + ", ".join(f"`{alias}`" for alias in option.aliases))
    if environment:
        facts.append(f"environment: `LWR_CONFIG_{option.name.upper()}`")
    return f"### `{option.name}`\n\n{option.doc}\n\n*{'; '.join(facts)}.*"


def _default_text(option: Option[Any]) -> str:
    if option.default:
        return f" In {option.unit}." if option.unit else ""
    return " Default: none." if option.section != MANAGER else ""


def _comment(text: str) -> str:
    lines = [line for paragraph in text.split("\n") for line in textwrap.wrap(paragraph, _WIDTH - 2) or [""]]
    return "\n".join(f"# {line}".rstrip() for line in lines)
