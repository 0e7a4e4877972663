#!/usr/bin/env bash
# From a bare Debian 12 to a trained head: installs, builds, renders Han characters from font faces, trains SV-AM-Softmax
# on 2 ranks, prints the held-out top-1 and saves a picture. At most 10 minutes on 2 cores.
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

say() { printf '\n== %s (%d s)\n' "$1" "$SECONDS" >&2; }

install=yes
case "${1:-}" in
  "") ;;
  --no-install) install=no ;;
  *) echo "usage: deploy/quickstart.sh [--no-install]" >&2; exit 2 ;;
esac

if [ $install = yes ]; then
  say "installing packages and fonts"
  deploy/install-deps.sh --fonts
fi

say "building the worker"
cmake --preset release -D SHARDMAX_TESTS=OFF >"$(mkdir -p $OUT && echo $OUT)/configure.log" || { cat $OUT/configure.log >&2; exit 1; }
cmake --build --preset release --target shardmax-worker -j "$(nproc)"

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
cp $GLYPHS/glyphs.textproto "$features/"  # Its paths are relative to its own folder.

run=$OUT/run-$(date +%Y%m%d-%H%M%S)
progress=lines
if [ -t 2 ]; then progress=bar; fi  # The worker itself sees mpirun's pipe.
say "training SV-AM-Softmax on $RANKS ranks"
# Root in a container, fewer cores than ranks, and containers without cross-memory attach must all do.
export OMPI_ALLOW_RUN_AS_ROOT=1 OMPI_ALLOW_RUN_AS_ROOT_CONFIRM=1
mpirun -n $RANKS --oversubscribe --bind-to none --mca btl self,vader --mca btl_vader_single_copy_mechanism none \
  build/release/bin/shardmax-worker --job="$features/glyphs.textproto" --output="$run" --progress=$progress

say "drawing the picture"
$PYTHON client/python/examples/plot_job.py "$run"
echo "job folder: $run"
echo "done in $SECONDS s"
