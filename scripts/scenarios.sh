#!/usr/bin/env bash
# Plays the named scenarios (all of them), each on a local network of its own, and says how each ended.
# usage: scenarios.sh PERTURB SEED [NAME …]
set -uo pipefail
perturb=$1 seed=$2
shift 2
if [ $# -eq 0 ]; then
    # The program knows its scenarios, and names them to whoever asks for one that it does not have.
    names=$("$perturb" localnet --scenario '?' 2>&1 | sed -n 's/.*\[possible values: \(.*\)\].*/\1/p' | tr -d ,)
    # shellcheck disable=SC2086
    set -- ${names:?"$perturb names no scenarios"}
fi
failed=0
said=$(mktemp)
trap 'rm -f "$said"' EXIT
for name in "$@"; do
    began=$SECONDS
    if "$perturb" localnet --scenario "$name" --seed "$seed" --dir "localnet/$name" >"$said" 2>&1; then
        echo "ok    $name, $((SECONDS - began)) s"
    else
        failed=$((failed + 1))
        echo "FAIL  $name, $((SECONDS - began)) s; the processes' logs are in localnet/$name"
        tail -n 12 "$said"
    fi
done
echo "$(($# - failed)) of $# scenarios ended with the right weights on the chain"
[ "$failed" -eq 0 ]
