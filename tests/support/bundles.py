"""Small training bundles that install nothing, so that a test pays for what it tests."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

DOCKERFILE = "FROM python:3\nWORKDIR /app\nCOPY . .\n"

# `stamp` differs in every execution: two runs of one trial can be told from one.
TRAIN = """#!/usr/bin/env python3
import json, os, sys, time
out = sys.argv[1]
params = json.load(open(os.environ["KAOS_PARAMS"]))
print("training", json.dumps(params, sort_keys=True), flush=True)
{body}
with open(os.path.join(out, "metrics.json"), "w") as f:
    json.dump({{"accuracy": float(params.get("x", 0)), "stamp": time.time_ns()}}, f)
with open(os.path.join(out, "model.bin"), "wb") as f:
    f.write(bytes(range(256)) * 8)
print("trained", flush=True)
"""


def write_source(folder: Path, body: str = "", dockerfile: str = DOCKERFILE, mode: int = 0o755) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "Dockerfile").write_text(dockerfile)
    train = folder / "train"
    train.write_text(TRAIN.format(body=body))
    train.chmod(mode)
    return folder


def write_data(folder: Path, files: Mapping[str, bytes] | None = None) -> Path:
    for path, content in (files or {"a.txt": b"one\n", "deep/er/b.bin": bytes(range(256))}).items():
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(content)
    return folder


def write_grid(path: Path, grid: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(grid if isinstance(grid, str) else json.dumps(grid))
    return path


# What the first kaos trained: fixed paths, the output folder as the only argument.
ORIGINAL = """#!/usr/bin/env python3
import glob, json, os, sys
(bundle,) = os.listdir("/pfs/data")
(params,) = glob.glob("/pfs/hyper/**/*.json", recursive=True)
with open(os.path.join(sys.argv[1], "metrics.json"), "w") as out:
    json.dump({"x": json.load(open(params))["x"], "files": len(os.listdir("/pfs/data/" + bundle))}, out)
"""


def write_original(folder: Path, base: str) -> Path:
    """A source bundle as the first kaos had them."""
    model = folder / "mnist" / "model"
    model.mkdir(parents=True)
    (model / "train").write_text(ORIGINAL)
    (model / "train").chmod(0o755)
    (model.parent / "Dockerfile").write_text(
        f"FROM {base}\nWORKDIR /app\nADD . /app\n"
        "RUN if [ -f requirements.txt ] ; then pip3 install -r requirements.txt; fi\n"
        'ENTRYPOINT ["python3", "/app/train"]\n'
    )
    return folder
