#!/usr/bin/env bash
# Fails when gen/ is not what the generator makes of proto/ now.
set -euo pipefail
cd "$(dirname "$0")/.."

fresh="$(mktemp -d)"
trap 'rm -rf "$fresh"' EXIT
scripts/gen.sh "$fresh"
if ! diff -r --brief --exclude=__pycache__ "$fresh/whimbrel" gen/whimbrel; then
  echo "gen/ is stale: run make gen" >&2
  exit 1
fi
