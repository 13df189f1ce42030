"""Files through the SDK: what is written, what is read back, and the rules of paths, tags and globs."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import grpc
import pytest
from betterproto.lib.google.protobuf import BytesValue
from pachyderm_sdk import Client
from pachyderm_sdk.api import pfs

from kaos_backend.engine.store.store import Store

from .refusals import refused

MASTER = pfs.Branch.from_uri("data@master")
LARGE = bytes(range(256)) * 8192


@pytest.fixture(autouse=True)
def data_repo(client: Client) -> None:
    client.pfs.create_repo(repo=pfs.Repo.from_uri("data"))


@pytest.fixture
def commit(client: Client) -> pfs.Commit:
    """A finished commit with a few files."""
    with client.pfs.commit(branch=MASTER) as opened:
        opened.put_file_from_bytes("/a/file2.dat", b"two")
        opened.put_file_from_bytes("/a/b/file3.dat", b"three")
        opened.put_file_from_bytes("/a/b-c", b"dash")
        opened.put_file_from_bytes("/file1.dat", b"one")
        opened.put_file_from_bytes("/empty", b"")
        opened.put_file_from_bytes("/large.bin", LARGE)
    return opened


def file(commit: pfs.Commit, path: str) -> pfs.File:
    return pfs.File(commit=commit, path=path)


def modify(client: Client, commit: pfs.Commit, *ops: pfs.ModifyFileRequest) -> None:
    client.pfs.modify_file(iter([pfs.ModifyFileRequest(set_commit=commit), *ops]))


def add(path: str, raw: bytes, datum: str = "") -> pfs.ModifyFileRequest:
    return pfs.ModifyFileRequest(add_file=pfs.AddFile(path=path, raw=raw, datum=datum))


def paths(infos: Iterator[pfs.FileInfo]) -> list[str]:
    return [info.file.path for info in infos]


def test_what_is_written_is_read_back(client: Client, commit: pfs.Commit) -> None:
    for path, content in (("/file1.dat", b"one"), ("/empty", b""), ("/large.bin", LARGE), ("a/b-c", b"dash")):
        assert client.pfs.pfs_file(file(commit, path)).read() == content
    tail = client.pfs.get_file(file=file(commit, "/large.bin"), offset=len(LARGE) - 5)
    assert list(tail) == [BytesValue(value=LARGE[-5:])]


def test_infos_say_what_a_file_is(client: Client, commit: pfs.Commit) -> None:
    info = client.pfs.inspect_file(file=file(commit, "/a/b/file3.dat"))
    assert (info.size_bytes, info.file_type, len(info.hash)) == (5, pfs.FileType.FILE, 32)
    assert (info.file.commit.id, info.file.commit.branch.name, info.file.datum) == (commit.id, "", "default")
    assert info.committed.year > 1970
    for path in ("/a", "/a/", "a"):
        found = client.pfs.inspect_file(file=file(commit, path))
        assert (found.file.path, found.file_type, found.size_bytes) == ("/a/", pfs.FileType.DIR, 12)
    assert client.pfs.inspect_file(file=file(commit, "/")).file.path == "/"
    assert client.pfs.path_exists(file(commit, "/a"))
    assert not client.pfs.path_exists(file(commit, "/nowhere"))


def test_listing_walking_globbing(client: Client, commit: pfs.Commit) -> None:
    assert paths(client.pfs.list_file(file=file(commit, "/"))) == [
        "/a/",
        "/empty",
        "/file1.dat",
        "/large.bin",
    ]
    assert paths(client.pfs.list_file(file=file(commit, "/a"))) == ["/a/b-c", "/a/b/", "/a/file2.dat"]
    assert paths(client.pfs.list_file(file=file(commit, "/empty"))) == ["/empty"]
    assert paths(client.pfs.list_file(file=file(commit, "/missing"))) == []
    walked = ["/a/", "/a/b-c", "/a/b/", "/a/b/file3.dat", "/a/file2.dat"]
    assert paths(client.pfs.walk_file(file=file(commit, "/a"))) == walked
    assert paths(client.pfs.glob_file(commit=commit, pattern="/a/*")) == ["/a/b-c", "/a/b/", "/a/file2.dat"]
    assert paths(client.pfs.glob_file(commit=commit, pattern="/**.dat")) == [
        "/a/b/file3.dat",
        "/a/file2.dat",
        "/file1.dat",
    ]
    assert paths(client.pfs.glob_file(commit=commit, pattern="/")) == ["/"]
    assert paths(client.pfs.glob_file(commit=commit, pattern="nothing*")) == []


def test_pages_of_a_listing(client: Client, commit: pfs.Commit) -> None:
    def page(**options: object) -> list[str]:
        return paths(client.pfs.list_file(file=file(commit, "/"), **options))

    assert page(number=2) == ["/a/", "/empty"]
    assert page(number=2, pagination_marker=file(commit, "/empty")) == ["/file1.dat", "/large.bin"]
    assert page(number=1, reverse=True) == ["/large.bin"]
    with refused(grpc.StatusCode.UNKNOWN, "number must be > 0 when reverse is true"):
        page(reverse=True)
    with refused(grpc.StatusCode.UNKNOWN, "cannot return more than 100000 files"):
        page(number=100_001)


def test_what_is_not_there_is_not_found(client: Client, commit: pfs.Commit) -> None:
    with refused(grpc.StatusCode.NOT_FOUND, "not found in repo"):
        list(client.pfs.get_file(file=file(commit, "/nope")))
    with refused(grpc.StatusCode.NOT_FOUND, "does not contain item: (/nope)"):
        list(client.pfs.walk_file(file=file(commit, "/nope")))
    with refused(grpc.StatusCode.NOT_FOUND, "not found"):
        client.pfs.inspect_file(file=file(commit, "/nope"))
    with refused(grpc.StatusCode.NOT_FOUND, "not found"):
        client.pfs.inspect_file(file=pfs.File.from_uri("data@gone:/a"))


def test_get_file_wants_one_file(client: Client, commit: pfs.Commit) -> None:
    with refused(grpc.StatusCode.UNKNOWN, "Use GetFileTAR instead"):
        list(client.pfs.get_file(file=file(commit, "/a")))
    with refused(grpc.StatusCode.UNKNOWN, "matched multiple files. Use GetFileTAR instead"):
        list(client.pfs.get_file(file=file(commit, "/a/{b-c,file2.dat}")))
    assert b"".join(part.value for part in client.pfs.get_file(file=file(commit, "/f*"))) == b"one"


def test_a_tar_of_everything(client: Client, commit: pfs.Commit, tmp_path: Path) -> None:
    with client.pfs.pfs_tar_file(file(commit, "/")) as archive:
        archive.extractall(tmp_path, filter="tar")
    assert (tmp_path / "large.bin").read_bytes() == LARGE
    assert (tmp_path / "a/b/file3.dat").read_bytes() == b"three"
    assert (tmp_path / "empty").read_bytes() == b""
    with client.pfs.pfs_tar_file(file(commit, "/a/*")) as archive:
        assert [member.name for member in archive] == ["a/b-c", "a/b", "a/b/file3.dat", "a/file2.dat"]


def test_append_overwrite_delete(client: Client) -> None:
    with client.pfs.commit(branch=MASTER) as opened:
        opened.put_file_from_bytes("/log", b"1")
        opened.put_file_from_bytes("/log", b"2", append=True)
        opened.put_file_from_bytes("/gone", b"x")
        opened.put_file_from_bytes("/dir/one", b"x")
    with client.pfs.commit(branch=MASTER) as second:
        second.put_file_from_bytes("/log", b"3", append=True)
        assert client.pfs.pfs_file(file(second, "/log")).read() == b"123"
        second.delete_file(path="/gone")
        second.delete_file(path="/never was")
        second.delete_file(path="/dir")
        assert client.pfs.path_exists(file(second, "/dir/one")), "a directory needs its slash to be deleted"
        second.delete_file(path="/dir/")
    assert paths(client.pfs.walk_file(file=file(second, "/"))) == ["/", "/log"]
    assert client.pfs.pfs_file(file(opened, "/log")).read() == b"12", "the parent keeps what it had"
    with client.pfs.commit(branch=MASTER) as third:
        third.put_file_from_bytes("/log", b"new")
    assert client.pfs.pfs_file(file(third, "/log")).read() == b"new"


def test_interleaved_appends_keep_their_order(client: Client) -> None:
    with client.pfs.commit(branch=MASTER) as opened:
        modify(client, opened, *(add(path, b"%d" % turn) for turn in range(5) for path in ("/x", "/y")))
    assert client.pfs.pfs_file(file(opened, "/x")).read() == b"01234"
    assert client.pfs.pfs_file(file(opened, "/y")).read() == b"01234"


def test_copies_are_by_reference(client: Client, commit: pfs.Commit, store: Store) -> None:
    client.pfs.create_repo(repo=pfs.Repo.from_uri("other"))
    with client.pfs.commit(branch=pfs.Branch.from_uri("other@master")) as opened:
        opened.copy_file(src=file(commit, "/"), dst="/all")
        opened.copy_file(src=file(commit, "/large.bin"), dst="/big")
        opened.copy_file(src=file(commit, "/file1.dat"), dst="/all/empty", append=True)
        opened.copy_file(src=file(commit, "/missing"), dst="/m")
    assert client.pfs.pfs_file(file(opened, "/big")).read() == LARGE
    assert client.pfs.pfs_file(file(opened, "/all/empty")).read() == b"one"
    assert client.pfs.pfs_file(file(opened, "/all/a/b/file3.dat")).read() == b"three"
    one = client.pfs.inspect_file(file=file(commit, "/a"))
    two = client.pfs.inspect_file(file=file(opened, "/all/a"))
    assert one.hash == two.hash, "equal content has an equal hash"
    with store.read() as db:
        assert db.execute("SELECT COUNT(*) FROM objects WHERE pack IS NULL").fetchone()[0] == 1


@pytest.mark.parametrize(
    ("path", "text"),
    [
        ("/a*b", "globbing character (*) not allowed in path"),
        ("/a[b", "globbing character ([) not allowed in path"),
        ("/ümlaut", "only printable ASCII characters allowed"),
        ("/tab\t", "only printable ASCII characters allowed"),
        ("/../up", "relative file paths are not allowed"),
        ("/a/./b", "relative file paths are not allowed"),
        ("", "a file needs a name"),
    ],
)
def test_paths_that_are_refused(client: Client, path: str, text: str) -> None:
    with client.pfs.commit(branch=MASTER) as opened, refused(grpc.StatusCode.UNKNOWN, text):
        modify(client, opened, add("/fine", b"x"), add(path, b"x"))
    assert paths(client.pfs.walk_file(file=file(opened, "/"))) == [], "a stream is all or nothing"


def test_streams_need_their_commit_first_and_once(client: Client) -> None:
    with refused(grpc.StatusCode.UNKNOWN, "first message must be a commit"):
        client.pfs.modify_file(iter([add("/a", b"x")]))
    with refused(grpc.StatusCode.UNKNOWN, "first message must be a commit"):
        client.pfs.modify_file(iter([]))
    opened = client.pfs.start_commit(branch=MASTER)
    with refused(grpc.StatusCode.UNKNOWN, "cannot set commit"):
        modify(client, opened, pfs.ModifyFileRequest(set_commit=opened))


def test_finished_commits_take_no_writes(client: Client, commit: pfs.Commit) -> None:
    with refused(grpc.StatusCode.UNKNOWN, "has already finished"):
        modify(client, commit, add("/x", b"x"))


def test_a_branch_takes_a_stream_as_a_commit_of_its_own(client: Client) -> None:
    target = pfs.Commit(branch=MASTER)
    modify(client, target, add("/one", b"1"))
    modify(client, target, add("/two", b"2"))
    infos = list(client.pfs.list_commit(repo=pfs.Repo.from_uri("data")))
    assert len(infos) == 2
    assert all(info.finished.year > 1970 and info.origin.kind == pfs.OriginKind.USER for info in infos)
    assert paths(client.pfs.list_file(file=file(pfs.Commit.from_uri("data@master"), "/"))) == ["/one", "/two"]
    opened = client.pfs.start_commit(branch=MASTER)
    modify(client, target, add("/three", b"3"))
    assert client.pfs.path_exists(file(opened, "/three")), "an open head takes the stream"
    assert client.pfs.inspect_commit(commit=opened).finishing.year == 1970


def test_path_collisions_become_the_error_of_the_commit(client: Client) -> None:
    with client.pfs.commit(branch=MASTER) as opened:
        opened.put_file_from_bytes("/a", b"file")
        opened.put_file_from_bytes("/a/b", b"file below a file")
    assert "file / directory path collision (/a)" in opened.wait().error
    with client.pfs.commit(branch=MASTER) as second:
        modify(client, second, add("/d/x", b"1", "datum1"), add("/d/x", b"2", "datum2"))
    assert "duplicate path output by different datums (/d/x)" in second.wait().error
    with client.pfs.commit(branch=MASTER) as third:
        third.put_file_from_bytes("/ok", b"")
    assert third.wait().error == ""
    assert paths(client.pfs.walk_file(file=file(third, "/"))) == ["/", "/ok"], "errored commits are no base"


def test_tags_keep_files_apart(client: Client) -> None:
    with client.pfs.commit(branch=MASTER) as opened:
        modify(client, opened, add("/x", b"1", "datum1"))
        opened.delete_file(path="/x")
        assert client.pfs.path_exists(file(opened, "/x")), "another tag's file stays"
        deletion = pfs.ModifyFileRequest(delete_file=pfs.DeleteFile(path="/x", datum="datum1"))
        modify(client, opened, deletion)
        assert not client.pfs.path_exists(file(opened, "/x"))


def test_differences(client: Client, commit: pfs.Commit) -> None:
    with client.pfs.commit(branch=MASTER) as opened:
        opened.put_file_from_bytes("/a/b/file3.dat", b"changed")
        opened.put_file_from_bytes("/new", b"")
        opened.delete_file(path="/empty")
    found = [
        (one.new_file.file.path, one.old_file.file.path)
        for one in client.pfs.diff_file(new_file=file(opened, "/"))
    ]
    assert found == [
        ("/", "/"),
        ("/a/", "/a/"),
        ("/a/b/", "/a/b/"),
        ("/a/b/file3.dat", "/a/b/file3.dat"),
        ("", "/empty"),
        ("/new", ""),
    ]


def test_a_broken_stream_leaves_nothing(client: Client, store: Store) -> None:
    opened = client.pfs.start_commit(branch=MASTER)

    def breaks() -> Iterator[pfs.ModifyFileRequest]:
        yield pfs.ModifyFileRequest(set_commit=opened)
        for number in range(20):
            yield add(f"/f{number}", LARGE[: 100_000 + number])
        raise KeyError("the network is gone")

    version = store.changes.version()
    with pytest.raises(grpc.RpcError):
        client.pfs.modify_file(breaks())
    client.pfs.finish_commit(commit=opened)
    assert store.changes.version() == version + 1
    assert paths(client.pfs.walk_file(file=file(opened, "/"))) == []


def test_streams_into_one_commit_both_land(client: Client) -> None:
    opened = client.pfs.start_commit(branch=MASTER)
    threads = [
        threading.Thread(
            target=modify, args=(client, opened, *(add(f"/{name}/{i}", b"x") for i in range(50)))
        )
        for name in "abcd"
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    client.pfs.finish_commit(commit=opened)
    assert len(paths(client.pfs.glob_file(commit=opened, pattern="/*/*"))) == 200


class _Web(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        if self.path == "/moved":
            self.send_response(302)
            self.send_header("Location", "/page")
            self.end_headers()
            return
        self.send_response(200 if self.path == "/page" else 404)
        self.end_headers()
        self.wfile.write(b"a page")

    def log_message(self, format: str, *args: object) -> None:
        """Stay quiet."""


@pytest.fixture
def web() -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Web)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_urls_are_fetched(client: Client, web: str) -> None:
    with client.pfs.commit(branch=MASTER) as opened:
        opened.put_file_from_url(path="/page", url=f"{web}/page")
        opened.put_file_from_url(path="/moved", url=f"{web}/moved")
        with refused(grpc.StatusCode.UNKNOWN, "error retrieving content from"):
            opened.put_file_from_url(path="/gone", url=f"{web}/gone")
        with refused(grpc.StatusCode.FAILED_PRECONDITION, "on the engine's Unix socket only"):
            opened.put_file_from_url(path="/passwd", url="file:///etc/passwd")
        with refused(grpc.StatusCode.UNKNOWN, "unrecognized object store: gopher"):
            opened.put_file_from_url(path="/x", url="gopher://x/y")
    assert client.pfs.pfs_file(file(opened, "/moved")).read() == b"a page"
    assert paths(client.pfs.list_file(file=file(opened, "/"))) == ["/moved", "/page"]


def test_file_sets(client: Client, commit: pfs.Commit) -> None:
    first = client.pfs.create_file_set(iter([add("/one", b"1"), add("/file1.dat", b"+")])).file_set_id
    second = client.pfs.create_file_set(
        iter([pfs.ModifyFileRequest(delete_file=pfs.DeleteFile(path="/one")), add("/two", b"2")])
    ).file_set_id
    both = client.pfs.compose_file_set(file_set_ids=[first, second], ttl_seconds=60).file_set_id
    client.pfs.renew_file_set(file_set_id=both, ttl_seconds=60)
    held = pfs.Commit(repo=pfs.Repo(name="__filesets__"), id=both)
    assert paths(client.pfs.list_file(file=file(held, "/"))) == ["/file1.dat", "/two"]
    opened = client.pfs.start_commit(branch=MASTER)
    client.pfs.add_file_set(commit=opened, file_set_id=both)
    client.pfs.finish_commit(commit=opened)
    assert client.pfs.pfs_file(file(opened, "/file1.dat")).read() == b"one+"
    total = client.pfs.get_file_set(commit=commit).file_set_id
    held = pfs.Commit(repo=pfs.Repo(name="__filesets__"), id=total)
    assert client.pfs.pfs_file(file(held, "/a/b-c")).read() == b"dash"
    changed = client.pfs.get_file_set(commit=opened, type=pfs.GetFileSetRequestFileSetType.DIFF).file_set_id
    held = pfs.Commit(repo=pfs.Repo(name="__filesets__"), id=changed)
    assert paths(client.pfs.list_file(file=file(held, "/"))) == ["/file1.dat", "/two"]
    with refused(grpc.StatusCode.UNKNOWN, "exceeds max ttl"):
        client.pfs.renew_file_set(file_set_id=both, ttl_seconds=10_000)
    with refused(grpc.StatusCode.NOT_FOUND, "file set"):
        client.pfs.renew_file_set(file_set_id="0" * 32, ttl_seconds=10)


def test_a_sound_store_has_no_complaints(client: Client, commit: pfs.Commit) -> None:
    assert list(client.pfs.fsck()) == []


@pytest.mark.timeout(30)
@pytest.mark.parametrize("pattern", ["/" + "*a" * 14 + "b", "/*(*a)b"])
def test_a_hostile_glob_is_answered(client: Client, pattern: str) -> None:
    with client.pfs.commit(branch=MASTER) as commit:
        commit.put_file_from_bytes("/" + "a" * 40, b"")
    assert paths(client.pfs.glob_file(commit=commit, pattern=pattern)) == []
