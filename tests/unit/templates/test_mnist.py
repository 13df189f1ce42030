"""The mnist template's files."""

from __future__ import annotations

import json
import os
from pathlib import Path

TEMPLATE = Path(__file__).parents[3] / "templates" / "mnist"
MODEL = TEMPLATE / "model-train" / "mnist" / "model"


def test_shape_of_the_template() -> None:
    described = json.loads((TEMPLATE / "template.json").read_text())
    assert set(described) == {"name", "title", "description"}
    assert described["name"] == TEMPLATE.name
    assert os.access(MODEL / "train", os.X_OK)
    assert (MODEL / "train").read_bytes().startswith(b"#!/usr/bin/env python3\n")
    assert (MODEL.parent / "Dockerfile").read_text().startswith("FROM python:")
    assert (TEMPLATE / "README.md").exists()


def test_the_grid_sets_only_parameters_that_exist() -> None:
    static = json.loads((MODEL / "params.json").read_text())
    grid = json.loads((TEMPLATE / "hyperopt" / "params.json").read_text())
    assert grid.keys() <= static.keys()
    trials = 1
    for values in grid.values():
        trials *= len(values) if isinstance(values, list) else 1
    assert trials >= 6
