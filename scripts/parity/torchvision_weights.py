"""Fetches torchvision's own weights, checks them against the digest in their name, and writes the
safetensors file that `perturb model verify` and the validator take. Without FILE it goes where the
validator looks for the weights that its network agreed on.

usage: torchvision_weights.py efficientnet_v2_l.imagenet1k_v1 [FILE]
"""

import hashlib
import os
import pathlib
import sys

import torchvision
from safetensors.torch import save_file


def usual(name):
    """The same as in model/src/hub/cache.rs."""
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return pathlib.Path(cache).expanduser() / "perturb" / "weights" / f"{name}.safetensors"


def main():
    name, *out = sys.argv[1:]
    out = pathlib.Path(out[0]) if out else usual(name)
    model, _, weights = name.partition(".")
    weights = torchvision.models.get_model_weights(model)[weights.upper()]
    # check_hash: the file's name ends with the beginning of its SHA-256.
    state = weights.get_state_dict(progress=True, check_hash=True, weights_only=True)
    out.parent.mkdir(parents=True, exist_ok=True)
    save_file({key: value.contiguous() for key, value in state.items()}, out)
    with out.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    print(f"wrote {out}: {len(state)} tensors, SHA-256 {digest}; now: perturb model verify {name} {out}")


main()
