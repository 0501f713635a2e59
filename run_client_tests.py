"""`lwr check` under its old name, with its old options: python run_client_tests.py --url=http://localhost:8913/"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "src"))


def main() -> int:
    """Exits with 0 when everything works, with 1 when something does not, as `lwr check`."""
    parser = argparse.ArgumentParser(description="Test a running LWR server with a real job (now: lwr check).")
    parser.add_argument("--url", default="http://localhost:8913/", help="the server (default: %(default)s)")
    parser.add_argument("--private_token", default="", metavar="T", help="its private_key")
    parser.add_argument("--transport", choices=("urllib", "curl"), help="accepted; there is one transport today")
    parser.add_argument("--cache", action="store_true", help="accepted; this version has no cache to test")
    parser.add_argument("--test_errors", action="store_true", help="also make requests that must be refused")
    parser.add_argument("--suppress_output", action="store_true", help="print nothing; the exit code tells")
    parser.add_argument("--disable_cleanup", action="store_true", help="leave the job on the server")
    args = parser.parse_args()
    try:
        from lwr.client import RemoteServer
        from lwr.commands.check import check, verdict
        from lwr.errors import LwrError
    except ImportError as error:
        own = Path(__file__).resolve().parent / ".venv" / "bin" / "python"
        if own.exists() and sys.prefix == sys.base_prefix:
            # Called as of old, by whatever `python` is; what is needed is in the environment beside this file.
            os.execv(own, [str(own), *sys.argv])  # noqa: S606
        sys.stderr.write(f"{error.name} is missing. `./setup_venv.sh` makes the environment for it.\n")
        return 1
    try:
        with RemoteServer(args.url, args.private_token) as server:
            quiet, keep = args.suppress_output, args.disable_cleanup
            report = check(server, quiet=quiet, test_errors=args.test_errors, keep=keep)
            if not quiet:
                verdict(server.url, report)
    except LwrError as error:
        sys.stderr.write(f"{error.message}\n{error.hint}\n")
        return 1
    return 1 if report.failed else 0


if __name__ == "__main__":
    sys.exit(main())
