"""The names that a job left behind, and what is asked of them. Pure.

Names are relative and with `/`, as the job's directory was listed; a client's paths may be of Windows. Knows nothing of
outputs and their rules: `lwr.core.outputs` does.
"""

from __future__ import annotations

import ntpath
import posixpath
import re
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from fnmatch import translate
from types import ModuleType

from lwr.core.places import Area, resolve
from lwr.errors import BadName


class Listing:
    """Names of one directory of the job, asked for in four ways."""

    def __init__(self, names: Sequence[str]) -> None:
        self.names = sorted(set(names))
        self._all = frozenset(names)

    def __contains__(self, name: str) -> bool:
        return name in self._all

    def below(self, directory: str) -> Iterator[str]:
        """Names in a directory, whole."""
        prefix = f"{directory}/"
        for index in range(bisect_left(self.names, prefix), len(self.names)):
            if not self.names[index].startswith(prefix):
                return
            yield self.names[index]

    def extra_files(self, name: str) -> Iterator[str]:
        """All in `NAME_files/` and in the same without the name's suffix."""
        if name:
            for beside in dict.fromkeys((name, posixpath.splitext(name)[0])):
                yield from self.below(f"{beside}_files")

    def fitting(self, glob: str) -> list[str]:
        if not is_glob(glob):
            return []
        # `*` crosses `/`, and `**/` may also match nothing.
        forms = [re.compile(translate(form)) for form in dict.fromkeys((glob, glob.replace("**/", "")))]
        return [name for name in self.names if any(form.match(name) for form in forms)]


def is_glob(name: str) -> bool:
    return any(character in name for character in "*?[")


def flavour_of(path: str) -> ModuleType:
    """`ntpath` for a path that only Windows has, else `posixpath`."""
    return ntpath if re.match(r"[A-Za-z]:[\\/]|\\\\|[^/]*\\[^/]*\Z", path) else posixpath


def client_path(directory: str, relative: str) -> str:
    """The path of a '/'-relative name in a directory of the client's. Raises BadName if it would leave it."""
    flavour = flavour_of(directory)
    components = resolve(Area.OUTPUTS, relative, windows=flavour is ntpath)[1:]
    return str(flavour.join(directory, *components))


def relative_name(source: str, working_directory: str) -> str | None:
    """The '/'-relative name of a client's path in its working directory, or None if it is not in there."""
    flavour = flavour_of(working_directory)
    plain = flavour.normpath(source)
    if flavour.isabs(plain):
        root = flavour.normpath(working_directory) if working_directory else ""
        if not root or not plain.startswith(root.rstrip(flavour.sep) + flavour.sep):
            return None
        plain = plain[len(root.rstrip(flavour.sep)) + 1 :]
    name = str(plain).replace(flavour.sep, "/")
    return None if name.split("/")[0] in ("..", ".") else name


def of_the_client(names: Sequence[str]) -> list[str]:
    """Names directly in the job's directory without those that are the server's own."""
    kept = []
    for name in names:
        try:
            resolve(Area.JOB, name)
        except BadName:
            continue
        kept.append(name)
    return kept
