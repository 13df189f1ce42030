"""A store in a directory of its own, and short ways to fill it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from kaos_backend.engine.store.model import BranchKey, CommitKey, RepoKey
from kaos_backend.engine.store.store import Store

DATA = RepoKey("default", "data")
MASTER = BranchKey(DATA, "master")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    opened = Store.open(tmp_path / "engine")
    with opened.write() as txn:
        txn.create_repo(DATA)
    yield opened
    opened.close()


def put(store: Store, files: Mapping[str, bytes], finish: bool = True) -> CommitKey:
    """A commit on `MASTER` with these files added."""
    with store.upload() as upload:
        for path, content in files.items():
            upload.add(path, "", content)
        upload.seal()
        with store.write() as txn:
            commit = txn.start_commit(MASTER)
            txn.apply(commit, upload)
            if finish:
                txn.finish_commit(commit)
    return commit


def content(store: Store, commit: CommitKey) -> dict[str, bytes]:
    """Every file of a commit."""
    root = store.inspect_commit(commit).root
    return {
        entry.path: b"".join(store.read_object(entry.hash))
        for entry in store.walk(root)
        if entry.kind == "file"
    }
