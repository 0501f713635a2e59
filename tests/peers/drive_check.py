"""Runs the self-test of Pulsar's client with options that its command line does not have.

Run by a peer's own Python with the options as one JSON object; ends with 0 when the self-test passed. Knows nothing
of LWR.
"""

from __future__ import annotations

import importlib
import json
import sys
from types import SimpleNamespace

check = importlib.import_module("pulsar.client.test.check")
check.run(SimpleNamespace(**json.loads(sys.argv[1])))
