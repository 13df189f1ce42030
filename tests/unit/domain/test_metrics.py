from __future__ import annotations

import pytest

from kaos_backend.domain import metrics


def test_flattening_keeps_finite_numbers_only() -> None:
    value = {
        "acc": 0.9,
        "n": 3,
        "ok": True,
        "s": "x",
        "l": [1],
        "val": {"loss": 1.5, "x": {"y": 2}},
        "nan": float("nan"),
    }
    assert metrics.flatten(value) == {"acc": 0.9, "n": 3, "val.loss": 1.5, "val.x.y": 2}
    assert metrics.flatten([1]) == {}


def test_reading_survives_broken_files() -> None:
    files = [
        ("metrics/metrics.json", b'{"acc": 0.5, "deep": 1}'),
        ("metrics.json", b'{"acc": 0.9}'),
        ("metrics-2.json", b"{broken"),
        ("x/metrics.json", b"\xff\xfe"),
        ("y/metrics.json", b"[" * 100_000),
    ]
    assert metrics.read(files) == {"acc": 0.9, "deep": 1}


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
