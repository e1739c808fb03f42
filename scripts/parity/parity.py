"""Holds the zoo's networks at their real sizes against timm and torchvision.

For each model: random weights in the library's own file format, one image, logits and input gradient in
float64 and float32 by the library; then the same by our program (`parity` example), which prints relative
L2 errors. float64 must agree to 1e-9; float32 stands beside it: how far each side is from the truth.

usage: parity.py PROGRAM [MODEL…]
"""

import json
import pathlib
import subprocess
import sys
import tempfile

import torch
from safetensors.torch import save_file

from common import FULL, SMALL, cotangent, image, randomise, reference

LIMIT = 1e-9
COLUMNS = ["logits64", "gradient64", "logits32", "gradient32", "theirs_logits32", "theirs_gradient32"]


def one(program, name, case, seed):
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
        done = subprocess.run([program, "compare", name, str(folder)], check=True, capture_output=True, text=True)
        return json.loads(done.stdout)


def main():
    program, wanted = sys.argv[1], sys.argv[2:]
    cases = {**SMALL, **FULL}
    wanted = wanted or list(cases)
    print("| model | " + " | ".join(COLUMNS) + " |")
    print("|---|" + "---:|" * len(COLUMNS))
    failed = []
    for seed, name in enumerate(wanted):
        errors = one(program, name, cases[name], seed)
        print(f"| {name} | " + " | ".join(f"{errors[c]:.1e}" for c in COLUMNS) + " |", flush=True)
        # Written so that a NaN fails.
        if not (errors["logits64"] <= LIMIT and errors["gradient64"] <= LIMIT):
            failed.append(name)
    if failed:
        sys.exit(f"parity: {', '.join(failed)} differ by more than {LIMIT}")
    print(f"\nEvery model agrees in float64 to {LIMIT}. torch {torch.__version__}.")


if __name__ == "__main__":
    main()
