"""Paths as long as they may be: everything works on them; longer ones are refused by name."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path

import grpc
import pytest
from pachyderm_sdk import Client
from pachyderm_sdk.api import pfs

from kaos_backend.engine.store.check import findings
from kaos_backend.engine.store.model import RepoKey
from kaos_backend.engine.store.names import MAX_NAME_BYTES, MAX_PATH_BYTES
from kaos_backend.engine.store.store import Store
from kaos_formats.folders import remove_tree

from .refusals import refused

MASTER = pfs.Branch.from_uri("data@master")
LEVELS = MAX_PATH_BYTES // 2 - 4
DEEP = "/d" * (LEVELS - 1)


@pytest.fixture(autouse=True)
def data_repo(client: Client) -> None:
    client.pfs.create_repo(repo=pfs.Repo.from_uri("data"))


@pytest.fixture
def commit(client: Client) -> pfs.Commit:
    with client.pfs.commit(branch=MASTER) as opened:
        opened.put_file_from_bytes(f"{DEEP}/f", b"deep")
    return opened


def test_it_is_read_back(client: Client, commit: pfs.Commit) -> None:
    assert client.pfs.pfs_file(pfs.File(commit=commit, path=f"{DEEP}/f")).read() == b"deep"
    walked = [info.file.path for info in client.pfs.walk_file(file=pfs.File(commit=commit, path="/"))]
    assert len(walked) == LEVELS + 1
    assert walked[-1] == f"{DEEP}/f"
    for pattern in ("/**f", "/*" * LEVELS, "/d" * (LEVELS - 1) + "/(f|g)"):
        found = client.pfs.glob_file(commit=commit, pattern=pattern)
        assert [info.file.path for info in found] == [f"{DEEP}/f"], pattern
    archive = b"".join(m.value for m in client.pfs.get_file_tar(file=pfs.File(commit=commit, path="/")))
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        assert tar.getmembers()[-1].name == f"{DEEP}/f"


def test_it_is_changed(client: Client, commit: pfs.Commit) -> None:
    with client.pfs.commit(branch=MASTER) as second:
        second.put_file_from_bytes(f"{DEEP}/g", b"more")
        copy = pfs.CopyFile(dst="/e/", datum="other", src=pfs.File(commit=commit, path="/d/"))
        requests = [pfs.ModifyFileRequest(set_commit=second), pfs.ModifyFileRequest(copy_file=copy)]
        client.pfs.modify_file(iter(requests))
    changed = client.pfs.diff_file(
        new_file=pfs.File(commit=second, path="/"), old_file=pfs.File(commit=commit, path="/")
    )
    files = [info.new_file.file.path for info in changed if info.new_file.file_type == pfs.FileType.FILE]
    assert files == [f"{DEEP}/g", f"/e{DEEP[2:]}/f"]
    with client.pfs.commit(branch=MASTER) as third:
        third.delete_file(path=f"{DEEP}/f")
        third.delete_file(path=f"{DEEP}/g")
        third.delete_file(path="/e/")
    assert list(client.pfs.walk_file(file=pfs.File(commit=third, path="/"))) == []


def test_it_is_laid_out_and_checked(store: Store, commit: pfs.Commit, tmp_path: Path) -> None:
    (found,) = store.list_commits(RepoKey("default", "data"))
    assert found.root is not None
    store.materialize(found.root, "/", tmp_path / "inputs" / ("0" * 64))
    try:
        assert Path(f"{tmp_path}/inputs/{'0' * 64}{DEEP}/f").read_bytes() == b"deep"
    finally:
        # What removes the temporary directories of tests cannot remove this.
        assert remove_tree(tmp_path / "inputs") == ""
    assert findings(store) == []


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("/d" * 3_000, f"the path has 6000 characters, at most {MAX_PATH_BYTES}"),
        ("/a/" + "n" * (MAX_NAME_BYTES + 1), f"the name has 256 characters, at most {MAX_NAME_BYTES}"),
    ],
)
def test_what_is_too_long_is_refused_by_name(client: Client, path: str, text: str) -> None:
    commit = client.pfs.start_commit(branch=MASTER)
    source = pfs.File(commit=commit, path="/")
    for change in (
        pfs.ModifyFileRequest(add_file=pfs.AddFile(path=path, raw=b"x")),
        pfs.ModifyFileRequest(copy_file=pfs.CopyFile(dst=path, src=source)),
    ):
        requests = [pfs.ModifyFileRequest(set_commit=commit), change]
        with refused(grpc.StatusCode.INVALID_ARGUMENT, text):
            client.pfs.modify_file(iter(requests))
