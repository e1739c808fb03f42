#!/usr/bin/env bash
# Makes the virtual environment of the parity and throughput scripts, once per user, and prints the
# path of its Python. PERTURB_PARITY_PYTHON set by the user wins.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)

if [ -n "${PERTURB_PARITY_PYTHON:-}" ]; then
    echo "$PERTURB_PARITY_PYTHON"
    exit 0
fi
home="${XDG_CACHE_HOME:-$HOME/.cache}/perturb/parity-venv"
want=$(cksum < "$here/requirements.txt")
if [ "$(cat "$home/.complete" 2>/dev/null)" != "$want" ]; then
    echo "parity: making a virtual environment in $home" >&2
    rm -rf "$home"
    python3 -m venv "$home"
    # The CPU wheels are a tenth of the others, but only PyTorch's own index has them.
    "$home/bin/pip" install --quiet --require-virtualenv --index-url https://download.pytorch.org/whl/cpu \
        --extra-index-url https://pypi.org/simple -r "$here/requirements.txt" >&2 2>/dev/null ||
        "$home/bin/pip" install --quiet --require-virtualenv -r "$here/requirements.txt" >&2
    echo "$want" > "$home/.complete"
fi
echo "$home/bin/python"
