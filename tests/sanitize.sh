#!/bin/sh
# Passes the kernels' tests against a build with AddressSanitizer and UBSan.
set -eu
cd "$(dirname "$0")/.."
. tests/setup.sh
built=build/sanitized
"$venv/bin/pip" install -q --no-deps --upgrade --target "$built" -C build-dir=build/sanitize \
  -C cmake.define.PYQUANT_SANITIZE=address,undefined .
# libstdc++ too, or the sanitizer does not find what throws exceptions.
runtime="$(g++ -print-file-name=libasan.so) $(g++ -print-file-name=libstdc++.so)"
# Python and Paddle leak at exit, and Paddle frees what another allocator made.
export ASAN_OPTIONS=detect_leaks=0:alloc_dealloc_mismatch=0 UBSAN_OPTIONS=halt_on_error=1
# --capture=sys lets the sanitizers' reports through. Arrays of more than 2^32 values, which would take
# a minute here, are counted without sanitizers: what overflows counts wrong.
PYTHONPATH=$built LD_PRELOAD=$runtime exec "$venv/bin/pytest" -n auto --capture=sys -k "not 32_bits" \
  tests/test_kernels_values.py tests/test_kernels_thresholds.py tests/test_kernels_quantization.py "$@"
