from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from pachyderm_sdk.api import pfs

from kaos_backend.domain.models import AddFile, CopyFile, DeleteFile
from kaos_backend.pachd import wire

TEXT = st.text("ab/é.", max_size=200)


def repo(project: str, name: str) -> pfs.Repo:
    return pfs.Repo(name=name, type="user", project=pfs.Project(name=project))


@given(TEXT, st.binary(max_size=300))
def test_added_files_are_what_the_sdk_writes(path: str, data: bytes) -> None:
    expected = pfs.ModifyFileRequest(add_file=pfs.AddFile(path=path, raw=data))
    assert bytes(wire.encode("p", AddFile(path, data))) == bytes(expected)


@given(TEXT)
def test_deleted_files(path: str) -> None:
    read = pfs.ModifyFileRequest.FromString(bytes(wire.encode("p", DeleteFile(path))))
    assert read.delete_file.path == path


@given(TEXT, TEXT)
def test_copied_files(src: str, dst: str) -> None:
    read = pfs.ModifyFileRequest.FromString(bytes(wire.encode("p", CopyFile(dst, "data", "c" * 32, src))))
    commit = pfs.Commit(repo=repo("p", "data"), id="c" * 32)
    assert read.copy_file == pfs.CopyFile(dst=dst, src=pfs.File(commit=commit, path=src))


def test_set_commit() -> None:
    read = pfs.ModifyFileRequest.FromString(bytes(wire.set_commit("p", "source", "c" * 32)))
    assert read.set_commit == pfs.Commit(repo=repo("p", "source"), id="c" * 32)


def test_large_data_has_a_long_length() -> None:
    data = bytes(5 * 1024 * 1024)
    read = pfs.ModifyFileRequest.FromString(bytes(wire.encode("p", AddFile("/x", data))))
    assert read.add_file.raw == data
