"""ModifyFile: put, append, delete, copy, tags."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest
from pachyderm_sdk.api import pfs
from pachyderm_sdk.interceptor import MetadataClientInterceptor

from tests.parity.pachd import PRECONDITION, UNKNOWN, Pachd, add, delete, file, is_set, refused


def copy(src: pfs.File, dst: str, append: bool = False) -> pfs.ModifyFileRequest:
    return pfs.ModifyFileRequest(copy_file=pfs.CopyFile(src=src, dst=dst, append=append))


@pytest.fixture(autouse=True)
def data(pachd: Pachd) -> None:
    pachd.repo("data")


def test_what_is_put_is_read_back(pachd: Pachd) -> None:
    """§7.2: contents of many messages, and none."""
    large = bytes(range(256)) * 100_000
    commit = pachd.start("data")
    for path, content in (("/a/b", b"1"), ("/empty", b""), ("/large", large)):
        pachd.client.pfs.put_file_from_bytes(commit=commit, path=path, data=content)
    pachd.client.pfs.finish_commit(commit=commit)
    assert pachd.files(commit) == {"/a/b": b"1", "/empty": b"", "/large": large}


def test_putting_replaces(pachd: Pachd) -> None:
    """§7.2: a delete_file and an add_file in one stream."""
    pachd.put("data", {"/f": b"old and long"})
    assert pachd.files(pachd.put("data", {"/f": b"new"})) == {"/f": b"new"}


def test_adding_appends(pachd: Pachd) -> None:
    """§7.2: within a stream, over streams of a commit, and over the parent."""
    commit = pachd.start("data")
    pachd.modify(commit, add("/f", b"1"), add("/f", b"2"))
    pachd.modify(commit, add("/f", b"3"))
    pachd.client.pfs.finish_commit(commit=commit)
    assert pachd.read(commit, "/f") == b"123"
    assert pachd.read(pachd.change("data", [add("/f", b"4")]), "/f") == b"1234"
    assert pachd.read(commit, "/f") == b"123", "the parent keeps what it had"


def test_appends_to_several_files_may_alternate(pachd: Pachd) -> None:
    """§7.2: the order within one stream is kept."""
    commit = pachd.change("data", [add(path, b"%d" % n) for n in range(5) for path in ("/x", "/y")])
    assert pachd.files(commit) == {"/x": b"01234", "/y": b"01234"}


def test_no_content_makes_an_empty_file(pachd: Pachd) -> None:
    """§7.2: an add_file without source, and one with an empty one."""
    assert pachd.files(pachd.change("data", [add("/none", None), add("/empty", b"")])) == {
        "/none": b"",
        "/empty": b"",
    }


def test_deleting(pachd: Pachd) -> None:
    """§7.2: a file; what is missing is no error."""
    pachd.put("data", {"/f": b"1", "/g": b"2"})
    assert pachd.files(pachd.change("data", [delete("/f"), delete("/never")])) == {"/g": b"2"}


def test_directories_are_deleted_with_a_slash(pachd: Pachd) -> None:
    """§7.2: without it the directory stays; `/` clears everything."""
    pachd.put("data", {"/d/f": b"1", "/d/e/g": b"2", "/h": b"3"})
    assert len(pachd.files(pachd.change("data", [delete("/d")]))) == 3
    assert pachd.files(pachd.change("data", [delete("/d/")])) == {"/h": b"3"}
    assert pachd.files(pachd.change("data", [delete("/")])) == {}


def test_copies(pachd: Pachd) -> None:
    """§7.2: files and directories, from any commit and repo."""
    source = pachd.put("data", {"/d/f": b"1", "/d/e/g": b"2"})
    pachd.repo("other")
    commit = pachd.change("other", [copy(file(source, "/d"), "/all"), copy(file(source, "/d/f"), "/one")])
    assert pachd.files(commit) == {"/all/f": b"1", "/all/e/g": b"2", "/one": b"1"}


def test_copies_replace_or_append(pachd: Pachd) -> None:
    """§7.2: `append`; a source that is missing is silently nothing."""
    source = pachd.put("data", {"/f": b"1", "/g": b"2", "/h": b"3"})
    commit = pachd.change(
        "data",
        [
            copy(file(source, "/f"), "/g"),
            copy(file(source, "/f"), "/h", append=True),
            copy(file(source, "/none"), "/new"),
        ],
    )
    assert pachd.files(commit) == {"/f": b"1", "/g": b"1", "/h": b"31"}


def test_equal_content_has_an_equal_hash(pachd: Pachd) -> None:
    """§7.3: files and directories, wherever they are."""
    one = pachd.put("data", {"/d/f": b"1", "/x/f": b"1", "/y/f": b"2"})

    def hash(path: str) -> bytes:
        return bytes(pachd.client.pfs.inspect_file(file=file(one, path)).hash)

    assert hash("/d") == hash("/x") != hash("/y")
    assert hash("/d/f") == hash("/x/f") != hash("/y/f")
    assert len(hash("/d/f")) == 32


@pytest.mark.parametrize(
    ("path", "text"),
    [
        *((f"/a{char}b", "globbing character") for char in "*?[]{}!()@+^"),
        ("/ümlaut", "only printable ASCII characters allowed"),
        ("/tab\t", "only printable ASCII characters allowed"),
        ("/../up", "relative file paths are not allowed"),
        ("/a/./b", "relative file paths are not allowed"),
    ],
)
def test_paths_that_are_refused(pachd: Pachd, path: str, text: str) -> None:
    """§7.1: and the stream that has one leaves nothing."""
    commit = pachd.start("data")
    with refused(UNKNOWN, text):
        pachd.modify(commit, add("/fine", b"x"), add(path, b"x"))
    assert pachd.files(commit) == {}


def test_tags_keep_files_apart(pachd: Pachd) -> None:
    """§7.2: a delete of another tag's file does nothing."""
    commit = pachd.start("data")
    pachd.modify(commit, add("/f", b"1", "datum1"))
    pachd.modify(commit, delete("/f"))
    assert pachd.client.pfs.path_exists(file(commit, "/f"))
    pachd.modify(commit, delete("/f", "datum1"))
    assert not pachd.client.pfs.path_exists(file(commit, "/f"))


