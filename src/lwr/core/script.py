"""The job script: from a ticket to the text that a shell runs, for POSIX shells and for Windows' cmd.

The script is a program of three parts: take the start marker (or refuse), run environment and command in a subshell
that nothing can break out of, write the exit file under its final name only when it is whole. Everything that comes
from outside stands in it as one quoted word. Pure text; must not know who starts it, or whether it ever ran.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass, field

from lwr.core.places import EXIT_FILE, Area
from lwr.core.ticket import EnvItem, Ticket

#: What every process of an attempt carries in its environment, with the attempt as its value.
MARKER_NAME = "LWR_JOB_MARKER"
#: Directories that a job finds beside its areas.
HOME, TMP = "home", "tmp"
#: The script's exit status when another one has started the attempt (or nobody can): nothing was run.
REFUSED_STATUS = 111
#: The script's exit status when there was no room for its number in the start marker, which it has given back:
#: nothing was run, and the attempt may be started again.
NO_ROOM_STATUS = 112


@dataclass(frozen=True, slots=True)
class Site:
    """What a manager's section says about the jobs' surroundings on this machine.

    Args:
        env: from `env_*`, set after the client's own items.
        galaxy_home: Galaxy's root here; its `lib` goes to the jobs' PYTHONPATH. Empty: none.
        search_path: directories put behind PATH, where `python` is found if the machine has none.
        galaxy_virtual_env: Galaxy's virtualenv here, entered only by what needs Galaxy's code. Empty: none.
    """

    env: Mapping[str, str] = field(default_factory=dict)
    galaxy_home: str = ""
    search_path: tuple[str, ...] = ()
    galaxy_virtual_env: str = ""


def render(ticket: Ticket, site: Site) -> str:
    """The script of an attempt, whole; the same ticket and site give the same text.

    The command's exit code, whatever it is, becomes the script's own and stands in the exit file. A second start
    ends with `REFUSED_STATUS` and touches nothing, one on a full disk with `NO_ROOM_STATUS` and leaves no marker.
    """
    return _render_cmd(ticket, site) if ticket.layout.windows else _render_sh(ticket, site)


# -- POSIX ---------------------------------------------------------------------------------------------------------
# Plain sh, although bash is asked for: some machines have none.

_HEAD = """\
#!/bin/bash
if [ -n "${{ABC_TEST_JOB_SCRIPT_INTEGRITY_XYZ+set}}" ]; then exit 42; fi
# Nothing before this line has an effect. The shell makes the marker only if it is not there, in one step, and only
# who made it may take it away again.
set -C
{{ {{ echo "$$" || {{ rm -f {marker}; exit {no_room}; }}; }} > {marker}; }} 2>/dev/null || exit {refused}
set +C
(
"""

_SLOTS = """\
lwr_slurm= lwr_nodes=
if [ -n "$SLURM_NTASKS$SLURM_CPUS_PER_TASK" ]; then
    lwr_slurm=$(( ${SLURM_NTASKS:-1} * ${SLURM_CPUS_PER_TASK:-1} ))
fi
if [ -r "$PBS_NODEFILE" ]; then lwr_nodes=$(( $(wc -l < "$PBS_NODEFILE") )); fi
GALAXY_SLOTS=${lwr_slurm:-${NSLOTS:-${PBS_NCPUS:-${lwr_nodes:-$LSB_DJOB_NUMPROC}}}}
unset GALAXY_SLOTS_CONFIGURED
if [ -n "$GALAXY_SLOTS" ]; then export GALAXY_SLOTS_CONFIGURED=1; else GALAXY_SLOTS=1; fi
GALAXY_MEMORY_MB=${SLURM_MEM_PER_NODE:-$GALAXY_MEMORY_MB}
GALAXY_MEMORY_MB_PER_SLOT=${SLURM_MEM_PER_CPU:-$GALAXY_MEMORY_MB_PER_SLOT}
export GALAXY_SLOTS GALAXY_MEMORY_MB GALAXY_MEMORY_MB_PER_SLOT
if [ "${GALAXY_MEMORY_MB:-0}" -gt 0 ] 2>/dev/null; then
    : "${GALAXY_MEMORY_MB_PER_SLOT:=$(( GALAXY_MEMORY_MB / GALAXY_SLOTS ))}"
elif [ "${GALAXY_MEMORY_MB_PER_SLOT:-0}" -gt 0 ] 2>/dev/null; then
    GALAXY_MEMORY_MB=$(( GALAXY_MEMORY_MB_PER_SLOT * GALAXY_SLOTS ))
else
    unset GALAXY_MEMORY_MB GALAXY_MEMORY_MB_PER_SLOT
fi
"""

_SURROUNDINGS = """\
export GALAXY_LIB={galaxy_lib} GALAXY_VIRTUAL_ENV={virtual_env} _GALAXY_VIRTUAL_ENV={virtual_env}
if [ "$GALAXY_LIB" != None ]; then export PYTHONPATH="$GALAXY_LIB${{PYTHONPATH:+:$PYTHONPATH}}"; fi
export PYTHONWARNINGS=ignore PRESERVE_GALAXY_ENVIRONMENT=False
export _GALAXY_JOB_DIR={working} _GALAXY_JOB_HOME_DIR={home} _GALAXY_JOB_TMP_DIR={tmp}
[ -d "$_GALAXY_JOB_HOME_DIR" ] && [ -d "$_GALAXY_JOB_TMP_DIR" ] ||
    mkdir -p "$_GALAXY_JOB_HOME_DIR" "$_GALAXY_JOB_TMP_DIR"
lwr_tmp=${{TMP:-${{TEMP:-${{TMPDIR:-$_GALAXY_JOB_TMP_DIR}}}}}}
export TMP="$lwr_tmp" TEMP="$lwr_tmp" TMPDIR="$lwr_tmp"
{search_path}export {marker_name}={attempt}
_galaxy_setup_environment() {{
    # With True the shell becomes one that can run Galaxy's own code; commands may call this too.
    if [ "$1" = True ] && [ -z "$VIRTUAL_ENV" ] && [ -f "$GALAXY_VIRTUAL_ENV/bin/activate" ]; then
        . "$GALAXY_VIRTUAL_ENV/bin/activate"
    fi
    # `command -v` would cost a process for each job.
    lwr_ifs=$IFS
    IFS=:
    export GALAXY_PYTHON=
    for lwr_name in python python3; do
        for lwr_dir in $PATH; do
            [ -z "$GALAXY_PYTHON" ] && [ -x "$lwr_dir/$lwr_name" ] && GALAXY_PYTHON=$lwr_dir/$lwr_name
        done
    done
    IFS=$lwr_ifs
}}
_galaxy_setup_environment "$PRESERVE_GALAXY_ENVIRONMENT"
"""

_TAIL = """\
)
lwr_code=$?
if {{ echo "$lwr_code" > {part}; }} 2>/dev/null; then
    sync {part} 2>/dev/null || sync
    mv -f {part} {exit_file}
