"""Runs the self-test of Pulsar's client over a message queue, with options that only Galaxy gives it.

Run by a peer's own Python with a JSON object each for the self-test (`manager_url` among them) and for the client's
manager (`amqp_acknowledge`, `manager`, `amqp_connect_ssl_*` ...); ends with 0 when the self-test passed. Knows nothing
of LWR.
"""

from __future__ import annotations

import importlib
import json
import sys
from types import SimpleNamespace
from typing import Any

check: Any = importlib.import_module("pulsar.client.test.check")
given, more = (json.loads(text) for text in sys.argv[1:3])
plain = check.build_client_manager


def build(**chosen: Any) -> Any:
    """The self-test gives its manager nothing but a URL."""
    manager = plain(**chosen, **more)
    if "amqp_acknowledge" in more:
        manager.ensure_has_ack_consumers()  # as Galaxy's runner does
    return manager


check.build_client_manager = build
check.run(SimpleNamespace(**given))
