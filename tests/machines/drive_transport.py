"""Calls functions of Pulsar's own transports, in order: a JSON list of [module, function, argument...].

Run by a peer's own Python; ends with 0 when none of them raised.
"""

from __future__ import annotations

import importlib
import json
import sys

for module, function, *arguments in json.loads(sys.argv[1]):
    getattr(importlib.import_module(f"pulsar.client.transport.{module}"), function)(*arguments)
