#!/usr/bin/env bash
# Makes a CPU libtorch of 0.5 GB out of the torch wheel, once per user, and links
# .libtorch in the checkout to it. LIBTORCH set by the user wins: then nothing is done.
#
# The wheel's own libtorch.so pulls in libtorch_cuda (5 GB more), so a stub that links
# only libtorch_cpu and libc10 takes its place. libtorch_cpu itself wants the CUDA
# runtime and CUPTI, which come from two small wheels.
set -euo pipefail

TORCH=2.13.0
CUDART=13.0.96
CUPTI=13.0.85

if [ -n "${LIBTORCH:-}" ]; then
    [ -e "$LIBTORCH/lib/libtorch_cpu.so" ] && exit 0
    echo "libtorch: LIBTORCH is set to $LIBTORCH, but lib/libtorch_cpu.so is not there; unset it or point it at a libtorch $TORCH" >&2
    exit 1
fi

top=$(cd "$(dirname "$0")/.." && pwd)
cache="${XDG_CACHE_HOME:-$HOME/.cache}/perturb"
home="$cache/libtorch-$TORCH-cpu"

if [ ! -e "$home/.complete" ]; then
    echo "libtorch: fetching torch $TORCH (CPU part) into $home"
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    case "$(uname -m)" in
        x86_64) ;;
        *) echo "libtorch: no pinned wheel for $(uname -m); set LIBTORCH to a libtorch $TORCH of your own" >&2; exit 1 ;;
    esac
    # One wheel for every Python: only the shared libraries in it are used.
    python3 -m pip download --quiet --no-deps --require-hashes --only-binary=:all: \
        --python-version 3.11 --implementation cp --abi cp311 --abi none \
        --platform manylinux_2_28_x86_64 --platform manylinux_2_25_x86_64 --platform manylinux2014_x86_64 \
        --dest "$work/wheels" -r "$top/scripts/libtorch.txt"
    mkdir -p "$work/out/lib"
    python3 - "$work/wheels" "$work/out" <<'PY'
import pathlib, shutil, sys, zipfile
wheels, out = map(pathlib.Path, sys.argv[1:])
wanted = {"libtorch_cpu.so", "libc10.so", "libgomp.so.1", "libcudart.so.13", "libcupti.so.13"}
found = set()
for wheel in wheels.glob("*.whl"):
    with zipfile.ZipFile(wheel) as z:
        for name in z.namelist():
            base = name.rsplit("/", 1)[-1]
            if base in wanted:
                target = out / "lib" / base
                found.add(base)
            elif name.startswith("torch/include/") and not name.endswith("/"):
                target = out / name[len("torch/"):]
            else:
                continue
            target.parent.mkdir(parents=True, exist_ok=True)
            with z.open(name) as src, open(target, "wb") as dst:
                shutil.copyfileobj(src, dst, 1 << 20)
missing = wanted - found
if missing:
    sys.exit(f"libtorch: the wheels lack {sorted(missing)}")
PY
    "${CC:-cc}" -shared -fPIC -x c /dev/null -o "$work/out/lib/libtorch.so" \
        -Wl,-soname,libtorch.so -Wl,--no-as-needed -L"$work/out/lib" -ltorch_cpu -lc10 \
        -Wl,-rpath,'$ORIGIN' -Wl,--allow-shlib-undefined
    echo "$TORCH" > "$work/out/build-version"
    touch "$work/out/.complete"
    mkdir -p "$cache"
    rm -rf "$home"
    mv "$work/out" "$home"
fi
ln -sfn "$home" "$top/.libtorch"
