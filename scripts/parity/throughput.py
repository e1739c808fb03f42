"""Our networks beside PyTorch's own: the same model, weights, batch, threads and device, in turns.
Fails where ours is slower than nine tenths of PyTorch's speed, in either column.

usage: throughput.py PROGRAM [--batch N] [--threads N] [--rounds N] [--repeats N] [--device D] [MODEL…]
"""

import argparse
import json
import pathlib
import subprocess
import sys
import tempfile
import time

import torch
from safetensors.torch import save_file

from common import FULL, randomise

# What is accepted: ours over theirs.
LEAST = 0.9


def seconds(run, repeats):
    """The shortest of so many runs after one that does not count: what disturbs a run only lengthens it."""
    run()
    least = float("inf")
    for _ in range(repeats):
        begin = time.perf_counter()
        run()
        least = min(least, time.perf_counter() - begin)
    return least


def theirs(case, model, batch, repeats, device):
    mean, deviation = (torch.tensor(v, device=device).view(1, 3, 1, 1) for v in case.normal)
    x = torch.rand(batch, 3, case.crop, case.crop, device=device) * 255

    def wait():
        if x.is_cuda:
            torch.cuda.synchronize(x.device)

    def forward(x):
        return model((x / 255 - mean) / deviation)

    def plain():
        with torch.no_grad():
            forward(x)
        wait()

    def backward():
        leaf = x.detach().requires_grad_(True)
        torch.autograd.grad(forward(leaf).sum(), leaf)
        wait()

    return seconds(plain, repeats), seconds(backward, repeats)


def main():
    arguments = argparse.ArgumentParser()
    arguments.add_argument("program")
    arguments.add_argument("models", nargs="*")
    arguments.add_argument("--batch", type=int, default=4)
    arguments.add_argument("--threads", type=int, default=1)
    arguments.add_argument("--rounds", type=int, default=3)
    arguments.add_argument("--repeats", type=int, default=3)
    arguments.add_argument("--device", default="cpu")
    a = arguments.parse_intermixed_args()
    torch.set_num_threads(a.threads)
    print(f"Images a second, batch {a.batch}, {a.threads} threads, {a.device}, torch {torch.__version__}; best runs.\n")
    print("| model | forward: ours | PyTorch | ratio | with gradient: ours | PyTorch | ratio |")
    print("|---|" + "---:|" * 6)
    slow = []
    for name in a.models or list(FULL):
        case = FULL[name]
        model = case.build()
        state = randomise(model)
        # Only the input's gradient is wanted, by them as by us.
        model.requires_grad_(False)
        model.to(a.device)
        with tempfile.TemporaryDirectory() as folder:
            save_file({k: v.contiguous() for k, v in state.items()}, pathlib.Path(folder) / "weights.safetensors")
            rounds = []
            for _ in range(a.rounds):
                sizes = [str(number) for number in (a.batch, a.threads, a.repeats)]
                command = [a.program, "time", name, folder, a.device, *sizes]
                ours = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
                rounds.append((ours["forward"], ours["gradient"], *theirs(case, model, a.batch, a.repeats, a.device)))
        f, g, tf, tg = (a.batch / min(column) for column in zip(*rounds))
        print(f"| {name} | {f:.2f} | {tf:.2f} | {f / tf:.2f} | {g:.2f} | {tg:.2f} | {g / tg:.2f} |", flush=True)
        # Written so that a NaN fails.
        if not (f / tf >= LEAST and g / tg >= LEAST):
            slow.append(name)
    if slow:
        sys.exit(f"throughput: {', '.join(slow)} below {LEAST} of PyTorch's")
    print(f"\nEvery model has at least {LEAST} of PyTorch's speed.")


main()
