"""Files that a `file:` URL names: what becomes of them, and what is refused."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from kaos_backend.engine.errors import Changed, EngineError, InvalidArgument, Unknown
from kaos_backend.engine.facade.pfs.urls import local_path
from kaos_backend.engine.store.check import findings
from kaos_backend.engine.store.model import CommitKey
from kaos_backend.engine.store.store import Store
from kaos_backend.engine.store.trees.named import add_named

from .conftest import MASTER, content
from .test_folder import FILES, LARGE, Meddling, kept_nothing, lay_out


def add(store: Store, path: object, dst: str = "/in", recursive: bool = True) -> CommitKey:
    with store.upload() as upload:
        for _ in add_named(upload, str(path), dst, "", recursive):
            pass
        upload.seal()
        with store.write() as txn:
            key = txn.start_commit(MASTER)
            txn.apply(key, upload)
            txn.finish_commit(key)
    return key


def test_a_folder_and_a_file(store: Store, tmp_path: Path) -> None:
    top = lay_out(tmp_path / "folder", FILES)
    (top / "nothing/in/it").mkdir(parents=True)
    below = {f"/in/{path}": data for path, data in FILES.items()}
    assert content(store, add(store, f"{top}//")) == below
    again = add(store, top / "a/large", "/in/z", recursive=False)
    assert content(store, again) == below | {"/in/z": FILES["z"] + FILES["a/large"]}, "it is appended"
    (tmp_path / "way").symlink_to(tmp_path / "folder/a")
    assert content(store, add(store, tmp_path / "way/1", "/x"))["/x"] == FILES["a/1"], "on the way one may be"
    assert findings(store) == []


def special(make: Callable[[Path], object]) -> Callable[[Path], object]:
    return lambda top: ((top / "z").unlink(), make(top / "z"))


@pytest.mark.parametrize(
    ("spoil", "kind", "told"),
    [
        (special(lambda path: path.symlink_to("a/1")), InvalidArgument, "folder/z is a symlink"),
        (special(lambda path: path.symlink_to("a")), InvalidArgument, "folder/z is a symlink"),
        (special(os.mkfifo), InvalidArgument, "folder/z is a named pipe"),
        (special(lambda path: os.mknod(path, stat.S_IFSOCK | 0o600)), InvalidArgument, "is a socket"),
        (lambda top: (top / "b*").write_bytes(b""), Unknown, "globbing character"),
        (lambda top: (top / "b\udcff").mkdir() or (top / "b\udcff/c").touch(), Unknown, "printable ASCII"),
    ],
)
def test_what_a_folder_must_not_have(
    store: Store,
    tmp_path: Path,
    spoil: Callable[[Path], object],
    kind: type[EngineError],
    told: str,
) -> None:
    top = lay_out(tmp_path / "folder", FILES)
    spoil(top)
    with pytest.raises(kind, match=told):
        add(store, top)
    assert kept_nothing(store)


def test_what_is_no_file_and_no_folder(store: Store, tmp_path: Path) -> None:
    top = lay_out(tmp_path / "folder", FILES)
    (tmp_path / "link").symlink_to("folder")
    link = tmp_path / "link"
    for path in (link, f"{link}/", "/dev/null", f"{top}/../folder", "folder/z", "", "/", "/a\0"):
        with pytest.raises(InvalidArgument):
            add(store, path)
    with pytest.raises(InvalidArgument, match="set `recursive`"):
        add(store, top, recursive=False)
    for path in (top / "none", top / "z/below"):
        with pytest.raises(Unknown, match="cannot be read"):
            add(store, path)
    with pytest.raises(Unknown, match="a file needs a name"):
        add(store, top / "z", "/")
    assert kept_nothing(store)


@pytest.mark.parametrize(
    "act",
    [
        lambda top: os.truncate(top / "a/large", LARGE // 2),
        lambda top: os.truncate(top / "a/large", 2 * LARGE),
        lambda top: (top / "a/large").write_bytes(b"M" * LARGE),
        # What comes later in the folder, and has not been listed yet.
        lambda top: ((top / "a-b").rename(top / "z2"), (top / "a-b").symlink_to("z2")),
    ],
)
def test_what_changes_meanwhile(tmp_path: Path, act: Callable[[Path], object]) -> None:
    top = lay_out(tmp_path / "folder", FILES)
    first = iter([act])
    store = Store.open(tmp_path / "engine", disk=Meddling(lambda: [act(top) for act in first]))
    with pytest.raises(Changed):
        add(store, top)
    assert kept_nothing(store)
    store.close()


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs /proc")
def test_a_file_that_says_it_is_empty_and_is_not(store: Store) -> None:
    with pytest.raises(Changed):
        add(store, f"/proc/{os.getpid()}/status")
    assert kept_nothing(store)


@pytest.mark.parametrize(
    ("url", "path"),
    [
        ("file:///data/a%20b%3f%23%ff", "/data/a b?#\udcff"),
        ("FILE://localhost/x", "/x"),
        ("file:/x", "/x"),
        ("http://host/x", None),
        ("/x", None),
        ("http://[", None),
    ],
)
def test_file_urls(url: str, path: str | None) -> None:
    assert local_path(url) == path


@pytest.mark.parametrize("url", ["file://host/x", "file://x", "file:///x?y", "file:///x#y"])
def test_urls_of_other_machines(url: str) -> None:
    with pytest.raises(InvalidArgument, match="file:///PATH"):
        local_path(url)
