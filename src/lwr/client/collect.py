"""What a server's status tells of a job's files, as the rules of collection take it. Pure.

Which of them are results, and where each goes here, is decided in `lwr.core.outputs`.
"""

from __future__ import annotations

from collections.abc import Iterable

from lwr.client.remote import RemoteStatus
from lwr.core.outputs import Written


def written(status: RemoteStatus) -> Written:
    """The listings of a status, with `/` whatever the server separates with."""

    def plain(names: Iterable[str]) -> tuple[str, ...]:
        return tuple(name.replace(status.separator, "/") for name in names)

    return Written(plain(status.outputs), plain(status.working), plain(status.metadata))
