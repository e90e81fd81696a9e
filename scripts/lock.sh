#!/usr/bin/env bash
# Resolves pyproject.toml with all extras into requirements.lock: versions and hashes, no addresses.
# usage: scripts/lock.sh [--upgrade]
set -euo pipefail
cd "$(dirname "$0")/.."

# The project refers to itself by its extras; that line would carry this checkout's path.
.venv/bin/pip-compile pyproject.toml --extra dev --output-file requirements.lock \
  --generate-hashes --strip-extras --unsafe-package whimbrel --quiet --no-header \
  --no-emit-index-url --no-emit-trusted-host --no-emit-find-links --no-emit-options "$@"

# pip-compile ends with a warning that the project itself is not pinned.
sed -i '/^# WARNING: The following packages were not pinned/,$d' requirements.lock

if grep -nE 'https?:|file:' requirements.lock; then
  echo "lock: an address got into requirements.lock" >&2
  exit 1
fi
