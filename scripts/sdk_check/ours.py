"""What our side reads of the weights, without the SDK.

THE PLACE for our node's reading. `read_weights` asks the chain for the storage keys and decodes the values by hand. A
program that reads the same by our client may take its place: `check.py --our-reader COMMAND` runs `COMMAND URL NETUID
MECID BLOCK_HASH` and takes from its standard output the same JSON, `{"uid of the validator": [[uid, value], …], …}`.
"""

from __future__ import annotations

import json
import shlex
import struct
import subprocess

from devchain import Devchain

# twox128 of "SubtensorModule" and of "Weights": the prefix of the map's keys.
WEIGHTS_PREFIX = "658faa385070e074c85bf6b568cf0555a1e7036061f484bc3048a64b64e35ec4"
PAGE = 1000

Rows = dict[int, list[tuple[int, int]]]


def read_weights(chain: Devchain, netuid: int, mecid: int, block_hash: str, command: str | None) -> Rows:
    """Every validator's row of weights on one mechanism, raw, at a block."""
    if command is not None:
        arguments = [*shlex.split(command), chain.url, str(netuid), str(mecid), block_hash]
        said = subprocess.run(arguments, check=True, stdout=subprocess.PIPE, text=True, timeout=120).stdout
        return {int(uid): [(int(u), int(v)) for u, v in row] for uid, row in json.loads(said).items()}
    prefix = "0x" + WEIGHTS_PREFIX + struct.pack("<H", mecid * 4096 + netuid).hex()
    rows, start = {}, None
    while keys := chain.ask("state_getKeysPaged", prefix, PAGE, start, block_hash):
        for key in keys:
            (uid,) = struct.unpack("<H", bytes.fromhex(key[2:])[-2:])
            rows[uid] = decode_row(bytes.fromhex(chain.ask("state_getStorage", key, block_hash)[2:]))
        start = keys[-1]
    return rows


def decode_row(data: bytes) -> list[tuple[int, int]]:
    """SCALE: a compact length, then pairs of 16-bit numbers."""
    # A row has 4096 pairs at most, so its length takes one byte, two or four.
    size = (1, 2, 4)[data[0] & 3]
    length = int.from_bytes(data[:size], "little") >> 2
    pairs = list(struct.iter_unpack("<HH", data[size:]))
    if len(pairs) != length:
        raise ValueError(f"not a row of weights: {data.hex()}")
    return pairs
