#!/usr/bin/env bash
# Runs wallet.py with the official package: FOLDER to fill, and the example `interop` of perturb-wallet.
# The virtual environment is made once per user; PERTURB_SDK_PYTHON set by the user wins.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
python="${PERTURB_SDK_PYTHON:-}"
if [ -z "$python" ]; then
    home="${XDG_CACHE_HOME:-$HOME/.cache}/perturb/sdk"
    python="$home/bin/python"
    want="bittensor==11.3.0 bittensor-core==0.1.5 pycryptodome==3.24.1"
    if [ "$(cat "$home/.complete" 2>/dev/null)" != "$want" ]; then
        echo "wallet check: making a virtual environment in $home" >&2
        rm -rf "$home"
        python3 -m venv "$home"
        # Word by word: three packages.
        # shellcheck disable=SC2086
        "$home/bin/pip" install --quiet --require-virtualenv $want >&2
        echo "$want" > "$home/.complete"
    fi
fi
exec "$python" "$here/wallet.py" "$@"
