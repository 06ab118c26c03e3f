#!/usr/bin/env bash
# Installs what this machine lacks: `setup.sh build` for compiling Petrel, `setup.sh test` for the interoperability tests,
# `setup.sh instructions` for counting instructions.
# Uses apt as root or with password-free sudo; otherwise it says in one line which packages to install.
set -euo pipefail

cache="${XDG_CACHE_HOME:-$HOME/.cache}/petrel"
what="${1:-build}"

has() { command -v "$1" >/dev/null 2>&1; }

has_libclang() {
    [ -n "${LIBCLANG_PATH:-}" ] && return 0
    # Not libclang-cpp, which many systems have and which bindgen cannot use.
    { ldconfig -p 2>/dev/null || /sbin/ldconfig -p 2>/dev/null; } | grep -qE 'libclang(-[0-9]+)?\.so' && return 0
    compgen -G '/usr/lib/llvm-*/lib/libclang.so*' >/dev/null || compgen -G '/usr/lib/llvm-*/lib/libclang-[0-9]*.so*' >/dev/null
}

# Installs the packages named, or explains what is missing and why. $1 is "required" or "optional".
install() {
    local need="$1" apt=()
    shift
    if [ "$#" -eq 0 ]; then return 0; fi
    if has apt-get; then
        if [ "$(id -u)" -eq 0 ]; then apt=(apt-get)
        elif has sudo && sudo -n true 2>/dev/null; then apt=(sudo -n apt-get)
        fi
    fi
    if [ "${#apt[@]}" -gt 0 ]; then
        echo "setup: installing $*" >&2
        export DEBIAN_FRONTEND=noninteractive
        if "${apt[@]}" install -y --no-install-recommends "$@" >/dev/null 2>&1 \
            || { "${apt[@]}" update >/dev/null && "${apt[@]}" install -y --no-install-recommends "$@" >/dev/null; }; then
            return 0
        fi
    fi
    echo "setup: please install these packages and run again: $*  (Debian, Ubuntu: sudo apt-get install $*)" >&2
    [ "$need" = optional ]
}

build() {
    local missing=()
    has_libclang || missing+=(libclang-dev)
    has c++ || has g++ || has clang++ || missing+=(g++)
    has make || missing+=(make) # the allocator is built with it
    install required "${missing[@]}"
    has cargo || { echo "setup: Rust is missing; see https://rustup.rs" >&2; exit 1; }
}

tests() {
    local missing=()
    has mosquitto_pub || missing+=(mosquitto-clients)
    has mosquitto || [ -x /usr/sbin/mosquitto ] || missing+=(mosquitto)
    has python3 || missing+=(python3)
    python3 -c 'import venv, ensurepip' 2>/dev/null || missing+=(python3-venv)
    has npm || missing+=(npm)
    install optional "${missing[@]}"
    mkdir -p "$cache/interop"
    if [ ! -x "$cache/interop/venv/bin/python" ] && has python3; then
        python3 -m venv "$cache/interop/venv" || echo "setup: no Python environment, paho-mqtt is left out" >&2
    fi
    if [ -x "$cache/interop/venv/bin/python" ] \
        && ! "$cache/interop/venv/bin/python" -c 'import paho.mqtt' 2>/dev/null; then
        "$cache/interop/venv/bin/pip" install --quiet --disable-pip-version-check 'paho-mqtt==2.1.0' \
            || echo "setup: paho-mqtt could not be installed" >&2
    fi
    if [ ! -d "$cache/interop/node_modules/mqtt" ] && has npm; then
        npm install --silent --no-fund --no-audit --prefix "$cache/interop" mqtt@5 >/dev/null \
            || echo "setup: mqtt.js could not be installed" >&2
    fi
}

# Whether it can be done without is for scripts/instructions.py to say.
instructions() {
    local missing=()
    has valgrind || missing+=(valgrind)
    has python3 || missing+=(python3)
    install optional "${missing[@]}"
}

case "$what" in
    build) build ;;
    test) tests ;;
    instructions) instructions ;;
    *) echo "usage: setup.sh build|test|instructions" >&2; exit 2 ;;
esac
