#!/bin/bash
# Checks format and code: tests/lint.sh [format|tidy]…, by default both.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

format() {
  echo "lint: clang-format over every tracked source"
  git ls-files -z '*.h' '*.cc' '*.cu' '*.cuh' | xargs -0 clang-format --dry-run -Werror
}

tidy() {
  # Of its own: it looks at each source by itself, which a build of many sources together does not name.
  local database=build/tidy
  cmake --preset dev -B "$database" -D SHARDMAX_TESTS=OFF > /dev/null
  cmake --build "$database" --target shardmax_proto_sources
  echo "lint: clang-tidy over every tracked source outside tests/, and the headers they include"
  # An absolute path for each: run-clang-tidy takes expressions that match the names in the database.
  git ls-files 'worker/*.cc' 'rpc/*.cc' 'server/*.cc' 'client/*.cc' | sed "s|^|^$PWD/|; s|$|$|" | xargs run-clang-tidy -quiet -p "$database" > "$database/tidy.log" 2>&1 ||
    { grep -E '(error|warning):' -A 4 "$database/tidy.log"; exit 1; }
}

checks=("$@")
[[ $# -gt 0 ]] || checks=(format tidy)
for check in "${checks[@]}"; do
  case $check in
    format | tidy) $check ;;
    *) echo "lint: unknown check $check: use format or tidy" >&2; exit 2 ;;
  esac
done
