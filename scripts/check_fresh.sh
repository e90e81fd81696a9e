#!/usr/bin/env bash
# Fails when gen/, the generated pages of docs/, or the chart's rules and dashboards are not what the generators make now.
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
"${WHIMBREL_BIN:-.venv/bin}/python" scripts/observability.py "$fresh/files"
if ! diff -q "$fresh/files/rules.yaml" helm/whimbrel/files/rules.yaml ||
  ! diff -r --brief "$fresh/files/dashboards" helm/whimbrel/files/dashboards; then
  echo "helm/whimbrel/files is stale: run make gen" >&2
  exit 1
fi
