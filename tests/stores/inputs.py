"""What the fixture's workspaces are fed with. Stored ids follow from these bytes: never change them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

DOCKERFILE = b"FROM python:3\nWORKDIR /app\nCOPY . .\n"
# A time in the metrics tells a result that was kept from one that was made again.
TRAIN = b"""#!/usr/bin/env python3
import json, os, sys, time
out = sys.argv[1]
params = json.load(open(os.environ["KAOS_PARAMS"]))
print("training", json.dumps(params, sort_keys=True), flush=True)
if params["x"] == "bad":
    sys.exit("this point never works")
if params["x"] == "slow":
    time.sleep(600)
names = sorted(os.listdir(os.environ["KAOS_DATA_DIR"]))
with open(os.path.join(out, "metrics.json"), "w") as f:
    json.dump({"accuracy": params["x"] / 10, "stamp": time.time_ns(), "files": len(names)}, f)
os.makedirs(os.path.join(out, "weights"))
with open(os.path.join(out, "weights", "50%.pt"), "wb") as f:
    f.write(bytes([params["x"]]) * (1_100_000 if params["x"] == 2 else 2_000))
"""
SOURCE_1: Mapping[str, bytes] = {"Dockerfile": DOCKERFILE, "train": TRAIN}
SOURCE_2: Mapping[str, bytes] = {**SOURCE_1, "lib/notes%20.txt": b"second version\n"}
DATA_1: Mapping[str, bytes] = {
    "a.csv": b"1,2\n",
    # No escapes: these names are what they are.
    "50%.csv": b"per cent\n",
    "a%20b.csv": b"twenty\n",
    "%41": b"not an A\n",
    "deep/er/b.bin": bytes(range(256)),
    "empty": b"",
}
DATA_2: Mapping[str, bytes] = {
    **{path: content for path, content in DATA_1.items() if path != "%41"},
    "a.csv": b"1,2\n3,4\n",
    "big.bin": bytes(range(256)) * 4500,
}
GRID_1 = {"x": [1, 2, "bad"]}
GRID_2 = {"x": [1, 2, 3]}
GRID_3 = {"x": [1, 2, 3, 4]}
GRID_SLOW = {"x": [1, "slow"], "y": 0}


def write_folder(folder: Path, files: Mapping[str, bytes]) -> Path:
    for path, content in files.items():
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
        target.chmod(0o755 if path == "train" else 0o644)
    return folder


def write_grid(path: Path, grid: Any) -> Path:
    path.write_text(json.dumps(grid))
    return path
