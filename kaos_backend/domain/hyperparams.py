"""Grids: a JSON object whose lists are axes and whose scalars are fixed values, and the trials it spans.

Pure. A trial's identity is its canonical JSON; its number within a grid follows from sorting, never from
the order in which a file happens to list things.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import blake3

from kaos_backend.errors import InvalidHyper

Scalar = str | int | float | bool | None

MAX_TRIALS = 100_000
# All trials together: a long fixed value or many of them are repeated in each.
MAX_VALUES = 2_000_000
MAX_TEXT_BYTES = 64 * 1024 * 1024
MIN_ID_LENGTH = 8


@dataclass(frozen=True, slots=True)
class Trial:
    """One point of a grid. ``number`` is 0-based and stable within the grid; ``text`` the canonical JSON."""

    number: int
    params_id: str
    params: Mapping[str, Scalar]
    text: str


@dataclass(frozen=True, slots=True)
class Grid:
    """A whole grid: its id, its axes and fixed values by name, and its trials in order of number."""

    id: str
    axes: Mapping[str, tuple[Scalar, ...]]
    fixed: Mapping[str, Scalar]
    trials: tuple[Trial, ...]

    def as_given(self) -> dict[str, Any]:
        """The JSON object that makes this grid again."""
        return {**{name: list(points) for name, points in self.axes.items()}, **self.fixed}


def canonical_json(value: Mapping[str, Any]) -> str:
    """The one JSON text of ``value``: sorted keys, no blanks, no NaN."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)


def parse_grid(raw: object) -> Grid:
    """The grid that a user gave. Raises InvalidHyper saying which name or point is wrong; ``{}`` is
    refused.
    """
    if not isinstance(raw, dict):
        raise InvalidHyper(
            f"hyperparameters must be a JSON object, not {_kind(raw)}",
            hint='for example {"lr": [0.1, 0.01], "epochs": 5}: lists are axes, a scalar is a fixed value',
        )
    if not raw:
        raise InvalidHyper(
            "the hyperparameters are an empty object",
            hint="leave -h out to run one trial with the defaults of the training code",
        )
    return expand(raw)


def expand(raw: Mapping[str, Any]) -> Grid:
    """The grid of ``raw``; ``{}`` spans one trial without parameters. Raises InvalidHyper."""
    axes: dict[str, tuple[Scalar, ...]] = {}
    fixed: dict[str, Scalar] = {}
    for name in sorted(raw):
        value = raw[name]
        if not name:
            raise InvalidHyper("a hyperparameter has an empty name")
        _check_text(f"the name {name!r}", name)
        if isinstance(value, list):
            axes[name] = _axis(name, value)
        else:
            fixed[name] = _scalar(f"{name!r}", value)
    _check_span(axes, fixed)
    points = [{**fixed, **dict(zip(axes, point, strict=True))} for point in itertools.product(*axes.values())]
    points.sort(key=_sort_key)
    return _grid(axes, fixed, points)


def _check_span(axes: Mapping[str, tuple[Scalar, ...]], fixed: Mapping[str, Scalar]) -> None:
    """Refuses what would take too much to write out. Raises InvalidHyper."""
    count = 1
    for points in axes.values():
        count *= len(points)
        if count > MAX_TRIALS:
            longest = sorted(axes.items(), key=lambda axis: -len(axis[1]))[:5]
            raise InvalidHyper(
                f"the grid spans more than {MAX_TRIALS:,} trials",
                hint="shorten an axis: " + ", ".join(f"{name} has {len(p)} points" for name, p in longest),
            )
    values = count * (len(axes) + len(fixed))
    if values > MAX_VALUES:
        raise InvalidHyper(
            f"{count:,} trials of {len(axes) + len(fixed):,} values are more than {MAX_VALUES:,} values",
            hint="put what does not vary into the training code or the data",
        )
    size = len(canonical_json(fixed)) + sum(
        len(json.dumps(name)) + 2 + max(len(json.dumps(point)) for point in points)
        for name, points in axes.items()
    )
    if count * size > MAX_TEXT_BYTES:
        raise InvalidHyper(
            f"{count:,} trials with parameters of {size:,} bytes each are more than {MAX_TEXT_BYTES:,} bytes",
            hint="put long values into a file of the data",
        )


def _grid(
    axes: dict[str, tuple[Scalar, ...]], fixed: dict[str, Scalar], points: list[dict[str, Scalar]]
) -> Grid:
    texts = [canonical_json(point) for point in points]
    hashes = [blake3.blake3(text.encode()).hexdigest() for text in texts]
    ids = short_ids(hashes)
    trials = tuple(
        Trial(number, ids[number], points[number], texts[number] + "\n") for number in range(len(points))
    )
    grid_id = blake3.blake3("".join(sorted(hashes)).encode()).hexdigest()[:32]
    return Grid(grid_id, axes, fixed, trials)


def short_ids(hashes: Sequence[str]) -> list[str]:
    """The first 8 digits of each hash; those that collide get as many more as tell them apart."""
    ids = [full[:MIN_ID_LENGTH] for full in hashes]
    length = MIN_ID_LENGTH
    while len(set(ids)) < len(ids):
        length += 1
        seen: dict[str, int] = {}
        for text in ids:
            seen[text] = seen.get(text, 0) + 1
        ids = [full[:length] if seen[text] > 1 else text for full, text in zip(hashes, ids, strict=True)]
    return ids


def _axis(name: str, value: list[Any]) -> tuple[Scalar, ...]:
    if not value:
        raise InvalidHyper(
            f"the axis {name!r} has no points", hint="give at least one value, or a scalar", name=name
        )
    points = tuple(_scalar(f"point {i} of {name!r}", point) for i, point in enumerate(value))
    texts: set[str] = set()
    for point in points:
        text = json.dumps(point)
        if text in texts:
            raise InvalidHyper(
                f"the axis {name!r} has the point {text} twice", hint="leave one out", name=name
            )
        texts.add(text)
    return points


def _scalar(where: str, value: object) -> Scalar:
    if isinstance(value, float) and not math.isfinite(value):
        raise InvalidHyper(
            f"{where} is {value}, which JSON cannot hold", hint="use a finite number or a string"
        )
    if value is None or isinstance(value, str | int | float):
        if isinstance(value, str) and not value.isascii():
            _check_text(where, value)
        return value
    raise InvalidHyper(
        f"{where} is {_kind(value)}",
        hint="the points of an axis and fixed values are strings, numbers, booleans or null",
    )


def _check_text(where: str, value: str) -> None:
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InvalidHyper(f"{where} is no valid Unicode text") from error


def _kind(value: object) -> str:
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return "a list"
    return "null" if value is None else f"a {type(value).__name__}"


def _sort_key(point: Mapping[str, Scalar]) -> tuple[tuple[int, Any, str], ...]:
    return tuple(_value_key(point[name]) for name in sorted(point))


def _value_key(value: Scalar) -> tuple[int, Any, str]:
    """Null < booleans < numbers (by value) < strings; the JSON text decides between 1 and 1.0."""
    text = json.dumps(value)
    if value is None:
        return (0, 0, text)
    if isinstance(value, bool):
        return (1, int(value), text)
    if isinstance(value, int | float):
        return (2, value, text)
    return (3, value, text)
