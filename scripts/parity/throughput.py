"""Our networks beside PyTorch's own: the same model, weights, batch and threads, in turns.

usage: throughput.py PROGRAM [--batch N] [--threads N] [--rounds N] [MODEL…]
"""

import argparse
import json
import pathlib
import subprocess
import tempfile
import time

import torch
from safetensors.torch import save_file

from common import FULL, randomise


def seconds(run, repeats):
    """The shortest of so many runs after one that does not count: what disturbs a run only lengthens it."""
    run()
    least = float("inf")
    for _ in range(repeats):
        begin = time.perf_counter()
        run()
        least = min(least, time.perf_counter() - begin)
    return least


def theirs(case, model, batch, repeats):
    mean, deviation = (torch.tensor(v).view(1, 3, 1, 1) for v in case.normal)
    x = torch.rand(batch, 3, case.crop, case.crop) * 255

    def forward(x):
        return model((x / 255 - mean) / deviation)

    def backward():
        leaf = x.detach().requires_grad_(True)
        torch.autograd.grad(forward(leaf).sum(), leaf)

    with torch.no_grad():
        plain = seconds(lambda: forward(x), repeats)
    return plain, seconds(backward, repeats)


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("program")
    arguments.add_argument("models", nargs="*")
    arguments.add_argument("--batch", type=int, default=4)
    arguments.add_argument("--threads", type=int, default=1)
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--repeats", type=int, default=3)
    a = arguments.parse_intermixed_args()
    torch.set_num_threads(a.threads)
    print(f"Images a second, batch {a.batch}, {a.threads} threads, torch {torch.__version__}; best runs.\n")
    print("| model | forward: ours | PyTorch | ratio | with gradient: ours | PyTorch | ratio |")
    print("|---|" + "---:|" * 6)
    for name in a.models or list(FULL):
        case = FULL[name]
        model = case.build()
        state = randomise(model)
        # Only the input's gradient is wanted, by them as by us.
        model.requires_grad_(False)
        with tempfile.TemporaryDirectory() as folder:
            save_file({k: v.contiguous() for k, v in state.items()}, pathlib.Path(folder) / "weights.safetensors")
            rounds = []
            for _ in range(a.rounds):
                command = [a.program, "time", name, folder, str(a.batch), str(a.threads), str(a.repeats)]
                ours = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
                rounds.append((ours["forward"], ours["gradient"], *theirs(case, model, a.batch, a.repeats)))
        f, g, tf, tg = (a.batch / min(column) for column in zip(*rounds))
        print(f"| {name} | {f:.2f} | {tf:.2f} | {f / tf:.2f} | {g:.2f} | {tg:.2f} | {g / tg:.2f} |", flush=True)


main()
