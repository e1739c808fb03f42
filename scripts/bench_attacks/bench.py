"""Our attack beside its peers: same weights, same PNGs, same threads and batch size.

Every peer runs with each of its settings; those inside a ball run at rising levels, and an image that flipped at one
is left out of the next. What comes back is rounded to 8 bits, to the nearest level and away from the clean image, and
both go through the network's own verifier (`perturb score --pairs`); the better one counts. The time is the
attack's alone, shared out evenly over the images, and what an image costs that is never flipped at any level counts
too. A peer's row is its best setting by mean score.
"""

import argparse
import hashlib
import json
import pathlib
import subprocess
import sys
import tempfile
import time
import warnings

import numpy as np
import torch
from PIL import Image

import models
import peers

PRESETS = ("subnet", "whitepaper")
OURS = ("ours", "baseline", "pgd", "apgd-ce", "apgd-dlr", "apgd-t", "deepfool", "fmn", "fab-t")
# The levels that count, by the rules' largest norm.
HIGHEST = {"subnet": 7, "whitepaper": 15}
LEVELS = range(1, max(HIGHEST.values()) + 1)
SIDE = 64
TRAIN_SEED, BENCH_SEED = 0x7065_7274_7572_6201, 0x7065_7274_7572_6203


class Tap(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x, counter):
        ctx.counter = counter
        return x.view_as(x)

    @staticmethod
    def backward(ctx, gradient):
        ctx.counter.backwards += len(gradient)
        return gradient, None


class Counted(torch.nn.Module):
    """A model over 0..1 that counts the images of its passes."""

    def __init__(self, model):
        super().__init__()
        self.model, self.forwards, self.backwards = model, 0, 0

    def forward(self, x):
        self.forwards += len(x)
        return self.model((Tap.apply(x, self) if x.requires_grad else x) * 255)


def fingerprint(model):
    """Of the weights: rows of other ones are no use."""
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        digest.update(name.encode() + value.detach().cpu().numpy().tobytes())
    return digest.hexdigest()[:16]


def roundings(clean, adversarial):
    """Both 8-bit roundings of images in 0..1; `clean` in levels."""
    change = adversarial.detach().double() * 255 - clean
    change[change.abs() < 1e-3] = 0
    away = change.sign() * (change.abs() - 1e-3).clamp(min=0).ceil()
    return [(clean + by).clamp(0, 255).to(torch.uint8) for by in (change.round(), away)]


def save(image, path):
    Image.fromarray(image.permute(1, 2, 0).numpy()).save(path, compress_level=1)


