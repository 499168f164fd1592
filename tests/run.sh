#!/bin/sh
# Sets up and passes the tests, against the installed package: sh tests/run.sh [pytest options]
set -eu
cd "$(dirname "$0")/.."
. tests/setup.sh
exec "$venv/bin/pytest" -n auto --dist worksteal "$@"
