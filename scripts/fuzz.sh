#!/usr/bin/env bash
# Fuzzes every target of tests/fuzz, or those named, for $1 seconds each: `scripts/fuzz.sh 60 [target…]`.
#
# libFuzzer on the stable toolchain: the passes that cargo-fuzz asks of a nightly compiler are LLVM's
# own. Inputs that reach something new are kept in the build cache and used again; an input that fails
# is written to tests/fuzz/corpus/<target>/, where `make test` runs it from then on.
set -euo pipefail
top=$(cd "$(dirname "$0")/.." && pwd)
seconds=${1:?seconds for each target}
shift

cache=${CARGO_TARGET_DIR:-${XDG_CACHE_HOME:-$HOME/.cache}/perturb/target}/fuzz
host=$(rustc -vV | sed -n 's/^host: //p')
flags="--cfg fuzzing -Cpasses=sancov-module -Ccodegen-units=1"
for pass in level=4 inline-8bit-counters pc-table trace-compares; do
    flags+=" -Cllvm-args=-sanitizer-coverage-$pass"
done
# With a target named, build scripts and macros are not instrumented.
RUSTFLAGS=$flags CARGO_TARGET_DIR=$cache \
    cargo build --release --locked --target "$host" --manifest-path "$top/tests/fuzz/libfuzzer/Cargo.toml"
program=$cache/$host/release/perturb-libfuzzer

targets=("$@")
[ $# -gt 0 ] || mapfile -t targets < <("$program" 2>/dev/null || true)
[ ${#targets[@]} -gt 0 ] || { echo "fuzz: no targets" >&2; exit 1; }

failed=()
printf '%-16s %12s %10s %9s %8s  %s\n' target executions per_second coverage corpus result
for target in "${targets[@]}"; do
    work=$cache/corpus/$target
    kept=$top/tests/fuzz/corpus/$target
    mkdir -p "$work" "$cache/logs" "$kept"
    log=$cache/logs/$target.log
    result=ok
    FUZZ_TARGET=$target FUZZ_SEEDS=$work "$program" "$work" "$kept" -max_total_time="$seconds" \
        -artifact_prefix="$kept/" -print_final_stats=1 -timeout=20 -rss_limit_mb=4096 -max_len=65536 \
        >"$log" 2>&1 || { result="FAILED: $log"; failed+=("$target"); }
    rmdir "$kept" 2>/dev/null || true
    stat() { sed -n "s/^stat::$1: *//p" "$log" | tail -1; }
    cov=$(grep -o 'cov: [0-9]*' "$log" | tail -1 | tr -dc 0-9 || true)
    printf '%-16s %12s %10s %9s %8s  %s\n' "$target" "$(stat number_of_executed_units)" \
        "$(stat average_exec_per_sec)" "${cov:-?}" "$(find "$work" -type f | wc -l)" "$result"
done
if [ ${#failed[@]} -gt 0 ]; then
    echo "fuzz: ${failed[*]}; the inputs are in tests/fuzz/corpus/" >&2
    exit 1
fi
