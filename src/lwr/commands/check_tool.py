"""The tool of `lwr check`: runs on the server, tells what it sees there, and leaves files in every place.

Sent as it is and run by the server's `python`, so it uses only what Python 3.7 has and imports nothing of LWR.
"""

from __future__ import annotations

import json
import os
import sys

TOOL_EXIT_CODE = 4


def main(paths: list[str], word: str) -> int:
    """`paths`: config, input, extra, unstructured, report; `word`: an argument that must arrive as it was sent."""
    config, data, extra, index, report = paths
    seen = {
        "config": read(config),
        "input": read(data),
        "extra": read(extra),
        "extra lies beside its input": extra.startswith(os.path.splitext(data)[0] + "_files"),
        "unstructured": read(index),
        "working directory": read("before.txt"),
        "metadata": read(os.path.join(os.pardir, "metadata", "known.txt")),
        "argument": word,
        "environment": os.environ.get("LWR_CHECK_WORD", ""),
    }
    write(report, json.dumps(seen))
    beside = os.path.splitext(report)[0] + "_files"
    os.makedirs(os.path.join(beside, "deep"))
    write(os.path.join(beside, "deep", "plot.txt"), "an extra file\n")
    write("left.txt", "left behind\n")
    write(os.path.join(os.pardir, "metadata", "found.txt"), "metadata\n")
    sys.stdout.write("said on stdout\n")
    sys.stderr.write("said on stderr\n")
    return TOOL_EXIT_CODE


def read(path: str) -> str:
    with open(path, encoding="utf-8") as file:
        return file.read()


def write(path: str, text: str) -> None:
    with open(path, "w", encoding="utf-8") as file:
        file.write(text)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:6], sys.argv[6]))
