"""Metrics of a model: reading ``metrics*.json``, flattening, and which direction is better. Pure."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Literal, TypeVar

Number = int | float
Order = Literal["asc", "desc"]

MAX_METRICS_BYTES = 1024 * 1024
_MAX_DEPTH = 16

_LOWER_IS_BETTER = {
    "loss", "losses", "error", "errors", "err", "mse", "rmse", "mae", "mape", "msle", "rmsle", "perplexity",
    "ppl", "nll", "cost", "bpc", "wer", "cer", "fid", "eer", "logloss", "crossentropy", "divergence", "kl",
    "regret", "risk", "time", "seconds", "duration", "latency", "brier", "deviance", "distance", "violations",
}  # fmt: skip
_PREFERRED = (
    "accuracy", "acc", "top1", "f1", "auc", "auroc", "map", "score", "r2", "precision", "recall", "bleu",
    "rouge", "iou", "dice", "reward", "return",
)  # fmt: skip
_HELD_OUT = ("test", "valid", "validation", "val", "eval", "dev", "holdout")

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Metric:
    """The metric that a table is sorted by. ``guessed``: nobody said which, or which direction is better."""

    name: str
    order: Order
    guessed: bool


def is_metrics_file(path: str) -> bool:
    """Whether a path in a model is read as metrics."""
    return fnmatchcase(path.rpartition("/")[2], "metrics*.json")


def flatten(value: object) -> dict[str, Number]:
    """The finite numbers of a JSON object; nested names are joined with dots. Lists, strings, booleans are
    left out.
    """
    found: dict[str, Number] = {}
    if isinstance(value, dict):
        _flatten_into(found, "", value, 0)
    return found


def read(files: Iterable[tuple[str, bytes]]) -> dict[str, Number]:
    """The metrics of one model from its metrics files (path, content); a broken file contributes nothing.

    Files nearer to the model's root win where two name the same metric.
    """
    found: dict[str, Number] = {}
    for _, content in sorted(files, key=lambda f: (f[0].count("/"), f[0])):
        try:
            value = json.loads(content)
        except (ValueError, RecursionError):
            continue
        for name, number in flatten(value).items():
            found.setdefault(name, number)
    return found


def guess_order(name: str) -> Order:
    """``asc`` if a smaller value of the metric is better by its name (loss, error, …), else ``desc``."""
    return "asc" if set(_words(name)) & _LOWER_IS_BETTER else "desc"


def choose(names: Iterable[str], sort_by: str | None = None, order: Order | None = None) -> Metric | None:
    """The metric to sort by: the one asked for, else the one that looks most like a result; None without
    any.
    """
    known = sorted(set(names))
    if sort_by is not None:
        return Metric(sort_by, order or guess_order(sort_by), order is None)
    if not known:
        return None
    best = min(known, key=_preference)
    return Metric(best, order or guess_order(best), True)


def sort_best_first(
    rows: Sequence[T], metrics: Sequence[Mapping[str, Number]], metric: Metric | None
) -> list[T]:
    """``rows`` best first by ``metric`` (numbers compared as numbers); those without it keep their order,
    last.
    """
    if metric is None:
        return list(rows)
    sign = 1 if metric.order == "asc" else -1
    indexed = list(range(len(rows)))
    indexed.sort(key=lambda i: _row_key(metrics[i].get(metric.name), sign))
    return [rows[i] for i in indexed]


def _row_key(value: Number | None, sign: int) -> tuple[int, Number]:
    return (1, 0) if value is None else (0, sign * value)


def _flatten_into(found: dict[str, Number], prefix: str, value: Mapping[str, Any], depth: int) -> None:
    for key, item in value.items():
        name = f"{prefix}{key}"
        if isinstance(item, bool):
            continue
        if isinstance(item, int) or (isinstance(item, float) and math.isfinite(item)):
            found.setdefault(name, item)
        elif isinstance(item, dict) and depth < _MAX_DEPTH:
            _flatten_into(found, f"{name}.", item, depth + 1)


def _words(name: str) -> list[str]:
    spaced = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", name)
    return [word for word in re.split(r"[^a-z0-9]+", spaced.lower()) if word]


def _preference(name: str) -> tuple[int, int, int, str]:
    """Results before losses, held-out splits before training ones, short names before long ones."""
    words = _words(name)
    joined = set(words)
    kind = next((i for i, word in enumerate(_PREFERRED) if word in joined), None)
    if kind is None:
        kind = len(_PREFERRED) if guess_order(name) == "asc" and "loss" in joined else len(_PREFERRED) + 1
    if joined & {"time", "seconds", "duration", "epoch", "epochs", "step", "steps"}:
        kind = len(_PREFERRED) + 2
    split = 0 if joined & set(_HELD_OUT) else (2 if joined & {"train", "training"} else 1)
    return (
        kind,
        _HELD_OUT.index(next(w for w in _HELD_OUT if w in joined)) if split == 0 else 10 + split,
        len(name),
        name,
    )
