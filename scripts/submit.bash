#!/bin/bash
# Runs the job of one set-up message (`--base64 TEXT` or `--file FILE`), as clients with a `shell_plugin` ask for over ssh;
# `lwr submit --help` says more. Uses the server.ini and the local_env.sh of this checkout.
set -eu
cd "$(dirname "${BASH_SOURCE[0]}")/.."
exec .venv/bin/lwr submit server.ini "$@"
