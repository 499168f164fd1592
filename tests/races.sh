#!/bin/sh
# Runs every kernel of every instruction set under ThreadSanitizer, with several callers at once, on
# the kernels' own threads: an OpenMP runtime is not compiled with it.
set -eu
cd "$(dirname "$0")/.."
mkdir -p build
cmake -S . -B build/races -DPYQUANT_DIGEST=ON -DPYQUANT_SANITIZE=thread >build/races.log
cmake --build build/races -j2 >>build/races.log
TSAN_OPTIONS=halt_on_error=1 build/races/pyquant_digest 1409
