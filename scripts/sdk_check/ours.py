"""What our node reads of the weights: the answer of our own client, a program that `check.py --our-reader` names.

It is run as `PROGRAM URL NETUID MECID BLOCK_HASH` and prints `{"uid of the validator": [[uid, value], …], …}`.
"""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

Rows = dict[int, list[tuple[int, int]]]


def read_weights(reader: Path, url: str, netuid: int, mecid: int, block_hash: str) -> Rows:
    """Every validator's row of weights on one mechanism, raw, at a block."""
    command = [reader, url, str(netuid), str(mecid), block_hash]
    said = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, timeout=120).stdout
    return {int(uid): [(int(u), int(v)) for u, v in row] for uid, row in json.loads(said).items()}
