#!/bin/bash
# Installs what shardmax needs on Debian 12, and makes .venv. Does nothing, in a second, when all is there.
#
#   deploy/install-deps.sh [--tests] [--torch] [--fonts]
#
#   --tests  also what only the tests and the lint need, and PyTorch
#   --torch  also PyTorch, for examples that train a backbone
#   --fonts  also the fonts of the glyph dataset: deploy/font-packages.txt
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

BUILD_PACKAGES=(
  g++ cmake ninja-build ccache pkg-config git ca-certificates
  libprotobuf-dev protobuf-compiler libgrpc++-dev protobuf-compiler-grpc libabsl-dev libfmt-dev libspdlog-dev libcli11-dev nlohmann-json3-dev
  libopenmpi-dev openmpi-bin openssh-client  # mpirun wants an ssh, even on one machine.
  libdnnl-dev ocl-icd-opencl-dev  # The CMake package of oneDNN asks for OpenCL.
  libhwy-dev libxxhash-dev libsqlite3-dev libssl-dev prometheus-cpp-dev
  libcairo2-dev fonts-dejavu-core  # Pictures of `shardmax plot`, and letters in them.
)
PYTHON_PACKAGES=(
  python3-venv python3-pip python3-numpy python3-skimage python3-matplotlib python3-freetype python3-fonttools
  python3-pil python3-tqdm
  libopenblas0-pthread  # Else numpy multiplies with the reference BLAS, and extracting features takes minutes.
)
TORCH_PACKAGES=(python3-torch)
TEST_PACKAGES=(
  "${TORCH_PACKAGES[@]}" libgtest-dev libgmock-dev
  python3-sklearn python3-pytest clang libclang-rt-14-dev clang-format clang-tidy xxhash openssl zsh fish
  libomp-dev  # The <omp.h> that clang-tidy reads.
  prometheus systemd python3-yaml  # promtool and systemd-analyze check deploy/.
  python3-grpcio python3-protobuf  # Tests are a client that shares no code with ours.
)

say() { echo "install-deps: $*"; }

as_root() {
  if [[ $(id -u) == 0 ]]; then
    "$@"
  elif command -v sudo > /dev/null; then
    sudo "$@"
  else
    say "cannot install: not root, and there is no sudo. Run as root: $*" >&2
    return 1
  fi
}

# Runs a command that uses the network, once more if it fails.
twice() {
  "$@" && return
  say "failed, trying once more: $*" >&2
  sleep 5
  "$@"
}

missing_packages() {
  local package
  for package in "$@"; do
    [[ $(dpkg-query -W -f='${db:Status-Status}' "$package" 2> /dev/null) == installed ]] || echo "$package"
  done
}

install_packages() {
  local missing
  mapfile -t missing < <(missing_packages "$@")
  if [[ ${#missing[@]} == 0 ]]; then
    say "all $# Debian packages are installed"
    return
  fi
  say "installing ${#missing[@]} of $# Debian packages: ${missing[*]}"
  twice as_root apt-get update -q
  twice as_root env DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends "${missing[@]}"
}

# Whether .venv runs and has every package of requirements.txt in its version.
venv_is_current() {
  [[ -x .venv/bin/python ]] && .venv/bin/python - deploy/requirements.txt << 'EOF'
import sys
from importlib.metadata import PackageNotFoundError, version

for line in open(sys.argv[1]):
    name, _, wanted = line.partition("#")[0].strip().partition("==")
    try:
        if name and version(name) != wanted:
            sys.exit(1)
    except PackageNotFoundError:
        sys.exit(1)
EOF
}

make_venv() {
  if venv_is_current; then
    say ".venv is up to date"
    return
  fi
  say "making .venv"
  # Debian's own Python: packages of apt are for that one.
  /usr/bin/python3 -m venv --clear --system-site-packages .venv
  twice .venv/bin/python -m pip install -q --disable-pip-version-check --timeout 60 -r deploy/requirements.txt
}

command -v apt-get > /dev/null || { say "this is not Debian: install the packages that $0 names by hand" >&2; exit 1; }

packages=("${BUILD_PACKAGES[@]}" "${PYTHON_PACKAGES[@]}")
for option in "$@"; do
  case $option in
    --tests) packages+=("${TEST_PACKAGES[@]}") ;;
    --torch) packages+=("${TORCH_PACKAGES[@]}") ;;
    --fonts) mapfile -t -O "${#packages[@]}" packages < <(grep -vE '^[[:space:]]*(#|$)' deploy/font-packages.txt) ;;
    *) say "unknown option $option: use any of --tests, --torch, --fonts" >&2; exit 2 ;;
  esac
done
install_packages "${packages[@]}"
make_venv
