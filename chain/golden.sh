#!/usr/bin/env bash
# Fetches the fixture of the golden tests: the official SDK's own recordings (Apache-2.0) of a
# runtime of spec 461, from the source distribution of the Python package bittensor 11.3.0.
# Prints the fixture's path. Quick when it is there already.
set -euo pipefail
version=11.3.0
sha256=8ce05029a712866048c6cf3e3d5df1592ac896175f5b4227f63044b7e7b7edb3
folder=${XDG_CACHE_HOME:-$HOME/.cache}/perturb
fixture=$folder/golden-bittensor-$version.json
if [ ! -s "$fixture" ]; then
    mkdir -p "$folder"
    work=$(mktemp -d "$folder/golden.XXXXXX")
    trap 'rm -rf "$work"' EXIT
    echo "bittensor==$version --hash=sha256:$sha256" > "$work/requirements.txt"
    python3 -m pip download --quiet --retries 5 --no-deps --no-binary :all: --require-hashes \
        --dest "$work" --requirement "$work/requirements.txt" >&2
    tar -xzf "$work/bittensor-$version.tar.gz" -C "$work" "bittensor-$version/tests/fixtures/golden.json"
    # Moved whole: another run may be fetching it at the same time.
    mv "$work/bittensor-$version/tests/fixtures/golden.json" "$fixture"
fi
echo "$fixture"
