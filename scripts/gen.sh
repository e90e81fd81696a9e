#!/usr/bin/env bash
# Generates the Python of every proto into a source root (default: gen/), removing what no proto makes any more.
# usage: scripts/gen.sh [OUT]
set -euo pipefail
cd "$(dirname "$0")/.."

proto="${WHIMBREL_PROTO_ROOT:-proto}"
out="${1:-gen}"
bin="${WHIMBREL_BIN:-.venv/bin}"

mapfile -t files < <(cd "$proto" && find whimbrel -name '*.proto' | LC_ALL=C sort)
if ((${#files[@]} == 0)); then
  echo "gen: no proto under $proto/whimbrel" >&2
  exit 1
fi

fresh="$(mktemp -d)"
trap 'rm -rf "$fresh"' EXIT

PATH="$(cd "$bin" && pwd):$PATH" "$bin/python" -m grpc_tools.protoc \
  --proto_path="$proto" \
  --python_out="$fresh" --mypy_out="readable_stubs,quiet:$fresh" \
  --grpc_python_out="$fresh" --mypy_grpc_out="only_async,readable_stubs,quiet:$fresh" \
  "${files[@]}"

# A proto without a service needs no grpc module.
for file in "${files[@]}"; do
  if ! grep -q '^service ' "$proto/$file"; then
    rm -f "$fresh/${file%.proto}"_pb2_grpc.py "$fresh/${file%.proto}"_pb2_grpc.pyi
  fi
done

mkdir -p "$out"
rm -rf "${out:?}/whimbrel"
cp -R "$fresh/whimbrel" "$out/whimbrel"
