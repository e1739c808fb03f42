#!/usr/bin/env bash
# Makes the virtual environment of the Python peers (timm, torchvision, attack libraries), once per
# user, and prints the path of its Python. PERTURB_PYTHON set by the user wins.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)

if [ -n "${PERTURB_PYTHON:-}" ]; then
    echo "$PERTURB_PYTHON"
    exit 0
fi
home="${XDG_CACHE_HOME:-$HOME/.cache}/perturb/python"
want=$(cat "$here/requirements.txt" "$0" | cksum)
if [ "$(cat "$home/.complete" 2>/dev/null)" != "$want" ]; then
    python3 -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || {
        echo "python peers: they need Python 3.11 or newer, here is $(python3 --version 2>&1 || true);" \
            "set PERTURB_PYTHON to one that has scripts/requirements.txt" >&2
        exit 1
    }
    # Debian keeps what `venv` needs in a package of its own.
    if ! python3 -c 'import ensurepip, venv' 2>/dev/null; then
        if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then
            echo "python peers: python3 cannot make virtual environments; install python3-venv and run again" >&2
            exit 1
        fi
        echo "python peers: installing python3-venv" >&2
        apt-get update -qq >&2
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends python3-venv >&2
    fi
    echo "python peers: making a virtual environment in $home" >&2
    rm -rf "$home"
    python3 -m venv "$home"
    pip() { "$home/bin/pip" install --quiet --require-virtualenv "$@" >&2; }
    pip "setuptools<80" wheel
    # The CPU wheels are a tenth of the others, but only PyTorch's own index has them.
    pip --index-url https://download.pytorch.org/whl/cpu torch==2.13.0 torchvision==0.28.0 2>/dev/null ||
        pip torch==2.13.0 torchvision==0.28.0
    # With the environment's own setuptools, not the newest one.
    pip --no-build-isolation -r "$here/requirements.txt"
    pip --no-deps torchattacks==3.5.1
    echo "$want" > "$home/.complete"
fi
echo "$home/bin/python"
