from __future__ import annotations

from pathlib import Path

import pytest

from kaos_formats.files import read_json, write_atomically
from tests.support.stubborn import stubborn


@pytest.mark.parametrize("durable", [True, False])
def test_files_are_replaced_whole(tmp_path: Path, durable: bool) -> None:
    path = tmp_path / "x.json"
    write_atomically(path, b'{"a": 1}', durable=durable)
    write_atomically(path, b'{"a": 2}', durable=durable)
    assert read_json(path) == {"a": 2}
    assert path.stat().st_mode & 0o777 == 0o600
    assert [p.name for p in tmp_path.iterdir()] == ["x.json"]


def test_a_folder_is_replaced_too(tmp_path: Path) -> None:
    (tmp_path / "x" / "full").mkdir(parents=True)
    write_atomically(tmp_path / "x", b"new")
    assert (tmp_path / "x").read_bytes() == b"new"
    assert [p.name for p in tmp_path.iterdir()] == ["x"]


def test_what_cannot_be_replaced_stays_and_nothing_is_left_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "x"
    path.write_bytes(b"old")
    with stubborn(tmp_path) as held:
        held.immutable(path)
        with pytest.raises(PermissionError):
            write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("text", ["", "{", "[1]", "3", "[" * 100_000])
def test_what_is_no_object_reads_as_empty(tmp_path: Path, text: str) -> None:
    (tmp_path / "x").write_text(text)
    assert read_json(tmp_path / "x") == {}
    assert read_json(tmp_path / "missing") == {}
