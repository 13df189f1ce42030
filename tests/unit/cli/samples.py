"""Answers of a backend, with what a test says different."""

from __future__ import annotations

import io
import tarfile
from typing import Any

import zstandard

from kaos_backend.domain.hyperparams import varied
from kaos_backend.domain.metrics import Metric, sort_best_first
from kaos_backend.services.views import JobSummary

JOB_ID = "4f1c0de2aabb4ccd8899aabbccddeeff"
SOURCE = {
    "id": "1909d1aa" * 4, "name": "mnist", "author": "ada@lab", "created": "2020-01-01T00:00:00Z",
    "files": 3, "bytes": 4321,
}  # fmt: skip
DATA = SOURCE | {"id": "5c3ca7bb" * 4, "name": "features", "files": 6, "bytes": 1_600_000}
ANSWER: dict[str, Any] = {
    "job": JOB_ID, "status": "started", "message": "", "hint": "", "parts": ["source"], "source": SOURCE,
    "data": DATA, "manifest": None, "grid": {"id": "ab12cd" * 5, "trials": 1, "axes": {}, "fixed": {}},
    "parallelism": 2, "build_args": {}, "build_secrets": [],
    "stages": ["build", "train"],
}  # fmt: skip
STATUS: dict[str, Any] = {
    "kaos_version": "0.1.0", "pid": 1, "serves": "", "home": "/home/ada/.kaos",
    "engine": {"kind": "embedded", "address": "127.0.0.1:7777"},
    "runtime": {"name": "process", "isolation": "none", "notes": ["environment variables only"]},
    "machine": {"cpus": 2, "memory_bytes": 25_000_000_000, "gpus": 0, "devices": []},
    "store": {"free_bytes": 123_000_000_000}, "jobs": [],
    "paused": {"everywhere": False, "workspaces": []},
}  # fmt: skip


def stage(
    state: str = "success", total: int = 3, done: int = 3, failed: int = 0, skipped: int = 0,
    name: str = "train", reason: str = "",
) -> dict[str, Any]:  # fmt: skip
    return {
        "name": name, "trials": name == "train", "state": state, "reason": reason, "code": "", "total": total,
        "processed": done, "skipped": skipped, "failed": failed, "started": None, "finished": None,
    }  # fmt: skip


def trial(number: int, state: str = "success", accuracy: float | None = 0.9, **params: Any) -> dict[str, Any]:
    return {
        "trial": number, "model": f"1909d1-5c3ca7-0000000{number}", "state": state,
        "reason": "exit code 1" if state == "failed" else "", "params": params,
        "code": "exit_code" if state == "failed" else "",
        "metrics": {} if accuracy is None else {"accuracy": accuracy, "loss": round(1 - accuracy, 6)},
        "notes": [],
        "started": None, "duration_s": 1.5, "image": None,
    }  # fmt: skip


def job(state: str = "success", trials: list[dict[str, Any]] | None = None, **more: Any) -> dict[str, Any]:
    trials = [trial(0, lr=0.1, epochs=5)] if trials is None else trials
    grid = {"id": "ab12cd" * 5, "trials": len(trials)}
    why: dict[str, list[int]] = {}
    for one in sorted(trials, key=lambda one: one["trial"]):
        if one["state"] == "failed":
            why.setdefault(one["reason"], []).append(one["trial"])
    failures = [{"code": "exit_code", "reason": text, "trials": found} for text, found in why.items()]
    done = sum(one["state"] in ("success", "skipped") for one in trials)
    notes = [{"trial": one["trial"], "note": note} for one in trials for note in one["notes"]]
    return {
        "id": JOB_ID, "state": state, "reason": "", "code": "", "stages": [
            stage(total=1, done=1, name="build"), stage(state, len(trials), done)
        ], "created": "2020-01-01T00:00:00Z",
        "started": None, "finished": None, "duration_s": 12.3,
        "source": {"id": SOURCE["id"], "name": "mnist"},
        "data": {"id": DATA["id"], "name": "features"}, "hyper": grid,
        "inputs": {"source": SOURCE, "data": DATA, "manifest": None, "hyper": grid | {
            "axes": {}, "author": "ada@lab", "created": "2020-01-01T00:00:00Z"
        }},
        "settings": {
            "cpu": 1.0, "memory_bytes": None, "gpu": 0, "tries": 1, "timeout_s": None, "parallelism": 2
        },
        "build_args": {}, "build_secrets": [],
        "trials": trials, "failures": failures, "count": len(trials),
        "varied": varied([one["params"] for one in trials]), "notes": notes[:20], "noted": len(notes),
        "metric": {"name": "accuracy", "order": "desc", "guessed": True},
        "metrics": ["accuracy", "loss"],
    } | more  # fmt: skip


def first(job: dict[str, Any], limit: int) -> dict[str, Any]:
    """The job with so many of its trials, best first."""
    metric = Metric(**job["metric"]) if job["metric"] else None
    best = sort_best_first(job["trials"], [trial["metrics"] for trial in job["trials"]], metric)
    return job | {"trials": best[:limit]}


def summary(job: dict[str, Any]) -> dict[str, Any]:
    """What lists say of a job."""
    return {k: v for k, v in job.items() if k in JobSummary.model_fields}


def archive(files: dict[str, bytes], executable: tuple[str, ...] = ()) -> bytes:
    """A tar + zstd stream as the backend sends it."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for name, content in files.items():
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(content), 0o755 if name in executable else 0o644
            tar.addfile(info, io.BytesIO(content))
    return zstandard.ZstdCompressor().compress(raw.getvalue())
