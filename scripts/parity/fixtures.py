"""Writes model/fixtures/zoo: what timm and torchvision compute in float64 for small networks."""

import base64
import json
import pathlib
import sys

import torch

from common import SMALL, cotangent, image, randomise, reference

HEIGHT, WIDTH = 26, 34


def encode(tensor):
    return base64.b64encode(tensor.contiguous().numpy().tobytes()).decode()


def main():
    torch.set_num_threads(1)
    out = pathlib.Path(sys.argv[1])
    out.mkdir(parents=True, exist_ok=True)
    for seed, (name, case) in enumerate(SMALL.items()):
        model = case.build()
        state = randomise(model)
        x = image(HEIGHT, WIDTH, seed)
        direction = cotangent(10 if name.startswith("small/") else 1000, seed)
        logits, gradient = reference(case, model, x, direction)
        fixture = {
            "model": name,
            "tensors": [[key, list(value.shape)] for key, value in state.items()],
            "shape": list(x.shape),
            "x": encode(x),
            "cotangent": encode(direction),
            "logits": encode(logits),
            "gradient": encode(gradient),
        }
        path = out / (name.replace("/", "-") + ".json")
        path.write_text(json.dumps(fixture, separators=(",", ":")) + "\n")
        print(f"{name}: {sum(v.numel() for v in state.values())} values, {path.stat().st_size} bytes")


main()
