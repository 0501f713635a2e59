"""`python -m lwr.config DIRECTORY`: write the sample files and docs/configuration.md into a checkout."""

from __future__ import annotations

import sys
from pathlib import Path

from lwr.config.samples import local_env_sample, managers_sample, reference_markdown, server_sample

GENERATED = {
    "server.ini.sample": server_sample,
    "job_managers.ini.sample": managers_sample,
    "local_env.sh.sample": local_env_sample,
    "docs/configuration.md": reference_markdown,
}


def main(directory: Path) -> None:
    """Write all of them; a file that is there is replaced."""
    for name, text in GENERATED.items():
        path = directory / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text(), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "."))
