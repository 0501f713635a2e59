"""The uploads of a tus 1.0.0 server on a disk: what is there, how far it came, and who writes to it now.

Knows nothing of HTTP, of keys or of where a finished upload goes. The numbers are those of https://tus.io/protocols/.
"""

from __future__ import annotations

import uuid
from dataclasses import dataclass
from pathlib import Path


@dataclass
class Upload:
    """One upload. Its offset is the size of its file, so that no byte is counted that is not there."""

    name: str
    file: Path
    length_bytes: int
    wanted_path: str
    #: Raised by whoever asks for the offset or writes: whoever wrote before has lost its line, and stops, so that an
    #: offset that was told stays true.
    claim: int = 0

    @property
    def offset_bytes(self) -> int:
        return self.file.stat().st_size

    def take(self) -> int:
        """Claim the upload for oneself; earlier writers stop at their next piece."""
        self.claim += 1
        return self.claim


class Uploads:
    """The uploads below `directory`, by name."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._known: dict[str, Upload] = {}

    def create(self, length_bytes: int, wanted_path: str) -> Upload:
        name = uuid.uuid4().hex
        upload = Upload(name, self._directory / name, length_bytes, wanted_path)
        upload.file.touch()
        self._known[name] = upload
        return upload

    def find(self, name: str) -> Upload | None:
        return self._known.get(name)

    def all(self) -> list[Upload]:
        return list(self._known.values())

    def remove(self, name: str) -> None:
        """Forget an upload and what is left of its file. Unknown: nothing happens."""
        upload = self._known.pop(name, None)
        if upload is not None:
            upload.take()
            upload.file.unlink(missing_ok=True)
