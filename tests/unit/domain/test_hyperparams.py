from __future__ import annotations

import json
import math
from typing import Any

import blake3
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kaos_backend.domain.descriptions import Description, parse
from kaos_backend.domain.hyperparams import expand, parse_grid, short_ids
from kaos_backend.errors import InvalidHyper

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-5, 5)
    | st.floats(-2, 2).map(lambda x: x + 0.0)
    | st.text(max_size=4)
)
NAMES = st.text(min_size=1, max_size=4).filter(lambda n: n.isprintable())


def distinct(points: list[Any]) -> list[Any]:
    return list({json.dumps(point): point for point in points}.values())


GRIDS = st.dictionaries(
    NAMES, SCALARS | st.lists(SCALARS, min_size=1, max_size=3).map(distinct), min_size=1, max_size=4
)


def test_lists_are_axes_and_scalars_are_fixed() -> None:
    grid = parse_grid({"lr": [0.1, 0.01], "epochs": 5, "opt": ["sgd", "adam"]})
    assert grid.axes == {"lr": (0.1, 0.01), "opt": ("sgd", "adam")}
    assert grid.fixed == {"epochs": 5}
    assert [t.params for t in grid.trials] == [
        {"epochs": 5, "lr": 0.01, "opt": "adam"},
        {"epochs": 5, "lr": 0.01, "opt": "sgd"},
        {"epochs": 5, "lr": 0.1, "opt": "adam"},
        {"epochs": 5, "lr": 0.1, "opt": "sgd"},
    ]
    first = grid.trials[0]
    assert first.text == '{"epochs":5,"lr":0.01,"opt":"adam"}\n'
    assert first.params_id == blake3.blake3(first.text.strip().encode()).hexdigest()[:8]


def test_numbers_sort_as_numbers() -> None:
    grid = parse_grid({"n": [100, 9, 10.5, -1, "9", True, None]})
    assert [t.params["n"] for t in grid.trials] == [None, True, -1, 9, 10.5, 100, "9"]


@given(GRIDS, st.randoms(use_true_random=False))
def test_a_grid_is_its_set_of_points(raw: dict[str, Any], random: Any) -> None:
    grid = expand(raw)
    shuffled = {
        name: random.sample(value, len(value)) if isinstance(value, list) else value
        for name, value in random.sample(list(raw.items()), len(raw))
    }
    other = expand(shuffled)
    assert other.id == grid.id
    assert other.trials == grid.trials
    assert len(grid.trials) == math.prod(len(v) for v in raw.values() if isinstance(v, list))
    assert len({t.params_id for t in grid.trials}) == len(grid.trials)
    assert [t.number for t in grid.trials] == list(range(len(grid.trials)))
    assert all(json.loads(t.text) == t.params for t in grid.trials)
    assert expand(grid.as_given()).id == grid.id


@given(GRIDS, SCALARS)
def test_adding_a_point_keeps_the_others(raw: dict[str, Any], point: Any) -> None:
    name = sorted(raw)[0]
    axis = raw[name] if isinstance(raw[name], list) else [raw[name]]
    bigger = expand({**raw, name: distinct([*axis, point])})
    assert {t.params_id for t in expand(raw).trials} <= {t.params_id for t in bigger.trials}


def test_the_default_grid_is_one_trial() -> None:
    grid = expand({})
    assert [t.text for t in grid.trials] == ["{}\n"]


@pytest.mark.parametrize(
    ("raw", "says"),
    [
        ({}, "empty object"),
        ([], "not a list"),
        ("x", "not a str"),
        (None, "not null"),
        (3, "not a int"),
        ({"a": []}, "has no points"),
        ({"a": [[1]]}, "point 0 of 'a' is a list"),
        ({"a": [1, {"b": 1}]}, "point 1 of 'a' is an object"),
        ({"a": {"b": 1}}, "'a' is an object"),
        ({"a": float("nan")}, "nan"),
        ({"a": [1, float("inf")]}, "inf"),
        ({"a": [1, 2, 1]}, "twice"),
        ({"": 1}, "empty name"),
        ({"a": "\ud800"}, "Unicode"),
        ({"a": list(range(400)), "b": list(range(400))}, "more than 100,000 trials"),
        ({"\ud800": 1}, "Unicode"),
        ({"a": {"b": {"c": [[[]]]}}}, "is an object"),
        ({f"a{i}": [1, 2] for i in range(20_000)}, "more than 100,000 trials"),
        ({"a": list(range(100_000))} | {f"b{i}": 1 for i in range(1000)}, "more than 2,000,000 values"),
        ({"a": list(range(1000)), "b": "x" * 100_000}, "more than 67,108,864 bytes"),
    ],
)
def test_what_is_refused_and_why(raw: Any, says: str) -> None:
    with pytest.raises(InvalidHyper) as caught:
        parse_grid(raw)
    assert says in caught.value.message


def test_one_and_one_point_zero_are_two_points() -> None:
    assert len(parse_grid({"a": [1, 1.0, True]}).trials) == 3


def test_huge_integers_sort() -> None:
    assert [t.params["a"] for t in parse_grid({"a": [10**400, 0.5]}).trials] == [0.5, 10**400]


def test_colliding_ids_grow_until_they_differ() -> None:
    same = "a" * 10
    assert short_ids([same + "0", same + "1", "b" * 11]) == [same + "0", same + "1", "b" * 8]


HOSTILE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.integers(10**300, 10**310) | st.floats()
    | st.text(st.characters()),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(st.characters()), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip


@given(st.dictionaries(st.text(st.characters()), HOSTILE, max_size=4) | HOSTILE)
def test_any_json_is_refused_or_can_be_deployed_and_read_back(raw: Any) -> None:
    """Refused are also the lone surrogates that Hypothesis makes: nothing that follows could carry them."""
    try:
        grid = parse_grid(raw)
    except InvalidHyper as error:
        error.message.encode()
        return
    for trial in grid.trials:
        trial.text.encode()
    about = parse(Description("hyper", grid.id, grid=grid.as_given(), trials=len(grid.trials)).to_json())
    assert about is not None
    assert about.grid is not None
    assert expand(about.grid).id == grid.id