def test_one_path_of_two_tags_is_the_error_of_the_commit(pachd: Pachd) -> None:
    """§7.1: `duplicate path output by different datums`."""
    commit = pachd.change("data", [add("/f", b"1", "datum1"), add("/f", b"2", "datum2")])
    error = pachd.client.pfs.inspect_commit(commit=commit).error
    assert "duplicate path output by different datums (/f)" in error


def test_a_file_where_a_directory_is_is_the_error_of_the_commit(pachd: Pachd) -> None:
    """§7.1: `file / directory path collision`."""
    commit = pachd.change("data", [add("/a", b"1"), add("/a/b", b"2")])
    assert "file / directory path collision (/a)" in pachd.client.pfs.inspect_commit(commit=commit).error


def test_a_stream_names_its_commit_first_and_once(pachd: Pachd) -> None:
    """§7.2: `first message must be a commit`, `cannot set commit`."""
    with refused(UNKNOWN, "first message must be a commit"):
        pachd.client.pfs.modify_file(iter([add("/f", b"1")]))
    commit = pachd.start("data")
    with refused(UNKNOWN, "cannot set commit"):
        pachd.modify(commit, pfs.ModifyFileRequest(set_commit=commit))


def test_a_finished_commit_takes_no_writes(pachd: Pachd) -> None:
    """§7.2: when it is named by its id."""
    commit = pachd.put("data", {"/f": b"1"})
    with refused(UNKNOWN, "has already finished"):
        pachd.modify(commit, add("/g", b"1"))


def test_a_branch_takes_a_stream_as_a_commit_of_its_own(pachd: Pachd) -> None:
    """§7.2: the one-off makes the branch, starts and finishes; each stream is its own commit set."""
    target = pfs.Commit(branch=pachd.branch("data"))
    pachd.modify(target, add("/one", b"1"))
    pachd.modify(target, add("/two", b"2"))
    infos = list(pachd.client.pfs.list_commit(repo=pachd.named("data")))
    assert len(infos) == 2
    assert {info.origin.kind for info in infos} == {pfs.OriginKind.USER}
    assert set(pachd.files(pachd.commit("data"))) == {"/one", "/two"}


