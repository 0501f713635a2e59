"""Remote paths for whoever asks one by one: Galaxy when it fills a tool's template itself (`rewrite_parameters`).

Facts: client library, section 6. A `PathMapper` gives each file of a job its name on the server, once, so that equal
basenames do not collide, and `plan_description` takes the names from the same one. Must not open a file.
"""

from __future__ import annotations

import os.path
from dataclasses import dataclass, field

from lwr.client.places import RemotePlaces
from lwr.client.unstructured import Arbitrary, Disk, UnstructuredFiles
from lwr.core.mapper import Mapper
from lwr.core.outputs import VERSION_OUTPUT


@dataclass(slots=True)
class Names:
    """Names for files of one kind. The first file of a name has it; the next ones go below a numbered directory, or get
    a numbered prefix where there can be no directories (`joint`). Case does not tell names apart: the server may be a
    Windows machine."""

    joint: str = "/"
    given: dict[str, str] = field(default_factory=dict)
    _taken: set[str] = field(default_factory=set)
    _directories: set[str] = field(default_factory=set)

    def of(self, path: str, wanted: str) -> str:
        """The '/'-relative name of a file; the same whenever it is asked for."""
        if path not in self.given:
            name, number = wanted, 1
            while self._clashes(name.casefold()):
                number += 1
                name = f"{number}{self.joint}{wanted}"
            self._taken.add(name.casefold())
            self._directories |= _above(name.casefold())
            self.given[path] = name
        return self.given[path]

    def _clashes(self, name: str) -> bool:
        return name in self._directories or not self._taken.isdisjoint((name, *_above(name)))


def _above(name: str) -> set[str]:
    return {name[:end] for end, character in enumerate(name) if character == "/"}


class PathMapper:
    """Where the files of one job are on the server.

    The methods take absolute local paths; they answer with the remote path, or None where the path stays as it is.
    Asking has no effect but that names are given, and may be repeated. All raise ConfigError where the mapper cannot
    say what an action needs.
    """

    def __init__(self, mapper: Mapper, places: RemotePlaces, local_working_directory: str, disk: Disk) -> None:
        self.mapper = mapper
        self.places = places
        self.disk = disk
        self.local_working_directory = os.path.normpath(local_working_directory) if local_working_directory else ""
        self.unstructured_files = UnstructuredFiles(mapper, places, disk)
        self.inputs = Names()
        self.outputs = Names("_")
        self.configs = Names("_")

    def input_name(self, path: str, wanted: str = "") -> str:
        """Its name below `inputs`; `wanted` instead of its basename, for the first time that it is asked for."""
        return self.inputs.of(os.path.normpath(path), wanted or os.path.basename(path))

    def input(self, path: str, wanted: str = "") -> str | None:
        """For `remote_input_path_rewrite`."""
        return self.remote(path, "input", self.input_name(path, wanted))

    def output(self, path: str) -> str | None:
        """For `remote_output_path_rewrite`: below `working` for what lies in the local working directory."""
        path = os.path.normpath(path)
        if self.local_working_directory and path.startswith(self.local_working_directory + os.sep):
            inner = path[len(self.local_working_directory) + 1 :].replace(os.sep, "/")
            return self.remote(path, "output_workdir", inner)
        return self.remote(path, "output", self.outputs.of(path, os.path.basename(path)))

    def version(self, path: str) -> str | None:
        """For `remote_version_path_rewrite`: of the file that the tool's version goes to."""
        return self.remote(path, "output", VERSION_OUTPUT)

    def config(self, path: str) -> str | None:
        """Of a configuration file."""
        return self.remote(path, "config", self.configs.of(os.path.normpath(path), os.path.basename(path)))

    def unstructured(self, path: str) -> Arbitrary:
        """For `check_for_arbitrary_rewrite`: of any other path, with all files that must be staged for it. Give their
        paths and names to the job's description (`arbitrary_files`)."""
        return self.unstructured_files.place(path)

    def remote(self, path: str, kind: str, name: str) -> str | None:
        """The remote path of a file with that name, if its action stages it, or what it is rewritten to."""
        action = self.mapper.action(path, kind, separator=self.places.separator)
        if action.kind.staged:
            return self.places.path(kind, name)
        return action.rewritten if action.rewritten not in ("", path) else None
