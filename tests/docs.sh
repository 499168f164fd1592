#!/bin/sh
# Builds the site of the docs in build/site; a broken link or reference is an error: sh tests/docs.sh
set -eu
cd "$(dirname "$0")/.."
venv=.venv/docs
[ -x "$venv/bin/pip" ] || "${PYTHON:-python3}" -m venv "$venv"
"$venv/bin/pip" install -q -r docs/requirements.txt
NO_MKDOCS_2_WARNING=1 "$venv/bin/mkdocs" build --quiet
