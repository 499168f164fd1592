#!/bin/sh
# Sets up and quantizes PP-OCRv4 recognition in both modes: sh bench/ocr.sh [options, see --help]
set -eu
cd "$(dirname "$0")/.."
. tests/setup.sh
exec "$venv/bin/python" -m bench.ocr "$@"
