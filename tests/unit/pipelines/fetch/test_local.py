from __future__ import annotations

import os
from pathlib import Path

import pytest
from kaos_pipelines.fetch.errors import FetchFailed

from tests.unit.pipelines.fetch.conftest import Fetching


def test_files_and_folders(fetching: Fetching, tmp_path: Path) -> None:
    folder = tmp_path / "da ta#1"
    (folder / "sub").mkdir(parents=True)
    (folder / "a?b").write_bytes(b"1")
    (folder / "sub/b").write_bytes(b"2" * 3_000_000)
    (folder / "sub/c").symlink_to("b")
    base = (tmp_path / "da").as_uri() + "%20ta%231"
    lines: list[dict[str, object]] = [
        {"url": f"{base}/a%3Fb", "path": "a"},
        {"url": f"{base}/", "path": "x/"},
    ]
    fetching.any_name = True
    tree = fetching(*lines)
    assert fetching.files(tree) == {
        "a": b"1", "x/a?b": b"1", "x/sub/b": b"2" * 3_000_000, "x/sub/c": b"2" * 3_000_000
    }  # fmt: skip
    assert fetching(*lines) == tree
    (folder / "sub/b").write_bytes(b"3")
    assert fetching.file("x/sub/b", fetching(*lines)) == b"3"


def test_what_is_no_file_is_refused(fetching: Fetching, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "empty").mkdir()
    lines = [
        {"url": (tmp_path / name).as_uri(), "path": path}
        for name, path in (("pipe", "a"), ("none", "b"), ("empty", "c"), ("empty", "d/"), ("none", "e/"))
    ]
    with pytest.raises(FetchFailed) as caught:
        fetching(*lines, {"url": "file:///dev/zero", "path": "f"})
    reasons = [
        "no regular file",
        "there is no",
        "let the path end in a slash",
        "no file in",
        "no folder",
        "no reg",
    ]
    assert [why in caught.value.problems[number] for number, why in enumerate(reasons, 1)] == [True] * 6


def test_folders_that_clash_are_told(fetching: Fetching, tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a").write_bytes(b"")
    with pytest.raises(FetchFailed) as caught:
        fetching(
            {"url": f"file://{tmp_path}/one", "path": "x/"},
            {"url": f"file://{tmp_path}/two", "path": "x/"},
            {"url": f"file://{tmp_path}/two", "path": "y/"},
        )
    assert list(caught.value.problems) == [2]
    assert "line 1 has that file too" in caught.value.problems[2]