class Bench:
    def __init__(self, args):
        self.args, self.cache = args, pathlib.Path(args.cache)
        self.cache.mkdir(parents=True, exist_ok=True)
        self.out = tempfile.TemporaryDirectory()

    def perturb(self, *words):
        done = subprocess.run([self.args.perturb, *map(str, words)], capture_output=True, text=True)
        if done.returncode:
            sys.exit(f"perturb {' '.join(map(str, words))}: {done.stderr}")
        return done.stdout

    def drawn(self, seed, count):
        folder = self.cache / f"images-{seed:x}-{count}"
        if not folder.exists():
            self.perturb("model", "draw", "--out", folder, "--seed", seed, "--count", count)
        return models.folder(folder)

    def subjects(self, model):
        """The first images that the model gets right."""
        paths, x, y = self.drawn(BENCH_SEED, 4 * self.args.images)
        right = model(x.float()).argmax(1) == y
        keep = right.nonzero().flatten()[: self.args.images].tolist()
        return [paths[i] for i in keep], x[keep], y[keep]

    def verified(self, rules, script, rows):
        """Reports on (clean path, adversarial path, ms)."""
        listing = pathlib.Path(self.out.name) / "pairs.tsv"
        listing.write_text("".join(f"{c}\t{a}\t{ms}\n" for c, a, ms in rows))
        lines = self.perturb("score", "--pairs", listing, "--rules", rules, "--model", script)
        return [json.loads(line) for line in lines.splitlines()]

    def ours(self, name, script, paths):
        rows = {}
        for rules in PRESETS:
            lines = self.perturb(
                "attack", *paths, "--model", script, "--rules", rules, "--attack", name, "--json",
                "--batch", self.args.batch, "--threads", self.args.threads, "--out", self.out.name)
            found = [json.loads(line) for line in lines.splitlines()]
            rows[rules] = summary(
                [f["verdict"] for f in found],
                *(float(np.mean([f[k] for f in found])) for k in ("forwards", "backwards", "time_ms")))
        return rows

    def setting(self, setting, model, script, paths, x, y):
        counted = Counted(model).eval()
        clean = x.double()
        # What each preset's sweep has come to, and cost, when its highest level is done.
        swept = {rules: {"seconds": 0.0, "forwards": 0, "backwards": 0, "candidates": {}} for rules in PRESETS}
        for at in range(0, len(x), self.args.batch):
            left = torch.arange(at, min(at + self.args.batch, len(x)))
            for level in LEVELS if setting.ball else (None,):
                if not len(left):
                    break
                before = counted.forwards, counted.backwards
                began = time.perf_counter()
                found = setting.run(counted, x[left].float() / 255, y[left], level)
                seconds = time.perf_counter() - began
                pair = roundings(clean[left], found)
                for rules, sweep in swept.items():
                    if level is None or level <= HIGHEST[rules]:
                        sweep["seconds"] += seconds
                        sweep["forwards"] += counted.forwards - before[0]
                        sweep["backwards"] += counted.backwards - before[1]
                        sweep["candidates"].update((i, [p[j] for p in pair]) for j, i in enumerate(left.tolist()))
                # The peer is told for free what flipped; only the verifier's word enters the table.
                flipped = torch.stack([model(p.float()).argmax(1) != y[left] for p in pair])
                left = left[~flipped.any(0)]
        return {rules: self.judged(rules, script, paths, sweep) for rules, sweep in swept.items()}

    def judged(self, rules, script, paths, sweep):
        each_ms = 1e3 * sweep["seconds"] / len(paths)
        rows, owner = [], []
        for i, images in sweep["candidates"].items():
            for j, image in enumerate(images):
                path = pathlib.Path(self.out.name) / f"{i}-{j}.png"
                save(image, path)
                rows.append((paths[i], path, int(np.ceil(each_ms))))
                owner.append(i)
        best = [None] * len(paths)
        for i, report in zip(owner, self.verified(rules, script, rows)):
            if best[i] is None or report["score"] > best[i]["score"]:
                best[i] = report
        return summary(best, sweep["forwards"] / len(paths), sweep["backwards"] / len(paths), each_ms)

    def model(self, name):
        images = lambda: self.drawn(TRAIN_SEED, self.args.train)
        model, script = models.get(name, self.cache, self.args.weights, images)
        named = "demo" if name == "demo" else f"{script}@{SIDE}"
        paths, x, y = self.subjects(model)
        rows = {f"perturb {a}": {a: self.ours(a, named, paths)} for a in self.args.ours.split(",")}
        kept = self.cache / f"rows-{name}-{fingerprint(model)}-{len(x)}-{self.args.batch}-{self.args.threads}.json"
        done = json.loads(kept.read_text()) if self.args.resume and kept.exists() else {}
        for peer in peers.all_peers():
            if self.args.only and not any(word in peer.name for word in self.args.only.split(",")):
                continue
            if peer.name not in done:
                began = time.monotonic()
                done[peer.name] = self.peer(peer, model, named, paths, x, y)
                new = kept.with_suffix(".new")
                new.write_text(json.dumps(done))
                new.replace(kept)
                print(f"{name}: {peer.name}, {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
            rows[peer.name] = done[peer.name]
        return {"images": len(x), "rows": rows}

    def peer(self, peer, model, named, paths, x, y):
        rows = {}
        for setting in peer.settings:
            try:
                # Imports and first calls are nobody's fault.
                setting.run(Counted(model).eval(), x[:1].float() / 255, y[:1], 1 if setting.ball else None)
                rows[setting.label] = self.setting(setting, model, named, paths, x, y)
            except Exception as error:  # a peer that breaks is a row that says so, not the end of the night
                print(f"{peer.name}, {setting.label}: {error!r}", file=sys.stderr)
        return rows


def summary(reports, forwards, backwards, ms):
    won = [r for r in reports if r and r["reason"] == "success"]
    of = lambda f: float(np.mean([f(r["measurement"]) for r in won])) if won else None
    return {
        "flips": len(won) / len(reports),
        "k": of(lambda m: m["level"]),
        "changed": of(lambda m: m["changed"] / m["channels"]),
        "rmse": of(lambda m: (m["sum_squares"] / m["channels"]) ** 0.5 / 255),
        "forwards": forwards, "backwards": backwards, "ms": ms,
        "score": float(np.mean([r["score"] / 1e6 if r else 0 for r in reports])),
    }


def table(results):
    number = lambda x, digits: "" if x is None else f"{x:.{digits}f}"
    lines = []
    for name, result in results.items():
        for rules in PRESETS:
            lines += [f"\n**{name}**, `{rules}`, {result['images']} images\n",
                      "| attack | best setting | flips | k | changed | RMSE·255 | forwards | backwards | ms | score |",
                      "|---|---|---|---|---|---|---|---|---|---|"]
            best = []
            for attack, settings in result["rows"].items():
                if settings:
                    label, row = max(settings.items(), key=lambda s: s[1][rules]["score"])
                    best.append((attack, "" if attack.endswith(label) else label, row[rules]))
            for attack, label, r in sorted(best, key=lambda b: -b[2]["score"]):
                changed = None if r["changed"] is None else 100 * r["changed"]
                rmse = None if r["rmse"] is None else 255 * r["rmse"]
                lines.append(
                    f"| {attack} | {label} | {100 * r['flips']:.0f} % | {number(r['k'], 2)} | {number(changed, 1)} % "
                    f"| {number(rmse, 3)} | {r['forwards']:.0f} | {r['backwards']:.0f} | {r['ms']:.1f} "
                    f"| {r['score']:.4f} |")
    return "\n".join(lines) + "\n"


def heading(args):
    return ("# Attacks beside each other\n\nWritten by `make bench-attacks`; the README says how it measures. "
            f"{args.images} images of {SIDE} × {SIDE} pixels a model, batches of {args.batch}, "
            f"{args.threads} thread{'s' if args.threads > 1 else ''}.\n")


def verdict(results):
    """Whether ours has the highest mean score on every model under both presets."""
    lost = []
    for name, result in results.items():
        for rules in PRESETS:
            score = lambda settings: max((s[rules]["score"] for s in settings.values()), default=0)
            ours = score(result["rows"]["perturb ours"])
            lost += [f"{name}, {rules}: {peer} {score(s):.4f}, ours {ours:.4f}"
                     for peer, s in result["rows"].items() if peer != "perturb ours" and score(s) > ours]
    return lost


def main():
    parse = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parse.add_argument("--perturb", required=True, help="the binary")
    parse.add_argument("--weights", required=True, help="the demo classifier's safetensors file")
    parse.add_argument("--cache", required=True, help="folder for drawn images and trained models")
    parse.add_argument("--models", default=",".join(models.NAMES))
    parse.add_argument("--ours", default=",".join(OURS), help="attacks of this library to run")
    parse.add_argument("--only", default="", help="only peers whose name holds one of these words")
    parse.add_argument("--resume", action="store_true",
                       help="peers whose rows an earlier run on these weights and as many images left are not run again")
    parse.add_argument("--images", type=int, default=100)
    parse.add_argument("--train", type=int, default=6000)
    parse.add_argument("--batch", type=int, default=25)
    parse.add_argument("--threads", type=int, default=1)
    parse.add_argument("--out", default="bench/attacks", help="written: OUT.md and OUT.json")
    args = parse.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(1)
    warnings.filterwarnings("ignore")
    bench = Bench(args)
    results = {name: bench.model(name) for name in args.models.split(",")}
    out = pathlib.Path(args.out)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.with_suffix(".json").write_text(json.dumps(results, indent=1) + "\n")
    out.with_suffix(".md").write_text(heading(args) + table(results))
    print(table(results))
    lost = verdict(results)
    if lost:
        sys.exit("a peer scores higher:\n" + "\n".join(lost))


if __name__ == "__main__":
    main()
