#!/usr/bin/env bash
# What the image's build does; it needs no container, so it can be tried anywhere.
# usage: scripts/image.sh requirements|project PREFIX
set -euo pipefail
cd "$(dirname "$0")/.."
step="$1" prefix="$2"

pip() { "$1/bin/python" -m pip --quiet --disable-pip-version-check --no-cache-dir "${@:2}"; }

# locked VENV NAME...: exactly what requirements.lock says, and nothing that is built here.
locked() {
  python3 -m venv "$1"
  python3 scripts/locked.py "${@:2}" >"$1/locked.txt"
  pip "$1" install --require-hashes --only-binary :all: --requirement "$1/locked.txt"
}

case "$step" in
  requirements)
    locked "$prefix" '[server]'
    ;;
  project)
    build="$(mktemp -d)"
    trap 'rm -rf "$build"' EXIT
    locked "$build/venv" setuptools
    # Built from a copy, for a build leaves things behind where it works.
    cp -r pyproject.toml README.md LICENSE gen mesh svc_* whimbrel_* "$build/"
    pip "$build/venv" wheel --no-deps --no-build-isolation --wheel-dir "$build/wheels" "$build"
    pip "$prefix" install --no-deps --no-index "$build"/wheels/*.whl
    "$prefix/bin/python" -m pip --quiet check
    # Nobody installs anything into the image.
    pip "$prefix" uninstall --yes pip
    ;;
  *)
    echo "usage: scripts/image.sh requirements|project PREFIX" >&2
    exit 2
    ;;
esac
