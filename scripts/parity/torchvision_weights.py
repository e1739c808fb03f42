"""Fetches torchvision's own weights, checks them against the digest in their name, and writes the
safetensors file that `perturb model verify` and the validator take.

usage: torchvision_weights.py efficientnet_v2_l.imagenet1k_v1 FILE
"""

import sys

import torchvision
from safetensors.torch import save_file


def main():
    name, out = sys.argv[1:]
    model, _, weights = name.partition(".")
    weights = torchvision.models.get_model_weights(model)[weights.upper()]
    # check_hash: the file's name ends with the beginning of its SHA-256.
    state = weights.get_state_dict(progress=True, check_hash=True, weights_only=True)
    save_file({key: value.contiguous() for key, value in state.items()}, out)
    print(f"wrote {out}: {len(state)} tensors; now: perturb model verify {name} {out}")


main()
