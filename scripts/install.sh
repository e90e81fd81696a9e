#!/usr/bin/env bash
# Makes the virtual environment: exactly what requirements.lock says, and this project in place.
# usage: scripts/install.sh PYTHON VENV
set -euo pipefail
cd "$(dirname "$0")/.."
python="$1" venv="$2"

if [[ ! -x "$venv/bin/python" ]]; then
  command -v "$python" >/dev/null || python=python3
  "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' || {
    echo "install: Python 3.11 or later is needed; set PYTHON" >&2
    exit 1
  }
  "$python" -m venv "$venv"
fi

pip() { "$venv/bin/python" -m pip --quiet --disable-pip-version-check "$@"; }
pip install --require-hashes --requirement requirements.lock
# Twice quiet: setuptools tells everyone who installs in place to mind the folders.
pip install --quiet --no-deps --no-build-isolation --editable .
touch "$venv/installed"
