"""The trials that a grid of hyperparameters spans (`kaos_formats.grids` says what may be one).

Pure. A trial's identity is its canonical JSON; its number within a grid follows from sorting, never from
the order in which a file happens to list things.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import blake3

from kaos_formats import grids
from kaos_formats.grids import Axes, Scalar, canonical_json

MIN_ID_LENGTH = 8
_LAST_GRIDS = 4


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
        return _as_given(self)


def parse_grid(raw: object) -> Grid:
    """The grid that a user gave. Raises InvalidHyper, for ``{}`` too."""
    # What it is compared with, stored as and shown by is this grid again.
    return expand(_as_given(grids.parse_grid(raw)))


def expand(raw: Mapping[str, Any]) -> Grid:
    """The grid of ``raw``; ``{}`` spans one trial without parameters. Raises InvalidHyper."""
    return _expand(json.dumps(raw))


# One deploy, and each look at its job, asks several times.
@lru_cache(_LAST_GRIDS)
def _expand(text: str) -> Grid:
    return _expanded(grids.axes_of(json.loads(text)))


def _expanded(grid: Axes) -> Grid:
    axes, fixed = grid.axes, grid.fixed
    points = [{**fixed, **dict(zip(axes, point, strict=True))} for point in itertools.product(*axes.values())]
    points.sort(key=_sort_key)
    texts = [canonical_json(point) for point in points]
    hashes = [blake3.blake3(text.encode()).hexdigest() for text in texts]
    ids = short_ids(hashes)
    trials = tuple(
        Trial(number, ids[number], points[number], texts[number] + "\n") for number in range(len(points))
    )
    grid_id = blake3.blake3("".join(sorted(hashes)).encode()).hexdigest()[:32]
    return Grid(grid_id, axes, fixed, trials)


def _as_given(grid: Grid | Axes) -> dict[str, Any]:
    return {**{name: list(points) for name, points in grid.axes.items()}, **grid.fixed}


def varied(points: Sequence[Mapping[str, Scalar]]) -> list[str]:
    """The parameters that tell the points apart, in the order in which they first appear."""
    values: dict[str, set[str]] = {}
    for number, point in enumerate(points):
        for name in point:
            values.setdefault(name, {""} if number else set())
        for name, seen in values.items():
            seen.add(json.dumps(point[name]) if name in point else "")
    return [name for name, seen in values.items() if len(seen) > 1]


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
