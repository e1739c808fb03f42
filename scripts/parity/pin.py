"""Writes model/weights/pins.json from the hub's own answers: revision and SHA-256 of each model's files.
Needs a network. Read the difference before committing it: a pin is a promise.

usage: pin.py model/weights/pins.json MODEL…
"""

import json
import pathlib
import sys
import urllib.request


def pin(model):
    with urllib.request.urlopen(f"https://huggingface.co/api/models/timm/{model}?blobs=true", timeout=60) as answer:
        told = json.load(answer)
    files = {f["rfilename"]: f for f in told["siblings"]}
    if "model.safetensors" in files:
        names = ["model.safetensors"]
    else:
        names = sorted(n for n in files if n.startswith("model-") and n.endswith(".safetensors"))
    if not names:
        sys.exit(f"pin: {model} has no safetensors file")
    return {
        "revision": told["sha"],
        "files": [{"name": name, "sha256": files[name]["lfs"]["sha256"]} for name in names],
    }


def main():
    path = pathlib.Path(sys.argv[1])
    pins = json.loads(path.read_text()) if path.exists() else {}
    for model in sys.argv[2:]:
        pins[model] = pin(model)
    path.write_text(json.dumps(dict(sorted(pins.items())), indent=2) + "\n")


main()
