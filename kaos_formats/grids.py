"""Grids of hyperparameters as users write them: a JSON object whose lists are axes, its scalars fixed.

What may be one, and how large it may be. Pure.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from kaos_formats.errors import InvalidHyper
from kaos_formats.utf8 import is_utf8

Scalar = str | int | float | bool | None

_canonical = json.JSONEncoder(sort_keys=True, separators=(",", ":"), allow_nan=False)

MAX_TRIALS = 100_000
# All trials together: a long fixed value or many of them are repeated in each.
MAX_VALUES = 2_000_000
MAX_TEXT_BYTES = 64 * 1024 * 1024

EXAMPLE = 'for example {"lr": [0.1, 0.01], "epochs": 5}: lists are axes, a scalar is a fixed value'


@dataclass(frozen=True, slots=True)
class Axes:
    """What spans a grid, and what is the same in all of it; both by name, in the order of the names."""

    axes: Mapping[str, tuple[Scalar, ...]]
    fixed: Mapping[str, Scalar]


def parse_grid(raw: object) -> Axes:
    """The grid that a user gave. Raises InvalidHyper, which names what is wrong; for ``{}`` too."""
    if not isinstance(raw, dict):
        raise InvalidHyper(f"hyperparameters must be a JSON object, not {_kind(raw)}", hint=EXAMPLE)
    if not raw:
        raise InvalidHyper(
            "the hyperparameters are an empty object",
            hint="leave -h out to run one trial with the defaults of the training code",
        )
    return axes_of(raw)


def axes_of(raw: Mapping[str, Any]) -> Axes:
    """The grid of an object, ``{}`` included: it spans one trial without parameters. Raises InvalidHyper."""
    axes: dict[str, tuple[Scalar, ...]] = {}
    fixed: dict[str, Scalar] = {}
    for name in sorted(raw):
        value = raw[name]
        if not name:
            raise InvalidHyper("a hyperparameter has an empty name", hint="give it one")
        _check_text(f"the name {name!r}", name)
        if isinstance(value, list):
            axes[name] = _axis(name, value)
        else:
            fixed[name] = _scalar(f"{name!r}", value)
    _check_size(axes, fixed)
    return Axes(axes, fixed)


def canonical_json(value: Mapping[str, Any]) -> str:
    """The one JSON text of ``value``: sorted keys, no blanks, no NaN."""
    return _canonical.encode(value)


def _check_size(axes: Mapping[str, tuple[Scalar, ...]], fixed: Mapping[str, Scalar]) -> None:
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


def _axis(name: str, value: list[Any]) -> tuple[Scalar, ...]:
    if not value:
        raise InvalidHyper(
            f"the axis {name!r} has no points", hint="give at least one value, or a scalar", name=name
        )
    points = tuple(_scalar(f"point {i} of {name!r}", point) for i, point in enumerate(value))
    texts: set[str] = set()
    for text in map(json.dumps, points):
        if text in texts:
            raise InvalidHyper(
                f"the axis {name!r} has the point {text} twice", hint="leave one out", name=name
            )
        texts.add(text)
    return points


def _scalar(where: str, value: object) -> Scalar:
    if isinstance(value, float) and not math.isfinite(value):
        raise InvalidHyper(
            f"{where} is {value}: JSON holds finite numbers alone", hint="use a finite number or a string"
        )
    if value is None or isinstance(value, str | int | float):
        if isinstance(value, str):
            _check_text(where, value)
        return value
    raise InvalidHyper(
        f"{where} is {_kind(value)}",
        hint="the points of an axis and fixed values are strings, numbers, booleans or null",
    )


def _check_text(where: str, value: str) -> None:
    if not value.isascii() and not is_utf8(value):
        raise InvalidHyper(f"{where} is no valid Unicode text", hint="use characters that UTF-8 has")


def _kind(value: object) -> str:
    if isinstance(value, dict):
        return "an object"
    if isinstance(value, list):
        return "a list"
    return "null" if value is None else f"a {type(value).__name__}"
