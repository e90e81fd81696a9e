#!/usr/bin/env bash
# Fails when gen/ and the generated pages of docs/ are not what the generators make now.
set -euo pipefail
cd "$(dirname "$0")/.."

fresh="$(mktemp -d)"
trap 'rm -rf "$fresh"' EXIT
scripts/gen.sh "$fresh"
if ! diff -r --brief --exclude=__pycache__ "$fresh/whimbrel" gen/whimbrel; then
  echo "gen/ is stale: run make gen" >&2
  exit 1
fi
"${WHIMBREL_BIN:-.venv/bin}/python" scripts/docs.py "$fresh/docs"
for page in "$fresh"/docs/*; do
  if ! diff -q "$page" "docs/${page##*/}"; then
    echo "docs/${page##*/} is stale: run make gen" >&2
    exit 1
  fi
done
