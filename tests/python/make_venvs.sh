#!/bin/bash
# Builds the wheel of client/python and installs it into two environments below FOLDER:
#
#   make_venvs.sh PYTHON FOLDER
#
#   FOLDER/plain  empty before: the newest packages that pip finds, no torch
#   FOLDER/torch  sees the packages of Debian: the oldest that the wheel asks for, and torch
set -euo pipefail
python=$1
folder=$2
source=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)

rm -rf "$folder/source" "$folder/wheel"
mkdir -p "$folder/source/client" "$folder/wheel"
# A copy: setuptools leaves files beside the sources.
cp -r "$source/client/python" "$folder/source/client/python"
cp -r "$source/proto" "$folder/source/proto"
# Copies are as old as the copying, so what an old build left there may seem newer than the sources, and be taken for them.
rm -rf "$folder/source/client/python/build"
pip() { "$python" -m pip -q --disable-pip-version-check "$@"; }
pip wheel --no-deps --no-build-isolation -w "$folder/wheel" "$folder/source/client/python"

twice() { "$@" || { sleep 5; "$@"; }; }
install() { twice "$folder/$1/bin/python" -m pip -q --disable-pip-version-check --timeout 60 install "${@:2}"; }
wheel=$(echo "$folder"/wheel/*.whl)

if [[ ! -x $folder/plain/bin/pytest ]]; then
  "$python" -m venv --clear "$folder/plain"
  install plain "$wheel" pytest safetensors
fi
if [[ ! -x $folder/torch/bin/python ]]; then
  "$python" -m venv --clear --system-site-packages "$folder/torch"
  install torch safetensors
fi
# The wheel alone, which may have changed; what it needs is there, or this fails.
for venv in plain torch; do
  install "$venv" --no-index --force-reinstall --no-deps "$wheel"
  "$folder/$venv/bin/python" -m pip -q --disable-pip-version-check check > /dev/null || {
    [[ $venv == torch ]] || exit 1  # Packages of Debian do not always agree.
  }
  "$folder/$venv/bin/python" -c "import shardmax"
done
