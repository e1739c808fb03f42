"""The development chain as a process, and its JSON-RPC without the SDK."""

from __future__ import annotations

import itertools
import json
import subprocess
import threading
import urllib.request
from pathlib import Path

START_TIMEOUT_S = 60
REQUEST_TIMEOUT_S = 60


class RpcError(Exception):
    """The chain refused a request."""


class Devchain:
    """A running development chain; a context manager that ends it."""

    def __init__(self, binary: Path, genesis: dict, folder: Path, block_time_ms: int):
        file = folder / "genesis.json"
        file.write_text(json.dumps(genesis))
        self.process = subprocess.Popen(
            [binary, "--rpc-port", "0", "--block-time-ms", str(block_time_ms), "--genesis", file],
            stdout=subprocess.PIPE,
            text=True,
        )
        # A chain that does not come up is killed, which ends the reading below.
        guard = threading.Timer(START_TIMEOUT_S, self.process.kill)
        guard.start()
        words = self.process.stdout.readline().split()
        guard.cancel()
        if len(words) != 4:
            raise SystemExit(f"{binary} did not start: exit code {self.process.wait()}")
        self.url = words[1]
        self._http = self.url.replace("ws://", "http://")
        self._ids = itertools.count(1)

    def __enter__(self) -> Devchain:
        return self

    def __exit__(self, *_) -> None:
        self.process.terminate()
        self.process.wait()

    def ask(self, method: str, *params):
        """The answer to one request; `RpcError` with code and text where it is refused."""
        body = {"jsonrpc": "2.0", "id": next(self._ids), "method": method, "params": params}
        request = urllib.request.Request(
            self._http, json.dumps(body).encode(), {"Content-Type": "application/json"}
        )
        with urllib.request.urlopen(request, timeout=REQUEST_TIMEOUT_S) as response:
            answer = json.load(response)
        if "error" in answer:
            raise RpcError(f"{method}: {answer['error']}")
        return answer["result"]
