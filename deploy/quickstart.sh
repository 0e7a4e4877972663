#!/usr/bin/env bash
# From a bare Debian 12 to a face-recognition training in small: installs, builds, renders Han characters from font faces,
# starts a server and a pool of 2 ranks, trains a CNN in PyTorch with its SV-AM-Softmax head in the pool, asks the pool how
# well it tells characters apart that it has never seen, saves pictures, and ends the server and the pool. At most 10
# minutes on 2 cores.
#
#   deploy/quickstart.sh [--no-install]
#
# Everything lands in build/quickstart. A second call uses the images of the first and trains anew.
set -euo pipefail
cd "$(dirname "$0")/.."

readonly CHARACTERS=4000 UNSEEN=2000 FACES=15 EPOCHS=3 RANKS=2
readonly OUT=build/quickstart
readonly EXAMPLES=client/python/examples
readonly PYTHON=.venv/bin/python
readonly BIN=build/release/bin

say() { printf '\n== %s (%d s)\n' "$1" "$SECONDS" >&2; }

# Ends what this script started: the pool leaves first, so that it can say goodbye. An installation is not cut off.
pids=()
later=
finish() {
  local pid
  [ -z "$later" ] || wait "$later" || true
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
  # The build needs neither fonts nor PyTorch.
  deploy/install-deps.sh --fonts --torch > $OUT/later.log 2>&1 &
  later=$!
fi

say "building the server, the worker and the command"
cmake --preset release -D SHARDMAX_TESTS=OFF > $OUT/configure.log || { cat $OUT/configure.log >&2; exit 1; }
cmake --build --preset release --target shardmax-server shardmax-worker shardmax -j "$(nproc)"
if [ -n "$later" ]; then
  say "installing fonts and PyTorch, the rest of them"
  wait "$later" || { cat $OUT/later.log >&2; exit 1; }
  later=
fi
say "installing the Python package"
$PYTHON -m pip install -q --disable-pip-version-check --no-deps --no-build-isolation --force-reinstall ./client/python

# The folder's name holds what the files depend on, so that changed code or fonts render anew.
version=$(cat deploy/font-packages.txt $EXAMPLES/glyphs/{render,faces,rules}.py | sha256sum | cut -c1-12)
images=$OUT/images-$((CHARACTERS + UNSEEN))-$version
if [ ! -e "$images/index.json" ]; then
  say "rendering $((CHARACTERS + UNSEEN)) characters"
  $PYTHON $EXAMPLES/glyphs/render.py --characters=$((CHARACTERS + UNSEEN)) --output="$images"
fi

say "starting a server and a pool of $RANKS ranks"
state=$OUT/state-$(date +%Y%m%d-%H%M%S)
run=$OUT/run
rm -rf $run
mkdir -p "$state" $run
$BIN/shardmax-server --listen=127.0.0.1:0 --metrics_listen=127.0.0.1:0 --state_dir="$state" --data_root=$run \
  > "$state/server.txt" 2>&1 &
pids=($!)
wait_for "$!" "$state/server.txt" test -s "$state/server.json"
SHARDMAX_SERVER=$(sed -E 's/.*"listen": ?"([^"]+)".*/\1/' "$state/server.json")
export SHARDMAX_SERVER
# Root in a container, fewer cores than ranks, and containers without cross-memory attach must all do.
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
# Collecting the messages of ranks that abort together, mpirun 4.1 may crash.
export OMPI_MCA_orte_base_help_aggregate=0
mpirun -n $RANKS --oversubscribe --bind-to none --mca btl self,vader --mca btl_vader_single_copy_mechanism none \
  $BIN/shardmax-worker --server="$SHARDMAX_SERVER" --pool=quickstart --metrics_port_base=0 > "$state/pool.txt" 2>&1 &
pids=("$!" "${pids[@]}")
pool_is_there() { $BIN/shardmax pools | grep quickstart; }
wait_for "$!" "$state/pool.txt" pool_is_there
$BIN/shardmax pools

say "training a CNN on $CHARACTERS characters in $FACES faces, its SV-AM-Softmax head on $RANKS ranks"
$PYTHON $EXAMPLES/glyphs/train_backbone.py --images="$images" --output=$run --server="$SHARDMAX_SERVER" \
  --loss=SV_AM_SOFTMAX --characters=$CHARACTERS --unseen=$UNSEEN --faces=$FACES --epochs=$EPOCHS
$BIN/shardmax list

say "drawing pictures"
$PYTHON $EXAMPLES/plot_job.py $run --output=$run/curves.png
$PYTHON $EXAMPLES/plot_evaluation.py $run/identification --output=$run/roc.png
$PYTHON $EXAMPLES/glyphs/confusions.py $run --images="$images"
echo "weights, embeddings, results and pictures: $run"
echo "done in $SECONDS s"
