"""What Pulsar's own mapper decides: cases as JSON on stdin, a list of [action, URL] on stdout.

Run by a peer's own Python. Knows nothing of LWR.
"""

from __future__ import annotations

import importlib
import json
import sys
from typing import Any

mappers = importlib.import_module("pulsar.client.action_mapper")


def decided(mapper: dict[str, Any], path: str, kind: str) -> list[str | None]:
    action = mappers.FileActionMapper(config=mapper).action({"path": path}, kind)
    return [action.action_type, getattr(action, "url", None)]


json.dump([decided(*case) for case in json.load(sys.stdin)], sys.stdout)
