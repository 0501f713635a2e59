"""The examples of docs/python-api.md do what they say."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.machines.rabbitmq import RabbitMQ
from tests.server.http.served import served

PAGE = Path(__file__).parents[1] / "docs" / "python-api.md"


def test_all_examples(tmp_path: Path, broker: RabbitMQ, monkeypatch: pytest.MonkeyPatch) -> None:
    examples = re.findall(r"^```python\n(.*?)^```", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    assert examples
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    broker_url = broker.url(broker.vhost())
    with served(tmp_path / "server", secret="a-secret", options=f"message_queue_url = {broker_url}") as server:
        known: dict[str, object] = {
            "url": server.url,
            "token": server.secret,
            "broker_url": broker_url,
            "jobs_directory": str(server.staging),
        }
        for number, example in enumerate(examples, 1):
            exec(compile(example, f"{PAGE.name}, example {number}", "exec"), known)  # noqa: S102