def test_an_open_head_takes_the_stream_of_its_branch(pachd: Pachd) -> None:
    """§7.2: and stays open."""
    commit = pachd.start("data")
    pachd.modify(pfs.Commit(branch=pachd.branch("data")), add("/f", b"1"))
    assert pachd.read(commit, "/f") == b"1"
    assert not is_set(pachd.client.pfs.inspect_commit(commit=commit).finishing)


def test_a_stream_into_an_output_branch_is_refused(pachd: Pachd) -> None:
    """§7.2: `cannot start a commit on an output branch`."""
    out = pachd.derived("out", "data")
    with refused(UNKNOWN, "cannot start a commit on an output branch"):
        pachd.modify(pfs.Commit(branch=out), add("/f", b"1"))


def test_a_broken_stream_leaves_nothing(pachd: Pachd) -> None:
    """§7.2: it is applied when the client has sent all of it."""
    commit = pachd.start("data")

    def breaks() -> Iterator[pfs.ModifyFileRequest]:
        yield pfs.ModifyFileRequest(set_commit=commit)
        yield add("/f", bytes(1 << 20))
        raise KeyError("the client is gone")

    with pytest.raises(grpc.RpcError):
        pachd.client.pfs.modify_file(breaks())
    assert pachd.files(commit) == {}


def test_streams_into_one_commit_both_land(pachd: Pachd) -> None:
    """§20.2, 6: concurrent streams into one open commit."""
    commit = pachd.start("data")
    threads = [
        threading.Thread(target=pachd.modify, args=(commit, *(add(f"/{name}/{n}", b"") for n in range(50))))
        for name in "abcd"
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(pachd.files(commit)) == 200


def test_a_scheme_that_nobody_knows(pachd: Pachd) -> None:
    """§7.2, URL sources: `unrecognized object store`; the failed fetch fails the stream."""
    commit = pachd.start("data")
    with refused(UNKNOWN, "unrecognized object store"):
        pachd.client.pfs.put_file_from_url(commit=commit, path="/f", url="gopher://x/y")
    assert pachd.files(commit) == {}


def add_url(path: str, url: str, recursive: bool = False) -> pfs.ModifyFileRequest:
    source = pfs.AddFileUrlSource(url=url, recursive=recursive)
    return pfs.ModifyFileRequest(add_file=pfs.AddFile(path=path, url=source))


@contextmanager
def own_socket(pachd: Pachd) -> Iterator[pfs.ApiStub]:
    """The API over the server's Unix socket."""
    token = MetadataClientInterceptor([("authn-token", pachd.address.token)])
    with grpc.insecure_channel(f"unix:{pachd.address.socket}") as channel:
        yield pfs.ApiStub(grpc.intercept_channel(channel, token))


@pytest.mark.embedded("its machine's files are for its own user, where a pachd's are for everybody")
def test_files_of_the_servers_machine(pachd: Pachd, tmp_path: Path) -> None:
    """§7.2, URL sources, `file`: a file, or a folder with `recursive`; appended as anything else."""
    files = {"a b.txt": b"small", "deep/er/empty": b"", "deep/large": bytes(range(256)) * 8000}
    for name, content in files.items():
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).write_bytes(content)
    folder, one = (tmp_path / "in").as_uri(), (tmp_path / "in/a b.txt").as_uri()
    commit = pachd.start("data")
    changes = [add("/all/deep/large", b"before "), add_url("/all", folder, True), add_url("/one", one)]
    with own_socket(pachd) as api:
        api.modify_file(iter([pfs.ModifyFileRequest(set_commit=commit), *changes]))
        with refused(grpc.StatusCode.INVALID_ARGUMENT, "is a folder"):
            api.modify_file(iter([pfs.ModifyFileRequest(set_commit=commit), add_url("/x", folder)]))
    landed = {f"/all/{name}": content for name, content in files.items()} | {"/one": b"small"}
    landed["/all/deep/large"] = b"before " + files["deep/large"]
    assert pachd.files(commit) == landed
    with refused(PRECONDITION, "on the engine's Unix socket only, to its own user"):
        pachd.client.pfs.put_file_from_url(commit=commit, path="/tcp", url=one)
    assert pachd.files(commit) == landed
