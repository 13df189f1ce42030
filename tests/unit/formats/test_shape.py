from __future__ import annotations

import pytest

from kaos_formats.errors import InvalidBundle
from kaos_formats.shape import Shape, find_shape


@pytest.mark.parametrize(
    ("paths", "shape"),
    [
        (["Dockerfile", "train"], Shape("Dockerfile", "", "train")),
        (["m/Dockerfile", "m/model/train"], Shape("m/Dockerfile", "m/model", "m/model/train")),
        (["Dockerfile", "model/train"], Shape("Dockerfile", "model", "model/train")),
        (["m/Dockerfile", "m/train", "README"], Shape("m/Dockerfile", "m", "m/train")),
        (["Dockerfile", "train", "x/Dockerfile", "x/train"], Shape("Dockerfile", "", "train")),
        (["a/b/Dockerfile", "m/Dockerfile", "m/train"], Shape("m/Dockerfile", "m", "m/train")),
        # A Dockerfile of something else beside it: the command line refused these, the backend took them.
        (["docs/Dockerfile", "m/Dockerfile", "m/train"], Shape("m/Dockerfile", "m", "m/train")),
        (["Dockerfile", "m/Dockerfile", "m/model/train"], Shape("m/Dockerfile", "m/model", "m/model/train")),
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
    with pytest.raises(InvalidBundle, match=reason) as caught:
        find_shape(paths)
    assert "DIR/<name>/model/train" in caught.value.message


def test_the_folder_of_the_dockerfile_names_the_bundle() -> None:
    assert find_shape(["mnist/Dockerfile", "mnist/model/train"]).name == "mnist"
    assert find_shape(["Dockerfile", "model/train"]).name is None
