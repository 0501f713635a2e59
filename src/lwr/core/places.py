"""Where the files of a job live, and which names may point at them. The only path-safety code.

Pure text: `JobLayout` computes paths (POSIX or Windows), `resolve` turns an area and a client's name into checked
components, or refuses. Opening what they name, without following links out of the job, is done in
`lwr.transfer.jobfiles`, and only from the components that `resolve` returned.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum

from lwr.errors import BadName


class Area(StrEnum):
    """A directory of a job; the value is its name below the job's directory ("" for that itself)."""

    INPUTS = "inputs"
    WORKING = "working"
    OUTPUTS = "outputs"
    CONFIGS = "configs"
    TOOL_FILES = "tool_files"
    UNSTRUCTURED = "unstructured"
    METADATA = "metadata"
    JOB = ""


#: Made when a job is set up. `unstructured` comes with its first file, `home` and `tmp` with the start.
SETUP_AREAS = (Area.INPUTS, Area.WORKING, Area.OUTPUTS, Area.CONFIGS, Area.TOOL_FILES, Area.METADATA)

SCRIPT = "command.sh"
WINDOWS_SCRIPT = "command.cmd"
EXIT_FILE = "return_code"
START_MARKER = "started"
STDOUT = "stdout"
STDERR = "stderr"
PART_PREFIX = ".part-"  # names in the job's directory of files that are not whole yet

#: Names directly in the job's directory that no client may read or write.
SERVER_OWNED = frozenset(
    {SCRIPT, WINDOWS_SCRIPT, EXIT_FILE, EXIT_FILE + ".part", START_MARKER, STDOUT, STDERR, "home", "tmp"}
    | {area.value for area in Area if area.value}
)

_CONTROL = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")
_WINDOWS_FORBIDDEN = re.compile(r'[<>:"|?*]')
_MAX_COMPONENT_BYTES = 255
_MAX_NAME_BYTES = 3000
_MAX_DEPTH = 100


@dataclass(frozen=True, slots=True)
class JobLayout:
    """The paths of one job. `windows` decides separators and naming rules, not the machine this runs on."""

    root: str
    windows: bool = False

    @property
    def separator(self) -> str:
        return "\\" if self.windows else "/"

    def path(self, *components: str) -> str:
        """Absolute path of something below the job's directory; the caller has checked the components."""
        # Text, not a path object: a set-up alone computes eight of these, and they would cost more than its answer.
        return self.separator.join((self.root.rstrip("/\\" if self.windows else "/"), *components))

    def area(self, area: Area) -> str:
        return self.path(area.value) if area.value else self.root

    @property
    def script(self) -> str:
        return self.path(WINDOWS_SCRIPT if self.windows else SCRIPT)

    @property
    def exit_file(self) -> str:
        return self.path(EXIT_FILE)

    @property
    def start_marker(self) -> str:
        return self.path(START_MARKER)

    @property
    def stdout(self) -> str:
        return self.path(STDOUT)

    @property
    def stderr(self) -> str:
        return self.path(STDERR)


def resolve(area: Area, name: str, *, nested: bool = True, windows: bool = False) -> tuple[str, ...]:
    """Check a client's name for a file and return its components below the job's directory, the area's first.

    `a//b` and `a/./b` are `a/b`. With `nested` false only the last component counts, as the peers' flat kinds
    have it. On Windows a backslash separates too.

    Raises:
        BadName: empty; absolute; a `..`; a drive or a backslash where it is not a separator; control characters
            or text that is not Unicode; too long or too deep; a name that Windows cannot keep (there); a name of
            the server's own in the job's directory.
    """
    if not name or name.isspace():
        raise BadName("A file needs a name.", "Send it as the parameter `name`.")
    shown = repr(name[:80])
    if _CONTROL.search(name):
        raise BadName(f"The file name {shown} holds control characters or text that is not Unicode.")
    if len(name.encode()) > _MAX_NAME_BYTES:
        raise BadName(f"The file name {shown} is longer than {_MAX_NAME_BYTES} bytes.")
    if "\\" in name and not windows:
        raise BadName(f"The file name {shown} holds a backslash.", "This server separates directories with `/`.")
    parts = [part for part in (name.replace("\\", "/") if windows else name).split("/") if part not in ("", ".")]
    if name.startswith(("/", "\\")) or ".." in parts or not parts:
        raise BadName(
            f"The file name {shown} leaves its directory.", "Names are relative to the job's directory of that type."
        )
    if len(parts) > _MAX_DEPTH:
        raise BadName(f"The file name {shown} is nested deeper than {_MAX_DEPTH} directories.")
    for part in parts:
        _check_component(part, shown, windows)
    if not nested:
        parts = parts[-1:]
    if area is Area.JOB and (parts[0].casefold() in SERVER_OWNED or parts[0].startswith(PART_PREFIX)):
        raise BadName(f"The file name {shown} belongs to the server.", "Choose another name.")
    return (area.value, *parts) if area.value else tuple(parts)


def _check_component(part: str, shown: str, windows: bool) -> None:
    if len(part.encode()) > _MAX_COMPONENT_BYTES:
        raise BadName(f"A part of the file name {shown} is longer than {_MAX_COMPONENT_BYTES} bytes.")
    if windows and (_WINDOWS_FORBIDDEN.search(part) or part[-1] in ". " or is_windows_device(part)):
        raise BadName(f"The file name {shown} cannot be kept on Windows.")


_DEVICE = re.compile(r"(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9¹²³]) *(\..*)?", re.IGNORECASE)


def is_windows_device(name: str) -> bool:
    """Whether Windows would open a device under this name (`NUL`, `com1.txt`, ...), in any case."""
    return _DEVICE.fullmatch(name) is not None
