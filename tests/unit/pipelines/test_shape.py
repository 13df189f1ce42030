from __future__ import annotations

import pytest
from kaos_pipelines.build.shape import Shape, ShapeError, find_shape


@pytest.mark.parametrize(
    ("paths", "shape"),
    [
        (["Dockerfile", "train"], Shape("Dockerfile", "", "train")),
        (["m/Dockerfile", "m/model/train"], Shape("m/Dockerfile", "m/model", "m/model/train")),
        (["Dockerfile", "model/train"], Shape("Dockerfile", "model", "model/train")),
        (["m/Dockerfile", "m/train", "README"], Shape("m/Dockerfile", "m", "m/train")),
        (["Dockerfile", "train", "x/Dockerfile", "x/train"], Shape("Dockerfile", "", "train")),
        (["a/b/Dockerfile", "m/Dockerfile", "m/train"], Shape("m/Dockerfile", "m", "m/train")),
    ],
)
def test_accepted(paths: list[str], shape: Shape) -> None:
    assert find_shape(paths) == shape


@pytest.mark.parametrize(
    ("paths", "reason"),
    [
        ([], "no Dockerfile"),
        (["train"], "no Dockerfile"),
        (["Dockerfile", "a/train"], "no train"),
        (["a/Dockerfile", "train"], "no train"),
        (["a/Dockerfile", "a/train", "b/Dockerfile", "b/train"], "several"),
        (["a/b/Dockerfile", "a/b/train"], "no Dockerfile"),
    ],
)
def test_refused(paths: list[str], reason: str) -> None:
    with pytest.raises(ShapeError, match=reason):
        find_shape(paths)
