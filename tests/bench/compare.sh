#!/bin/bash
# Runs head_bench beside a PyTorch head, in turns, and writes what docs/performance.md shows: tables and pictures.
#
#   tests/bench/compare.sh FOLDER [CLASSES…]        (default: 100000 400000 1000000)
#
# FOLDER gets a file of JSON for each run, table.md and ranks.md, step_time.svg, memory.svg and over_ranks.svg. A run that is there is not run again.
# STEPS (default 5), ROUNDS (default 3) and LOSSES (default "SV_AM_SOFTMAX ARC_SOFTMAX") can be set. It can be killed and
# started again, so a machine that is free for minutes only will do. One million classes take PyTorch 17 GB of memory.
set -euo pipefail
folder=$1
shift
classes=("$@")
[[ $# -gt 0 ]] || classes=(100000 400000 1000000)
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
python="$here/../../.venv/bin/python"
mkdir -p "$folder"

# A fair peer: memory that PyTorch frees stays with it, large blocks get huge pages, and no preset of the processor.
tuned=(env -u OPENBLAS_CORETYPE MALLOC_TRIM_THRESHOLD_=68719476736 MALLOC_MMAP_THRESHOLD_=68719476736
  GLIBC_TUNABLES=glibc.malloc.hugetlb=1 THP_MEM_ALLOC_ENABLE=1)

# once FILE COMMAND…: runs it into FILE unless that is there.
once() {
  local file=$1
  shift
  [[ -s $file ]] && return
  echo "compare: $*" >&2
  "$@" > "$file.part" && mv "$file.part" "$file" || { echo "compare: failed: $*" >&2; rm -f "$file.part"; }
}

for c in "${classes[@]}"; do
  for round in $(seq "${ROUNDS:-3}"); do
    for loss in ${LOSSES:-SV_AM_SOFTMAX ARC_SOFTMAX}; do
      for precision in FLOAT32 BFLOAT16; do
        common=("--classes=$c" "--precision=$precision" "--loss=$loss" "--steps=${STEPS:-5}")
        name="$folder/$loss-$precision-$c-$round"
        keep=KEEP_FLOAT32
        [[ $precision == BFLOAT16 ]] && keep=KEEP_INT16
        once "$name-keep-1.json" "$here/head_bench" "${common[@]}" --cosines=$keep --ranks=1 --threads=2 --json
        once "$name-torch-1.json" "${tuned[@]}" "$python" "$here/torch_head.py" "${common[@]}"
        once "$name-recompute-1.json" "$here/head_bench" "${common[@]}" --cosines=RECOMPUTE --ranks=1 --threads=2 --json
        once "$name-keep-2.json" "$here/head_bench" "${common[@]}" --cosines=$keep --ranks=2 --threads=1 --json
      done
    done
  done
done
"$python" "$here/compare_report.py" "$folder"
