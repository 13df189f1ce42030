"""Archives are unpacked as if they came from an enemy."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest
import zstandard

from kaos_cli.errors import KaosError
from kaos_cli.extract import place, staging, unpack
from tests.unit.cli.samples import archive


def get(content: bytes, out: Path, force: bool = False) -> None:
    with staging(out) as staged:
        unpack(io.BytesIO(content), staged)
        place(staged, out, force)


def tarred(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w") as tar:
        for info, content in members:
            info.size = len(content)
            tar.addfile(info, io.BytesIO(content))
    return zstandard.ZstdCompressor().compress(raw.getvalue())


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    return info


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_files_come_out_as_they_went_in(tmp_path: Path) -> None:
    content = {"m/a": b"x" * 3_000_000, "m/deep/er/b": b"", "m/run": b"#!"}
    get(archive(content, executable=("m/run",)), tmp_path / "out")
    assert files(tmp_path / "out") == content
    assert (tmp_path / "out/m/run").stat().st_mode & 0o111
    assert not (tmp_path / "out/m/a").stat().st_mode & 0o111


@pytest.mark.parametrize(
    "bad",
    [
        member("../evil"),
        member("a/../../evil"),
        member("/evil"),
        member("link", tarfile.SYMTYPE, "/etc/passwd"),
        member("hard", tarfile.LNKTYPE, "/etc/passwd"),
        member("pipe", tarfile.FIFOTYPE),
        member("dev", tarfile.CHRTYPE),
        member(".", tarfile.REGTYPE),
    ],
    ids=lambda info: info.name,
)
def test_hostile_members_are_refused_and_leave_nothing(tmp_path: Path, bad: tarfile.TarInfo) -> None:
    out = tmp_path / "out"
    with pytest.raises(KaosError, match="refused"):
        get(tarred((member("good"), b"1"), (bad, b"")), out)
    assert list(tmp_path.iterdir()) == []


def test_one_name_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(KaosError, match="twice"):
        get(tarred((member("f"), b"1"), (member("f"), b"2")), tmp_path / "out")


@pytest.mark.parametrize("keep", [0.0, 0.3, 0.9])
def test_stream_that_breaks_off_leaves_nothing(tmp_path: Path, keep: float) -> None:
    import os

    whole = archive({"m/a": os.urandom(500_000), "m/b": os.urandom(500_000)})
    with pytest.raises(KaosError) as caught:
        get(whole[: int(len(whole) * keep)], tmp_path / "out")
    assert caught.value.code == "connection_lost"
    assert list(tmp_path.iterdir()) == []


def test_garbage_is_told(tmp_path: Path) -> None:
    with pytest.raises(KaosError, match="broke off"):
        get(b"<html>" * 100, tmp_path / "out")


def test_other_content_is_never_overwritten(tmp_path: Path) -> None:
    out = tmp_path / "out"
    get(archive({"a": b"1", "b": b"2"}), out)
    (out / "mine").write_bytes(b"kept")
    with pytest.raises(KaosError, match="another content") as caught:
        get(archive({"a": b"1", "b": b"changed", "c": b"3"}), out)
    assert caught.value.code == "exists"
    assert "--force" in caught.value.hint
    assert files(out) == {"a": b"1", "b": b"2", "mine": b"kept"}
    get(archive({"a": b"1", "b": b"changed", "c": b"3"}), out, force=True)
    assert files(out) == {"a": b"1", "b": b"changed", "c": b"3", "mine": b"kept"}


def test_same_content_again_is_fine(tmp_path: Path) -> None:
    for _ in range(2):
        get(archive({"a/b": b"1"}), tmp_path / "out")
    assert files(tmp_path / "out") == {"a/b": b"1"}


def test_force_never_writes_through_a_link(tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    (victim / "sub").mkdir(parents=True)
    (victim / "file").write_bytes(b"safe")
    out = tmp_path / "out"
    out.mkdir()
    (out / "file").symlink_to(victim / "file")
    (out / "sub").symlink_to(victim / "sub")
    content = archive({"file": b"new", "sub/x": b"new"})
    with pytest.raises(KaosError, match="another content"):
        get(content, out)
    get(content, out, force=True)
    assert files(victim) == {"file": b"safe"}
    assert files(out) == {"file": b"new", "sub/x": b"new"}


def test_file_where_a_folder_must_be(tmp_path: Path) -> None:
    out = tmp_path / "out"
    get(archive({"a": b"1", "b/c": b"2"}), out)
    other = archive({"a/x": b"3", "b": b"4"})
    with pytest.raises(KaosError, match="another content"):
        get(other, out)
    get(other, out, force=True)
    assert files(out) == {"a/x": b"3", "b": b"4"}


def test_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(KaosError, match="cannot write") as caught:
        get(archive({"a": b""}), tmp_path / "file/out")
    assert "-o" in caught.value.hint
