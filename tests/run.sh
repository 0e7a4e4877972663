#!/bin/bash
# Installs what is needed, builds, and runs all tests: tests/run.sh [PRESET…], by default $PRESET or release.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

presets=("$@")
[[ $# -gt 0 ]] || presets=("${PRESET:-release}")

deploy/install-deps.sh --tests

# ThreadSanitizer of GCC 12 does not know the memory layout of kernels that randomise more than 28 bits of it.
without_randomisation() {
  if [[ $(cat /proc/sys/vm/mmap_rnd_bits 2> /dev/null || echo 0) -gt 28 ]]; then setarch -R "$@"; else "$@"; fi
}

for preset in "${presets[@]}"; do
  echo "run: building and testing preset $preset"
  cmake --preset "$preset"
  cmake --build --preset "$preset"
  run=()
  [[ $preset != tsan ]] || run=(without_randomisation)
  "${run[@]}" ctest --preset "$preset"
done
