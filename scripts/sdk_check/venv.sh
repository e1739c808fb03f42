#!/usr/bin/env bash
# Makes the virtual environment with Bittensor's official SDK, once per user, and prints the path of its Python.
# PERTURB_SDK_PYTHON set by the user wins.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)

if [ -n "${PERTURB_SDK_PYTHON:-}" ]; then
    echo "$PERTURB_SDK_PYTHON"
    exit 0
fi
home="${XDG_CACHE_HOME:-$HOME/.cache}/perturb/sdk"
want=$(cat "$here/requirements.txt" "$here/constraints.txt" "$0" | cksum)
if [ "$(cat "$home/.complete" 2>/dev/null)" != "$want" ]; then
    python3 -c 'import sys; sys.exit(not (3, 10) <= sys.version_info < (3, 15))' 2>/dev/null || {
        echo "sdk-check: the SDK needs Python 3.10 to 3.14, here is $(python3 --version 2>&1 || true);" \
            "set PERTURB_SDK_PYTHON to one that has scripts/sdk_check/requirements.txt" >&2
        exit 1
    }
    # Debian keeps what `venv` needs in a package of its own.
    if ! python3 -c 'import ensurepip, venv' 2>/dev/null; then
        if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
            echo "sdk-check: python3 cannot make virtual environments; install python3-venv and run again" >&2
            exit 1
        fi
        echo "sdk-check: installing python3-venv" >&2
        apt-get update -qq >&2
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends python3-venv >&2
    fi
    echo "sdk-check: making a virtual environment in $home" >&2
    rm -rf "$home"
    python3 -m venv "$home"
    pip() { "$home/bin/python" -m pip install --quiet --retries 5 --require-virtualenv "$@" >&2; }
    # The SDK and its core by their hashes; then what they depend on, which has one wheel a platform and Python.
    pip --require-hashes --only-binary :all: --no-deps -r "$here/requirements.txt"
    pip --constraint "$here/constraints.txt" bittensor==11.3.0
    "$home/bin/python" -c 'import bittensor'
    echo "$want" > "$home/.complete"
fi
echo "$home/bin/python"
