from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kaos_backend.domain import metrics


def of(content: str | bytes, path: str = "metrics.json") -> metrics.File:
    raw = content.encode() if isinstance(content, str) else content
    return metrics.File(path, len(raw), raw)


def read(content: str | bytes) -> tuple[dict[str, float], list[str]]:
    reading = metrics.read([of(content)])
    return dict(reading.metrics), list(reading.notes)


def test_flattening_keeps_numbers_only() -> None:
    content = """{"acc": 0.9, "n": 3, "ok": true, "s": "x", "none": null, "l": [1, {"in": 2}],
        "val": {"loss": 1.5, "x": {"y": 2}}}"""
    assert read(content) == ({"acc": 0.9, "n": 3, "val.loss": 1.5, "val.x.y": 2}, [])


def test_broken_files_cost_themselves_and_are_noted() -> None:
    reading = metrics.read(
        [
            of('{"acc": 0.5, "deep": 1}', "metrics/metrics.json"),
            of('{"acc": 0.9}'),
            of("{broken", "metrics-2.json"),
            of(b'\xff\xfe{"a": 1}', "x/metrics.json"),
            of("[" * 100_000, "y/metrics.json"),
            of("[1, 2]", "z/metrics.json"),
            metrics.File("big/metrics.json", 10**9, None),
        ]
    )
    assert reading.metrics == {"acc": 0.9, "deep": 1}
    assert [note.partition(":")[0] for note in reading.notes] == [
        "metrics-2.json", "big/metrics.json", "x/metrics.json", "y/metrics.json", "z/metrics.json"
    ]  # fmt: skip
    assert "line 1, column 2" in reading.notes[0]
    assert "no UTF-8 at byte 0" in reading.notes[2]


@pytest.mark.parametrize(
    ("content", "kept", "note"),
    [
        ('{"\\ud800": 1, "b": 2}', {"b": 2}, '"\\ud800" is no valid Unicode text'),
        ('{"a": ' + "9" * 5000 + ', "b": 2}', {"b": 2}, "a is a number too large"),
        ('{"a": 1e999, "b": 2}', {"b": 2}, "a is a number too large"),
        ('{"a": 1, "a": 2}', {"a": 2}, "a is given more than once, the last one counts"),
        ('{"x": ' * 40 + "1" + "}" * 40, {}, "nested too deeply"),
        ('{"' + "n" * 300 + '": 1, "b": 2}', {"b": 2}, "a name of 300 characters"),
        (b'\xef\xbb\xbf{"a": 1}', {"a": 1}, ""),
        ('{"a": 9223372036854775808, "b": -9223372036854775808}', {"a": 2.0**63, "b": -(2**63)}, ""),
    ],
)
def test_an_odd_metric_costs_itself(content: str | bytes, kept: dict[str, float], note: str) -> None:
    found, notes = read(content)
    assert found == kept
    assert note in "".join(notes)
    assert bool(notes) == bool(note)


def test_what_is_not_finite_is_kept_and_sent_in_the_words_of_protobuf() -> None:
    found, notes = read('{"a": NaN, "b": Infinity, "c": -Infinity}')
    assert (len(found), notes) == (3, [])
    sent = [metrics.to_json(found[name]) for name in "abc"]
    assert sent == ["NaN", "Infinity", "-Infinity"]


def test_more_than_anybody_reads_is_cut_and_noted() -> None:
    many = json.dumps({f"m{i}": i for i in range(metrics.MAX_METRICS + 5)})
    found, notes = read(many)
    assert (len(found), len(notes)) == (metrics.MAX_METRICS, 1)
    reading = metrics.read([of("{", f"{i}/metrics.json") for i in range(metrics.MAX_FILES + 50)])
    assert len(reading.notes) == metrics.MAX_NOTES
    assert reading.notes[-1] == f"and {metrics.MAX_FILES + 1 - metrics.MAX_NOTES + 1} more notes"


ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters()),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(st.characters()), inner, max_size=4),
    max_leaves=20,
)


@given(ANY_JSON.map(json.dumps).map(str.encode) | st.binary() | st.text().map(str.encode))
def test_any_content_gives_metrics_and_notes_that_can_be_sent(content: bytes) -> None:
    """Also lone surrogates, which Hypothesis makes and ``json.dumps`` escapes."""
    reading = metrics.read([of(content)])
    sent = {name: metrics.to_json(value) for name, value in reading.metrics.items()}
    json.dumps([sent, list(reading.notes)], ensure_ascii=False, allow_nan=False).encode()


@given(st.lists(st.none() | st.integers() | st.floats(), max_size=8), st.sampled_from(["asc", "desc"]))
def test_what_is_not_finite_or_not_there_comes_last(values: list[float | None], order: metrics.Order) -> None:
    rows = [{} if v is None else {"m": v} for v in values]
    best_first = metrics.sort_best_first(values, rows, metrics.Metric("m", order, False))

    def kind(value: float | None) -> int:
        if value is None:
            return 3
        return 0 if math.isfinite(value) else 2 if math.isnan(value) else 1

    assert [kind(v) for v in best_first] == sorted(kind(v) for v in values)
    finite = [v for v in best_first if v is not None and math.isfinite(v)]
    assert finite == sorted(finite, reverse=order == "desc")


@pytest.mark.parametrize(
    ("name", "order"),
    [
        ("accuracy", "desc"), ("loss", "asc"), ("val_loss", "asc"), ("test.error", "asc"),
        ("errorRate", "asc"),
        ("rmse", "asc"), ("perplexity", "asc"), ("terror_score", "desc"), ("f1", "desc"), ("MSE", "asc"),
        ("glossary", "desc"),
    ],
)  # fmt: skip
def test_direction_by_name(name: str, order: str) -> None:
    assert metrics.guess_order(name) == order


@pytest.mark.parametrize(
    ("names", "chosen"),
    [
        (["loss", "accuracy"], "accuracy"),
        (["train_accuracy", "test_accuracy", "val_accuracy"], "test_accuracy"),
        (["epochs", "seconds", "loss"], "loss"),
        (["test_loss", "train_accuracy"], "train_accuracy"),
        (["epochs"], "epochs"),
    ],
)
def test_the_metric_that_looks_like_the_result(names: list[str], chosen: str) -> None:
    metric = metrics.choose(names)
    assert metric is not None
    assert (metric.name, metric.guessed) == (chosen, True)


def test_asked_for() -> None:
    assert metrics.choose(["a"], "loss") == metrics.Metric("loss", "asc", True)
    assert metrics.choose(["a"], "loss", "desc") == metrics.Metric("loss", "desc", False)
    assert metrics.choose([]) is None


def test_best_first_as_numbers_and_without_last() -> None:
    rows = ["a", "b", "c", "d"]
    values: list[dict[str, int | float]] = [{"m": 9}, {}, {"m": 10.5}, {"m": -1}]
    assert metrics.sort_best_first(rows, values, metrics.Metric("m", "desc", False)) == ["c", "a", "d", "b"]
    assert metrics.sort_best_first(rows, values, metrics.Metric("m", "asc", False)) == ["d", "a", "c", "b"]
    assert metrics.sort_best_first(rows, values, None) == rows


@pytest.mark.parametrize(
    ("path", "read"),
    [
        ("metrics.json", True),
        ("a/b/metrics-final.json", True),
        ("metrics.jsonl", False),
        ("xmetrics.json", False),
    ],
)
def test_which_files_are_metrics(path: str, read: bool) -> None:
    assert metrics.is_metrics_file(path) is read
