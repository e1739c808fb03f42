"""The SDK's native core, made to encrypt to the development chain's beacon.

The core (`bittensor_core`, a compiled library) has the public key of drand's quicknet built in and takes no other: the
key stands in it as 192 hexadecimal digits, and neither a function argument nor a variable of the environment changes
it. A development chain has no network to fetch quicknet's signatures from, and nobody but drand's operators can make
them, so commits made with that key could never be opened here. The chain therefore plays a beacon of its own: same
curve, same scheme, same round numbers and times, another key.

What is changed is those 192 digits and nothing else, in a copy of the package that stands before the installed one on
the search path. Everything else the SDK does (quantising, the simulation of epochs, the choice of the round, SCALE,
encryption, signing, the extrinsic) is its own code as published. The installed wheel, which pip checked by its hash,
stays as it is.
"""

from __future__ import annotations

import importlib.util
import shutil
import sys
from pathlib import Path

QUICKNET_KEY = (
    b"83cf0f2896adee7eb8b5f01fcad3912212c437e0073e911fb90022d3e760183c8c4b450b6a0a6c3ac6a5776a2d106451"
    b"0d1fec758c921cc22b0e17e63aaf4bcb5ed66304de9cf809bd274ca73bab4af5a6e9c76a4bc09e76eae8991ef5ece45a"
)


def use_beacon(public_key: str, folder: Path) -> None:
    """Let `import bittensor_core` find a copy in `folder` whose beacon has this key (hexadecimal, 96 bytes)."""
    key = public_key.removeprefix("0x").encode()
    if len(key) != len(QUICKNET_KEY):
        raise SystemExit(f"a beacon's public key has {len(QUICKNET_KEY)} digits, not {len(key)}")
    if "bittensor_core" in sys.modules:
        raise SystemExit("the SDK's core is loaded already")
    spec = importlib.util.find_spec("bittensor_core")
    if spec is None or spec.origin is None:
        raise SystemExit("bittensor_core is not installed")
    copy = folder / "bittensor_core"
    shutil.copytree(Path(spec.origin).parent, copy, ignore=shutil.ignore_patterns("__pycache__"))
    libraries = [*copy.glob("*.so"), *copy.glob("*.pyd"), *copy.glob("*.dylib")]
    found = 0
    for library in libraries:
        content = library.read_bytes()
        found += content.count(QUICKNET_KEY)
        library.write_bytes(content.replace(QUICKNET_KEY, key))
    if found != 1:
        raise SystemExit(f"quicknet's key stands {found} times in {[file.name for file in libraries]}, not once")
    sys.path.insert(0, str(folder))
