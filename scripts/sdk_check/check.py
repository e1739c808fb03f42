"""Bittensor's official SDK against the development chain: everything that a validator does with it.

Prints one line for each check and the count at the end; ends with 1 if any failed.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
import time
import traceback
from pathlib import Path

from core import use_beacon
from devchain import Devchain
from setting import GENESIS


class Report:
    """Counts checks and says how each went."""

    def __init__(self) -> None:
        self.passed = self.failed = 0

    def check(self, name: str, holds: bool, saw: object = "") -> None:
        self.passed, self.failed = self.passed + holds, self.failed + (not holds)
        print(f"{'ok  ' if holds else 'FAIL'} {name}" + ("" if holds else f": {saw}"), flush=True)

    def equal(self, name: str, got: object, expected: object) -> None:
        self.check(name, got == expected, f"{got!r}, expected {expected!r}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--devchain", type=Path, required=True, help="the program perturb-devchain")
    parser.add_argument("--block-time-ms", type=int, default=250)
    parser.add_argument("--our-reader", type=Path, required=True, help="our program that reads weights, see ours.py")
    arguments = parser.parse_args()
    report = Report()
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="sdk-check-") as scratch:
        folder = Path(scratch)
        with Devchain(arguments.devchain, GENESIS, folder, arguments.block_time_ms) as chain:
            beacon = chain.ask("dev_beacon")
            use_beacon(beacon["publicKey"], folder / "core")
            # Only now: the SDK loads its core when it is imported.
            from checks import run

            try:
                asyncio.run(run(chain, folder, report, arguments))
            except Exception:
                traceback.print_exc()
                report.check("the checks ran to the end", False, "see above")
    total = report.passed + report.failed
    print(f"{report.passed} of {total} checks passed in {time.monotonic() - began:.0f} s")
    return int(report.failed > 0)


if __name__ == "__main__":
    sys.exit(main())
