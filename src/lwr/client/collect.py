"""What the rules of collection (`lwr.core.outputs`) need to know on the client's side. Pure.

Which files are results, and where each goes here, is decided there; the listings come from the server's status, and
the names that outputs have on the server follow from the client's own description alone.
"""

from __future__ import annotations

import os.path
from collections.abc import Iterable, Iterator
from dataclasses import replace

from lwr.client.pathmapper import Names
from lwr.client.status import RemoteStatus
from lwr.core.listings import relative_name
from lwr.core.mapper import Mapper
from lwr.core.outputs import VERSION_OUTPUT, ClientOutputs, Written
from lwr.core.staging import Step


def written(status: RemoteStatus) -> Written:
    """The listings of a status, with `/` whatever the server separates with."""

    def plain(names: Iterable[str]) -> tuple[str, ...]:
        return tuple(name.replace(status.separator, "/") for name in names)

    return Written(
        plain(status.outputs),
        plain(status.working),
        plain(status.metadata),
        plain(status.job_directory),
        status.sources,
    )


def declared_outputs(outputs: ClientOutputs, mapper: Mapper, names: Names) -> tuple[ClientOutputs, tuple[Step, ...]]:
    """The outputs as they are sent, and of each one that was declared its name on the server and its action.

    The same whenever it is asked, also by a later process, if `names` is new or was asked before for outputs in their
    order. Raises ConfigError where the mapper cannot say what an action needs.
    """
    for path in outputs.output_files:
        if relative_name(path, outputs.working_directory) is None:
            _name(path, names)
    outputs = _with_those_of_working(outputs)
    return outputs, tuple(_steps(outputs, mapper, names))


def _name(path: str, names: Names) -> str:
    return names.of(os.path.normpath(path), os.path.basename(path))


def _with_those_of_working(outputs: ClientOutputs) -> ClientOutputs:
    """Outputs in the working directory are written there, so they are fetched from there."""
    moved = [
        (path, path)
        for path in outputs.output_files
        if relative_name(path, outputs.working_directory) is not None
        and path not in {target for _, target in outputs.work_dir_outputs}
    ]
    return replace(outputs, work_dir_outputs=(*outputs.work_dir_outputs, *moved)) if moved else outputs


def _steps(outputs: ClientOutputs, mapper: Mapper, names: Names) -> Iterator[Step]:
    from_work_dir = {target: source for source, target in outputs.work_dir_outputs}
    for path in dict.fromkeys(filter(None, (*from_work_dir, *outputs.output_files, outputs.version_file))):
        source = relative_name(from_work_dir.get(path, path), outputs.working_directory)
        if path in from_work_dir and source is not None:
            kind, name = "output_workdir", source
        elif path == outputs.version_file:
            kind, name = "output", VERSION_OUTPUT
        else:
            kind, name = "output", _name(path, names)
        yield Step(kind, name, mapper.action(path, kind), path in outputs.required)
