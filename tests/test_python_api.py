"""The examples of docs/python-api.md do what they say."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.server.http.served import served

PAGE = Path(__file__).parents[1] / "docs" / "python-api.md"


def test_all_examples(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    examples = re.findall(r"^```python\n(.*?)^```", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    assert examples
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    with served(tmp_path / "server", secret="a-secret") as server:
        known: dict[str, object] = {"url": server.url, "token": server.secret}
        for number, example in enumerate(examples, 1):
            exec(compile(example, f"{PAGE.name}, example {number}", "exec"), known)  # noqa: S102
