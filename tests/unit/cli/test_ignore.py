from __future__ import annotations

from pathlib import Path

import pytest

from kaos_cli import bundle
from kaos_cli.errors import KaosError
from tests.support.bundles import write_data


def packed(folder: Path) -> list[str]:
    return [entry.file.path for entry in bundle.read(folder, "data", folder.parent / "cache").entries]


def test_defaults_keep_litter_out_at_any_depth(tmp_path: Path) -> None:
    litter = [".git/HEAD", "a/__pycache__/x.pyc", "a/.venv/bin/python", "node_modules/m", ".DS_Store"]
    data = write_data(tmp_path / "d", dict.fromkeys([*litter, "a/kept", ".hidden"], b""))
    assert packed(data) == [".hidden", "a/kept"]
    ignored = bundle.read(data, "data", tmp_path / "cache").ignored
    assert ignored == (".DS_Store", ".git", "a/.venv", "a/__pycache__", "node_modules")


def test_virtual_environments_of_any_name_stay_out(tmp_path: Path) -> None:
    data = write_data(tmp_path / "d", {"my-env/pyvenv.cfg": b"", "my-env/bin/python": b"", "venv/data": b""})
    assert packed(data) == ["venv/data"]


@pytest.mark.parametrize(
    ("rules", "kept"),
    [
        ("*.log", ["a/keep.txt", "b/c/x.txt", "x.txt"]),
        ("*.log\n!y.log", ["a/keep.txt", "a/y.log", "b/c/x.txt", "x.txt"]),
        ("/x.txt", ["a/keep.txt", "a/y.log", "b/c/x.txt"]),
        ("b/", ["a/keep.txt", "a/y.log", "x.txt"]),
        ("b/**/x.txt\n# a remark\n\n", ["a/keep.txt", "a/y.log", "x.txt"]),
        ("a/*\n!a/keep.txt", ["a/keep.txt", "b/c/x.txt", "x.txt"]),
    ],
)
def test_gitignore_syntax(tmp_path: Path, rules: str, kept: list[str]) -> None:
    files = dict.fromkeys(["x.txt", "a/keep.txt", "a/y.log", "b/c/x.txt"], b"")
    data = write_data(tmp_path / "d", files | {".kaosignore": rules.encode()})
    assert packed(data) == kept


def test_defaults_can_be_taken_back(tmp_path: Path) -> None:
    data = write_data(tmp_path / "d", {".git/HEAD": b"", ".DS_Store": b"", ".kaosignore": b"!.git\n"})
    assert packed(data) == [".git/HEAD"]


@pytest.mark.parametrize("content", [b"\xff\xfe", b"!\n"])
def test_broken_rules_are_told(tmp_path: Path, content: bytes) -> None:
    data = write_data(tmp_path / "d", {"f": b"", ".kaosignore": content})
    with pytest.raises(KaosError, match="kaosignore") as caught:
        packed(data)
    assert caught.value.code == "invalid_bundle"
