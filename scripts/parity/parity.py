"""Holds the zoo's networks at their real sizes against timm and torchvision.

For each model: random weights in the library's own file format, one image, logits and input gradient in
float64 and float32 by the library; then the same by our program (`parity` example), which prints relative
L2 errors. float64 must agree to 1e-9; float32 stands beside it: how far each side is from the truth.

usage: parity.py PROGRAM [--device cpu|cuda|cuda:N] [MODEL…]

The device is our program's; the library's reference is computed on the CPU.
"""

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile
import zlib

import torch
from safetensors.torch import save_file

from common import FULL, SMALL, cotangent, image, randomise, reference

LIMIT = 1e-9
COLUMNS = ["logits64", "gradient64", "logits32", "gradient32", "theirs_logits32", "theirs_gradient32"]


def one(program, name, case, device):
    # By the name: a model is asked about the same picture whichever others are.
    seed = zlib.crc32(name.encode())
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        model = case.build()
        state = randomise(model)
        save_file({k: v.contiguous() for k, v in state.items()}, folder / "weights.safetensors")
        x = image(375, 500, seed)
        classes = 10 if name.startswith("small/") else 1000
        direction = cotangent(classes, seed)
        logits32, gradient32 = reference(case, model.float(), x, direction.float())
        logits, gradient = reference(case, model.double(), x, direction)
        save_file(
            {
                "x": x.double(),
                "cotangent": direction,
                "logits": logits,
                "gradient": gradient,
                "logits32": logits32.double(),
                "gradient32": gradient32.double(),
            },
            folder / "reference.safetensors",
        )
        del model, state
        command = [program, "compare", name, str(folder), device]
        return json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("program")
    arguments.add_argument("models", nargs="*")
    arguments.add_argument("--device", default="cpu")
    a = arguments.parse_intermixed_args()
    cases = {**SMALL, **FULL}
    print("| model | " + " | ".join(COLUMNS) + " |")
    print("|---|" + "---:|" * len(COLUMNS))
    failed = []
    for name in a.models or list(cases):
        errors = one(a.program, name, cases[name], a.device)
        print(f"| {name} | " + " | ".join(f"{errors[c]:.1e}" for c in COLUMNS) + " |", flush=True)
        # Written so that a NaN fails.
        if not (errors["logits64"] <= LIMIT and errors["gradient64"] <= LIMIT):
            failed.append(name)
    if failed:
        sys.exit(f"parity: {', '.join(failed)} differ by more than {LIMIT}")
    print(f"\nEvery model agrees in float64 to {LIMIT}. torch {torch.__version__}.")


if __name__ == "__main__":
    main()