fi
exit "$lwr_code"
"""


def _render_sh(ticket: Ticket, site: Site) -> str:
    layout = ticket.layout
    working = shlex.quote(layout.area(Area.WORKING))
    surroundings = _SURROUNDINGS.format(
        galaxy_lib=shlex.quote(f"{site.galaxy_home}/lib" if site.galaxy_home else "None"),
        virtual_env=shlex.quote(site.galaxy_virtual_env or "None"),
        working=working,
        home=shlex.quote(layout.path(HOME)),
        tmp=shlex.quote(layout.path(TMP)),
        # No line for nothing: an empty element of PATH would mean the working directory.
        search_path="".join(f'export PATH="${{PATH:+$PATH:}}"{shlex.quote(path)}\n' for path in site.search_path),
        marker_name=MARKER_NAME,
        attempt=shlex.quote(ticket.attempt),
    )
    steps = [_sh_step(item) for item in _all_items(ticket, site)]
    return "".join(
        (
            _HEAD.format(marker=shlex.quote(layout.start_marker), refused=REFUSED_STATUS, no_room=NO_ROOM_STATUS),
            _SLOTS,
            surroundings,
            # One eval each: a quote or a heredoc that is left open ends with its own item.
            *(f"eval {shlex.quote(step)}\n" for step in steps),
            f"cd {working} || exit 1\n",
            f"eval {shlex.quote(ticket.command_line)}\n",
            _TAIL.format(part=shlex.quote(layout.path(EXIT_FILE + ".part")), exit_file=shlex.quote(layout.exit_file)),
        )
    )


def _all_items(ticket: Ticket, site: Site) -> list[EnvItem]:
    return [*ticket.env, *(EnvItem(name=name, value=value) for name, value in site.env.items())]


def _sh_step(item: EnvItem) -> str:
    if item.file:
        return f". {item.file if item.raw else _double_quoted(item.file)}"
    if item.execute:
        return item.execute
    value = item.value if item.raw else _double_quoted(item.value)
    return f"{item.name}={value}; export {item.name}"


_BACKSLASHES_BEFORE_QUOTE = re.compile(r'(\\*)("|\Z)')


def _double_quoted(text: str) -> str:
    """`text` as one word in which `$NAME` still expands, as Galaxy's destinations expect.

    Backslashes before a quote, or at the end, are doubled: otherwise they would take away the meaning of ours.
    """
    return '"' + _BACKSLASHES_BEFORE_QUOTE.sub(lambda m: m[1] * 2 + ("\\" + m[2] if m[2] else ""), text) + '"'


# -- Windows -------------------------------------------------------------------------------------------------------


def _render_cmd(ticket: Ticket, site: Site) -> str:
    """cmd has no quoting that holds everything: the command stands as it came. One that leaves the script by itself
    has its code told by the process. The marker is a directory, which is made in one step or not at all."""
    layout = ticket.layout
    part, exit_file, marker, working = (
        '"' + path.replace("%", "%%") + '"'
        for path in (
            layout.path(EXIT_FILE + ".part"), layout.exit_file, layout.start_marker, layout.area(Area.WORKING)
        )
    )  # fmt: skip
    lines = [
        "@echo off",
        "if defined ABC_TEST_JOB_SCRIPT_INTEGRITY_XYZ exit 42",
        f"md {marker} 2>nul || exit {REFUSED_STATUS}",
        "set GALAXY_SLOTS=1",
        f"set {MARKER_NAME}={ticket.attempt}",
        *(f'set "PATH=%PATH%;{directory}"' for directory in site.search_path),
        *(_cmd_step(item) for item in _all_items(ticket, site)),
        f"cd /d {working} || exit 1",
        ticket.command_line,
        "set LWR_CODE=%ERRORLEVEL%",
        f"> {part} echo %LWR_CODE%",
        f"move /y {part} {exit_file} >nul",
        "exit %LWR_CODE%",
    ]
    return "\r\n".join(lines) + "\r\n"


def _cmd_step(item: EnvItem) -> str:
    if item.file:
        return f'call "{item.file}"'
    return item.execute or f'set "{item.name}={item.value}"'
