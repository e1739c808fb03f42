"""Compares our timelocked commits with the official core's (`bittensor-core`), question by question.

1. Reveal blocks: random schedules. The core only tells the drand round it picked; with a block time of one round
   (3 s) each block is one round, so the round tells the block. Of this the core's own clock is a part: a question
   asked over the end of a round has two right answers.
2. Commits for quicknet's round 1000, whose signature is published: ours open with the core, the core's with ours.

usage: oracle.py ORACLE [--schedules N] [--commits N] [--seed N]
"""

import argparse
import json
import random
import struct
import subprocess
import sys
import time

import bittensor_core as core

GENESIS = 1_692_803_367
PERIOD = 3
INGEST_BLOCKS = 3
SIGNATURE_1000 = "b44679b9a59af2ec876b1a6b1ad52ea9b1615fc3982b19576350f93447cb1125e342b73a8dd2bacbe47e4b6b63ed5e39"


class Ours:
    """Our side, as a process that answers line by line."""

    def __init__(self, program):
        self.process = subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ask(self, what, **question):
        self.process.stdin.write(json.dumps({"ask": what, **question}) + "\n")
        self.process.stdin.flush()
        return json.loads(self.process.stdout.readline())


def schedule(rng):
    """A state of a subnet's epochs: mostly what chains have, sometimes what they should not."""
    tempo = rng.choice([0, 1, 2, 20, 99, 360, 360, 7200, 50_400, 65_535, rng.randrange(1, 1000), rng.randrange(65_536)])
    block = rng.randrange(1, 10_000_000)
    since = rng.choice([0, rng.randrange(tempo + 1), rng.randrange(60_000), 50_399, 50_400, 50_401])
    since_last = since if rng.random() < 0.9 else rng.randrange(60_000)
    pending = rng.choice([0, 0, 0, block - 5, block, block + 1, block + rng.randrange(1, 500)])
    return {
        "block": block,
        "last_epoch_block": max(0, block - since if rng.random() < 0.95 else block + rng.randrange(100)),
        "pending_epoch_at": max(0, pending),
        "epoch_index": rng.randrange(1_000_000),
        "tempo": tempo,
        "blocks_since_last_step": since_last,
    }


def cores_round(state, period):
    """The core's round, and the seconds between which it read the clock. None where it refuses."""
    before = time.time()
    try:
        _, chosen = core.get_encrypted_commit_v2(
            uids=[],
            weights=[],
            version_key=0,
            last_epoch_block=state["last_epoch_block"],
            pending_epoch_at=state["pending_epoch_at"],
            subnet_epoch_index=state["epoch_index"],
            tempo=state["tempo"],
            blocks_since_last_step=state["blocks_since_last_step"],
            current_block=state["block"],
            subnet_reveal_period_epochs=period,
            block_time=float(PERIOD),
            hotkey=b"",
        )
    except Exception:  # the binding raises its own kinds; any is a refusal
        return None
    return chosen, before, time.time()


def compare_schedule(ours, state, period):
    said = ours.ask("reveal", period=period, **state)
    cores = cores_round(state, period)
    if cores is None or "error" in said:
        return cores is None and "error" in said
    chosen, before, after = cores
    blocks = said["block"] - state["block"]
    expected = {int((now - GENESIS) // PERIOD) + blocks + INGEST_BLOCKS for now in (before, after)}
    round_now = ours.ask("round", now_ms=int(before * 1000), blocks=blocks, block_ms=PERIOD * 1000)["round"]
    return chosen in expected and round_now in expected


def compact(n):
    return bytes([n << 2]) if n < 64 else struct.pack("<H", n << 2 | 1)


def encoded(p):
    column = lambda values: compact(len(values)) + struct.pack(f"<{len(values)}H", *values)
    hotkey = bytes.fromhex(p["hotkey"])
    return compact(len(hotkey)) + hotkey + column(p["uids"]) + column(p["values"]) + struct.pack("<Q", p["version_key"])


def compare_commit(ours, rng):
    n = rng.randrange(257)
    payload = {
        "hotkey": rng.randbytes(32).hex(),
        "uids": rng.sample(range(65_536), n),
        "values": [rng.randrange(65_536) for _ in range(n)],
        "version_key": rng.randrange(2**64),
    }
    sealed = bytes.fromhex(ours.ask("seal", round=1000, **payload)["commit"])
    # What the core opens is a commit in an envelope: its length, its bytes, the round.
    envelope = compact(len(sealed)) + sealed + struct.pack("<Q", 1000)
    opens_ours = core.decrypt_with_signature(envelope, SIGNATURE_1000) == encoded(payload)
    theirs = core.inner_ciphertext(core.encrypt_at_round(encoded(payload), 1000)[0])
    opens_theirs = ours.ask("open", commit=bytes(theirs).hex(), signature=SIGNATURE_1000) == payload
    return opens_ours and opens_theirs and len(theirs) == len(sealed)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("oracle")
    parser.add_argument("--schedules", type=int, default=10_000)
    parser.add_argument("--commits", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    rng = random.Random(options.seed)
    ours = Ours(options.oracle)
    failed = 0
    for i in range(options.schedules):
        state, period = schedule(rng), rng.choice([0, 1, 1, 1, 2, 3, 10, 100])
        if not compare_schedule(ours, state, period):
            print(f"schedule {i} differs: {state}, period {period}", file=sys.stderr)
            failed += 1
    print(f"reveal blocks: {options.schedules - failed} of {options.schedules} schedules as the official core")
    wrong = sum(not compare_commit(ours, rng) for _ in range(options.commits))
    print(f"commits: {options.commits - wrong} of {options.commits} open with each other's code (round 1000)")
    sys.exit(1 if failed or wrong else 0)


if __name__ == "__main__":
    main()
