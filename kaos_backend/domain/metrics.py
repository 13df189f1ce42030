"""Metrics of a model: reading ``metrics*.json``, flattening, and which direction is better. Pure."""

from __future__ import annotations

import itertools
import json
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Literal, TypeVar

from kaos_formats.utf8 import is_utf8

Number = int | float
NonFinite = Literal["NaN", "Infinity", "-Infinity"]
Order = Literal["asc", "desc"]

# Of `read`: raised when it would read other things from the same files, as what was read is remembered.
PARSER = 1
MAX_METRICS_BYTES = 1024 * 1024
MAX_MODEL_BYTES = 8 * MAX_METRICS_BYTES
MAX_FILES = 100
MAX_METRICS = 1000
MAX_NAME_LENGTH = 256
MAX_NOTES = 10
_MAX_DEPTH = 16
_MAX_DIGITS = 64
_SHOWN = 60
# In place of a number that no float is near.
_TOO_LARGE = object()

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


@dataclass(frozen=True, slots=True)
class File:
    """A metrics file of a model: its path there, its size, and its content (None: too large to be read)."""

    path: str
    size: int
    content: bytes | None


@dataclass(frozen=True, slots=True)
class Reading:
    """The metrics of one model, and what of its files could not be read, in words."""

    metrics: Mapping[str, Number]
    notes: Sequence[str] = ()


def read(files: Iterable[File]) -> Reading:
    """The numbers in the metrics files of one model; whatever else is in them costs that alone, and a note.

    Nested names are joined with dots. Lists, strings, booleans and null are no metrics and need no note.
    Files nearer to the model's root win where two name the same metric.
    """
    found: dict[str, Number] = {}
    notes: list[str] = []
    for number, file in enumerate(sorted(files, key=lambda f: (f.path.count("/"), f.path))):
        if number == MAX_FILES:
            notes.append(f"only the first {MAX_FILES} metrics files are read")
            break
        trouble = _File(found)
        trouble.read(file)
        notes += [f"{_shown(file.path)}: {note}" for note in trouble.notes]
    if len(found) > MAX_METRICS:
        notes.append(f"only the first {MAX_METRICS} of {len(found)} metrics are kept")
        found = dict(itertools.islice(found.items(), MAX_METRICS))
    if len(notes) > MAX_NOTES:
        notes[MAX_NOTES - 1 :] = [f"and {len(notes) - MAX_NOTES + 1} more notes"]
    return Reading(found, notes)


def to_json(value: Number) -> Number | NonFinite:
    """``value`` as JSON can hold it, in the words that protobuf's JSON has for what is not finite."""
    if math.isfinite(value):
        return value
    if math.isnan(value):
        return "NaN"
    return "Infinity" if value > 0 else "-Infinity"


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
    rows: Sequence[T], metrics: Sequence[Mapping[str, Number | NonFinite]], metric: Metric | None
) -> list[T]:
    """``rows`` best first by ``metric`` (numbers compared as numbers). In both directions come last what is
    infinite, what is no number, and what is not there.
    """
    if metric is None:
        return list(rows)
    sign = 1 if metric.order == "asc" else -1
    indexed = list(range(len(rows)))
    indexed.sort(key=lambda i: _row_key(metrics[i].get(metric.name), sign))
    return [rows[i] for i in indexed]


def _row_key(value: Number | NonFinite | None, sign: int) -> tuple[int, Number]:
    if value is None:
        return (3, 0)
    if isinstance(value, str):
        value = float(value)
    if math.isfinite(value):
        return (0, sign * value)
    return (2, 0) if math.isnan(value) else (1, sign * value)


class _File:
    """Reads one file into ``found``, which earlier files have filled, and notes what is wrong with it."""

    def __init__(self, found: dict[str, Number]) -> None:
        self._found = found
        self.notes: list[str] = []

    def read(self, file: File) -> None:
        if file.content is None:
            self.notes.append(
                f"{file.size} bytes; read are {MAX_METRICS_BYTES} of a file, {MAX_MODEL_BYTES} of a model"
            )
            return
        try:
            value = json.loads(
                file.content.decode("utf-8-sig"),
                parse_int=_int,
                parse_float=_float,
                object_pairs_hook=self._object,
            )
        except UnicodeDecodeError as error:
            self.notes.append(f"no UTF-8 at byte {error.start}")
        except json.JSONDecodeError as error:
            self.notes.append(f"no JSON: {error.msg} at line {error.lineno}, column {error.colno}")
        except RecursionError:
            self.notes.append("no metrics: nested too deeply")
        else:
            if isinstance(value, dict):
                self._flatten("", value, 0)
            else:
                self.notes.append("no metrics: not a JSON object")

    def _object(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        value = dict(pairs)
        if len(value) < len(pairs):
            seen: set[str] = set()
            for name, _ in pairs:
                if name in seen:
                    self.notes.append(f"{_shown(name)} is given more than once, the last one counts")
                seen.add(name)
        return value

    def _flatten(self, prefix: str, value: Mapping[str, Any], depth: int) -> None:
        for key, item in value.items():
            name = f"{prefix}{key}"
            if item is _TOO_LARGE:
                self.notes.append(f"{_shown(name)} is a number too large to be kept")
            elif isinstance(item, dict):
                if depth < _MAX_DEPTH:
                    self._flatten(f"{name}.", item, depth + 1)
                else:
                    self.notes.append(f"{_shown(name)} is nested too deeply")
            elif isinstance(item, int | float) and not isinstance(item, bool):
                self._keep(name, item)

    def _keep(self, name: str, value: Number) -> None:
        if len(name) > MAX_NAME_LENGTH:
            self.notes.append(f"{_shown(name)}: a name of {len(name)} characters")
        elif not is_utf8(name):
            self.notes.append(f"{_shown(name)} is no valid Unicode text")
        else:
            self._found.setdefault(name, value)


def _int(digits: str) -> Number | object:
    """An integer that any reader of JSON can hold, else the float nearest to it."""
    if len(digits) < _MAX_DIGITS:
        value = int(digits)
        if -(2**63) <= value < 2**63:
            return value
    return _float(digits)


def _float(digits: str) -> float | object:
    value = float(digits)
    return value if math.isfinite(value) else _TOO_LARGE


def _shown(name: str) -> str:
    """A name as a note has it: on one line, short, and surely text."""
    return name if name.isprintable() and len(name) <= _SHOWN else json.dumps(name[:_SHOWN])


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
