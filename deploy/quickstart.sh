#!/usr/bin/env bash
# From a bare Debian 12 to a trained head: installs, builds, renders Han characters from font faces, starts a server and a
# pool of 2 ranks, submits a job that trains SV-AM-Softmax, watches it, prints the held-out top-1, saves a picture, and
# ends the server and the pool. At most 10 minutes on 2 cores.
#
#   deploy/quickstart.sh [--no-install]
#
# Everything lands in build/quickstart. A second call uses the images and features of the first and trains anew.
set -euo pipefail
cd "$(dirname "$0")/.."

readonly CHARACTERS=8000 DIM=128 RANKS=2
readonly OUT=build/quickstart
readonly GLYPHS=client/python/examples/glyphs
readonly PYTHON=.venv/bin/python
readonly BIN=build/release/bin

say() { printf '\n== %s (%d s)\n' "$1" "$SECONDS" >&2; }

# Ends what this script started: the pool leaves first, so that it can say goodbye. An installation is not cut off.
pids=()
fonts=
finish() {
  local pid
  [ -z "$fonts" ] || wait "$fonts" || true
  for pid in "${pids[@]}"; do
    kill -TERM "$pid" 2> /dev/null || true
    wait "$pid" 2> /dev/null || true
  done
}
trap finish EXIT
trap 'exit 130' INT TERM

# Waits until the command succeeds; fails if the process does not run any more.
wait_for() {
  local pid=$1 log=$2
  shift 2
  until "$@" > /dev/null 2>&1; do
    kill -0 "$pid" 2> /dev/null || { cat "$log" >&2; exit 1; }
    sleep 0.1
  done
}

install=yes
case "${1:-}" in
  "") ;;
  --no-install) install=no ;;
  *) echo "usage: deploy/quickstart.sh [--no-install]" >&2; exit 2 ;;
esac

mkdir -p $OUT
if [ $install = yes ]; then
  say "installing packages"
  deploy/install-deps.sh
  # Rendering needs the fonts, the build does not.
  deploy/install-deps.sh --fonts > $OUT/fonts.log 2>&1 &
  fonts=$!
fi

say "building the server, the worker and the command"
cmake --preset release -D SHARDMAX_TESTS=OFF > $OUT/configure.log || { cat $OUT/configure.log >&2; exit 1; }
cmake --build --preset release --target shardmax-server shardmax-worker shardmax -j "$(nproc)"
if [ -n "$fonts" ]; then
  say "installing fonts, the rest of them"
  wait "$fonts" || { cat $OUT/fonts.log >&2; exit 1; }
  fonts=
fi

# The folder's name holds what the files depend on, so that changed code or fonts render anew.
version=$(cat deploy/font-packages.txt $GLYPHS/*.py | sha256sum | cut -c1-12)
images=$OUT/images-$CHARACTERS-$version
features=$OUT/features-$CHARACTERS-$DIM-$version
if [ ! -e "$images/index.json" ]; then
  say "rendering $CHARACTERS characters"
  $PYTHON $GLYPHS/render.py --characters=$CHARACTERS --output="$images"
fi
if [ ! -e "$features/features.json" ]; then
  say "extracting features"
  $PYTHON $GLYPHS/features.py --images="$images" --dim=$DIM --output="$features"
fi

say "starting a server and a pool of $RANKS ranks"
state=$OUT/state-$(date +%Y%m%d-%H%M%S)
mkdir -p "$state"
$BIN/shardmax-server --listen=127.0.0.1:0 --metrics_listen=127.0.0.1:0 --state_dir="$state" --data_root="$features" \
  > "$state/server.txt" 2>&1 &
pids=($!)
wait_for "$!" "$state/server.txt" test -s "$state/server.json"
SHARDMAX_SERVER=$(sed -E 's/.*"listen": ?"([^"]+)".*/\1/' "$state/server.json")
export SHARDMAX_SERVER
# Root in a container, fewer cores than ranks, and containers without cross-memory attach must all do.
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
mpirun -n $RANKS --oversubscribe --bind-to none --mca btl self,vader --mca btl_vader_single_copy_mechanism none \
  $BIN/shardmax-worker --server="$SHARDMAX_SERVER" --pool=quickstart --metrics_port_base=0 > "$state/pool.txt" 2>&1 &
pids=("$!" "${pids[@]}")
pool_is_there() { $BIN/shardmax pools | grep quickstart; }
wait_for "$!" "$state/pool.txt" pool_is_there
$BIN/shardmax pools

say "training SV-AM-Softmax on $RANKS ranks"
$BIN/shardmax submit $GLYPHS/glyphs.textproto --wait

say "drawing the picture"
$BIN/shardmax status glyphs
run=$(ls -d "$state"/jobs/glyphs-*)
$PYTHON client/python/examples/plot_job.py "$run"
echo "job folder: $run"
echo "done in $SECONDS s"
