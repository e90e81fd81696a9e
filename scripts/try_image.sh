#!/usr/bin/env bash
# Builds the Dockerfile without a container engine and without a registry, as root, with debootstrap
# and buildah of Debian, and asks each service of the image for its settings.
# usage: scripts/try_image.sh DIRECTORY [OPTION OF buildah bud ...]
set -euo pipefail
cd "$(dirname "$0")/.."
directory="$(realpath -m "$1")"
shift
export BUILDAH_ISOLATION=chroot

buildah() { command buildah --root "$directory/store" --runroot "$directory/run" "$@"; }

if [ ! -d "$directory/base/usr" ]; then
  debootstrap --variant=minbase --include=python3,python3-venv,ca-certificates \
    bookworm "$directory/base"
fi
base="$(buildah from scratch)"
buildah add --quiet "$base" "$directory/base" /
buildah commit --quiet --rm "$base" localhost/python:3.11-slim
buildah bud --pull-never --build-arg PYTHON=localhost/python:3.11-slim --tag whimbrel "$@" .
built="$(buildah from --pull-never whimbrel)"
for service in svc_*; do
  buildah run "$built" -- /opt/whimbrel/bin/python -m "$service" settings >/dev/null
  echo "$service: well"
done
