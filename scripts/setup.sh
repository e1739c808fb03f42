#!/usr/bin/env bash
# Installs what is missing on a fresh machine. Assumes a Rust toolchain, Python 3 with pip, a C
# compiler and apt. Does nothing, quickly, where everything is there.
set -euo pipefail
top=$(cd "$(dirname "$0")/.." && pwd)

need=()
# RocksDB's bindings are generated with libclang; its C++ needs a compiler.
has_libclang() {
    local at
    for at in '/usr/lib/llvm-*/lib' '/usr/lib/*'; do
        compgen -G "$at/libclang.so*" || compgen -G "$at/libclang-[0-9]*.so*" || continue
        return 0
    done
    return 1
}
has_libclang >/dev/null || need+=(libclang-dev clang)
command -v c++ >/dev/null || need+=(g++)
command -v make >/dev/null || need+=(make)
if [ ${#need[@]} -gt 0 ]; then
    echo "setup: installing ${need[*]}"
    as_root=()
    [ "$(id -u)" = 0 ] || as_root=(sudo)
    command -v apt-get >/dev/null || { echo "setup: apt-get is not here; install ${need[*]} yourself" >&2; exit 1; }
    "${as_root[@]}" apt-get update -qq
    "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends "${need[@]}" >/dev/null
fi

command -v cargo >/dev/null || { echo "setup: no Rust toolchain; install one (rustup) and run again" >&2; exit 1; }
cargo nextest --version >/dev/null 2>&1 || { echo "setup: installing cargo-nextest"; cargo install --locked --quiet cargo-nextest; }

"$top/scripts/libtorch.sh"
