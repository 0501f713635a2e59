#!/bin/sh
# Makes the virtualenv .venv in this checkout, with LWR and all that its server needs. May be run again.
# PYTHON names the Python to use (default: python3).
set -eu

cd "$(dirname "$0")"
python=${PYTHON:-python3}

if ! "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))'; then
    echo "setup_venv.sh: LWR needs Python 3.11 or newer, and '$python' is not. Set PYTHON to one that is." >&2
    exit 1
fi
if [ ! -x .venv/bin/python ]; then
    echo "setup_venv.sh: making .venv" >&2
    "$python" -m venv .venv
fi
.venv/bin/python -m pip install --quiet --disable-pip-version-check --editable '.[server]'
