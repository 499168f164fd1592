#!/bin/sh
# Builds the kernels for this processor and, with a cross compiler, for arm64; runs both, the latter
# under emulation, and compares what comes out. Debian: g++-aarch64-linux-gnu, qemu-user-static.
set -eu
cd "$(dirname "$0")/../.."

build() { # directory, cmake options
  directory=$1
  shift
  cmake -S . -B "$directory" -DPYQUANT_DIGEST=ON -DPYQUANT_WERROR=ON "$@" >"$directory.log"
  cmake --build "$directory" -j2 >>"$directory.log"
}

mkdir -p build
build build/digest
build/digest/pyquant_digest >build/digest.txt
build build/digest-arm64 -DCMAKE_SYSTEM_NAME=Linux -DCMAKE_SYSTEM_PROCESSOR=aarch64 \
  -DCMAKE_CXX_COMPILER=aarch64-linux-gnu-g++
qemu-aarch64-static -L /usr/aarch64-linux-gnu build/digest-arm64/pyquant_digest \
  >build/digest-arm64.txt
diff build/digest.txt build/digest-arm64.txt
