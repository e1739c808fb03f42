"""Writes model/fixtures/zoo: what timm and torchvision compute in float64 for small networks."""

import base64
import json
import math
import pathlib
import sys

import torch

from common import SMALL, cotangent, image, made_up, randomise, reference

HEIGHT, WIDTH = 26, 34

# Besides, for one network of each kind of resize: pictures that are higher than wide, and pictures that
# become smaller (antialiased). The large ones are noise by a formula, and of their gradient only each so
# many-th value is kept: a prime, so that every channel, row and column has its turn.
SIZES = {
    "small/swin": [(34, 26, 1)],
    "small/tf_efficientnet_b": [(150, 200, 37)],
    "small/tf_efficientnetv2": [(200, 150, 37)],
}


def encode(tensor):
    return base64.b64encode(tensor.contiguous().numpy().tobytes()).decode()


def noise(height, width):
    """The same as in model/src/zoo/tests.rs."""
    shape = (1, 3, height, width)
    bound = math.sqrt(3.0 / math.prod(shape[1:]))
    return ((made_up("noise", shape).double() / bound + 1.0) * 127.5).to(torch.uint8)


def write(out, name, model, state, seed, height, width, stride):
    x = image(height, width, seed) if stride == 1 else noise(height, width)
    direction = cotangent(10 if name.startswith("small/") else 1000, seed)
    logits, gradient = reference(SMALL[name], model, x, direction)
    fixture = {
        "model": name,
        "tensors": [[key, list(value.shape)] for key, value in state.items()],
        "shape": list(x.shape),
        "x": encode(x) if stride == 1 else None,
        "stride": stride,
        "cotangent": encode(direction),
        "logits": encode(logits),
        "gradient": encode(gradient.flatten()[::stride]),
    }
    size = "" if (height, width) == (HEIGHT, WIDTH) else f"-{width}x{height}"
    path = out / (name.replace("/", "-") + size + ".json")
    path.write_text(json.dumps(fixture, separators=(",", ":")) + "\n")
    print(f"{path.name}: {sum(v.numel() for v in state.values())} values, {path.stat().st_size} bytes")


def main():
    torch.set_num_threads(1)
    out = pathlib.Path(sys.argv[1])
    out.mkdir(parents=True, exist_ok=True)
    for seed, (name, case) in enumerate(SMALL.items()):
        model = case.build()
        state = randomise(model)
        for height, width, stride in [(HEIGHT, WIDTH, 1), *SIZES.get(name, [])]:
            write(out, name, model, state, seed, height, width, stride)


main()
