"""GetFile, GetFileTAR, InspectFile, ListFile, WalkFile, GlobFile, DiffFile."""

from __future__ import annotations

import io
import tarfile

import pytest
from pachyderm_sdk.api import pfs

from tests.parity.pachd import NOT_FOUND, UNKNOWN, Pachd, add, delete, file, is_set, paths, refused

TREE = {
    "/a/b/file3.dat": b"three",
    "/a/file2.dat": b"two",
    "/a/z-1": b"",
    "/file1.dat": b"one",
    "/large": bytes(range(256)) * 8192,
}
LARGE = TREE["/large"]


@pytest.fixture
def commit(pachd: Pachd) -> pfs.Commit:
    """A finished commit with TREE."""
    pachd.repo("data")
    return pachd.put("data", TREE)


def members(pachd: Pachd, commit: pfs.Commit, path: str, **more: object) -> dict[str, bytes | None]:
    """name → content (None of a directory) of GetFileTAR, as it comes over the wire."""
    parts = pachd.client.pfs.get_file_tar(file=file(commit, path), **more)
    with tarfile.open(fileobj=io.BytesIO(b"".join(part.value for part in parts))) as archive:
        found = {}
        for member in archive:
            content = archive.extractfile(member)
            found[member.name] = content.read() if content else None
        return found


def glob(pachd: Pachd, commit: pfs.Commit, pattern: str) -> list[str]:
    return paths(pachd.client.pfs.glob_file(commit=commit, pattern=pattern))


def test_a_file_from_an_offset(pachd: Pachd, commit: pfs.Commit) -> None:
    """§7.3: GetFile leaves out `offset` bytes."""
    assert pachd.read(commit, "/large", offset=len(LARGE) - 5) == LARGE[-5:]
    assert pachd.read(commit, "/file1.dat", offset=1) == b"ne"


def test_a_file_opens_as_a_file(pachd: Pachd, commit: pfs.Commit) -> None:
    """§1.6: pfs_file of the SDK, for empty ones too."""
    with pachd.client.pfs.pfs_file(file(commit, "/a/z-1")) as empty:
        assert empty.read() == b""
    with pachd.client.pfs.pfs_file(file(commit, "/large")) as large:
        assert large.read(10) == LARGE[:10]


def test_get_file_wants_one_file(pachd: Pachd, commit: pfs.Commit) -> None:
    """§7.3: the path is a glob; directories and several matches are told to use GetFileTAR."""
    assert pachd.read(commit, "/f*") == b"one"
    with refused(UNKNOWN, "Use GetFileTAR instead"):
        pachd.read(commit, "/a")
    with refused(UNKNOWN, "matched multiple files. Use GetFileTAR instead"):
        pachd.read(commit, "/a/{z-1,file2.dat}")
    with refused(NOT_FOUND, "not found in repo"):
        pachd.read(commit, "/none")


def test_a_tar_has_all_that_the_glob_matches(pachd: Pachd, commit: pfs.Commit) -> None:
    """§7.3: members include directories, their names are absolute."""
    found = members(pachd, commit, "/a")
    files = {name: content for name, content in found.items() if content is not None}
    assert files == {"/a/b/file3.dat": b"three", "/a/file2.dat": b"two", "/a/z-1": b""}
    assert {name.rstrip("/") for name, content in found.items() if content is None} == {"/a", "/a/b"}


def test_a_tar_of_everything(pachd: Pachd, commit: pfs.Commit) -> None:
    """§7.3: `/` is the whole commit."""
    found = {name: content for name, content in members(pachd, commit, "/").items() if content is not None}
    assert found == TREE


def test_the_tar_of_the_sdk_unpacks(pachd: Pachd, commit: pfs.Commit) -> None:
    """§1.6: pfs_tar_file strips the leading slash."""
    with pachd.client.pfs.pfs_tar_file(file(commit, "/a/*.dat")) as archive:
        assert [member.name for member in archive] == ["a/file2.dat"]


def test_a_range_of_paths(pachd: Pachd, commit: pfs.Commit) -> None:
    """§7.3: `path_range` has its lower end and not its upper one."""
    span = pfs.PathRange(lower="/a/file2.dat", upper="/large")
    assert [n for n, c in members(pachd, commit, "/", path_range=span).items() if c is not None] == [
        "/a/file2.dat",
        "/a/z-1",
        "/file1.dat",
    ]


def test_a_tar_of_nothing(pachd: Pachd, commit: pfs.Commit) -> None:
    """§7.3: no match is NOT_FOUND."""
    with refused(NOT_FOUND):
        members(pachd, commit, "/none*")


def test_a_file_says_what_it_is(pachd: Pachd, commit: pfs.Commit) -> None:
    """§7.3: FileInfo; the commit in it has no branch (§3)."""
    info = pachd.client.pfs.inspect_file(file=file(pachd.commit("data"), "/a/b/file3.dat"))
    assert (info.file.path, info.file_type, info.size_bytes) == ("/a/b/file3.dat", pfs.FileType.FILE, 5)
    assert (info.file.commit.id, info.file.commit.branch.name) == (commit.id, "")
    assert is_set(info.committed)


@pytest.mark.parametrize("path", ["/a", "/a/", "a"])
def test_a_directory_says_what_it_is(pachd: Pachd, commit: pfs.Commit, path: str) -> None:
    """§7.3: a trailing slash in the request is ignored; its size is the sum."""
    info = pachd.client.pfs.inspect_file(file=file(commit, path))
    assert (info.file.path, info.file_type, info.size_bytes) == ("/a/", pfs.FileType.DIR, 8)


def test_what_is_missing_is_not_found(pachd: Pachd, commit: pfs.Commit) -> None:
    """§7.3: InspectFile of paths and commits; path_exists of the SDK tells them apart."""
    with refused(NOT_FOUND):
        pachd.client.pfs.inspect_file(file=file(commit, "/none"))
    with refused(NOT_FOUND):
        pachd.client.pfs.inspect_file(file=file(pachd.commit("data", "none"), "/a"))
    assert not pachd.client.pfs.path_exists(file(commit, "/none"))
    with pytest.raises(ValueError, match="commit does not exist"):
        pachd.client.pfs.path_exists(file(pachd.commit("data", "none"), "/a"))


def test_the_root_of_an_empty_commit(pachd: Pachd) -> None:
    """§7.3: NOT_FOUND to inspect, an empty stream to walk."""
    pachd.repo("data")
    pachd.client.pfs.create_branch(branch=pachd.branch("data"))
    with refused(NOT_FOUND):
        pachd.client.pfs.inspect_file(file=file(pachd.commit("data"), "/"))
    assert paths(pachd.client.pfs.walk_file(file=file(pachd.commit("data"), "/"))) == []


def test_a_listing(pachd: Pachd, commit: pfs.Commit) -> None:
    """§7.3: immediate children, sorted; a file lists itself; a missing directory nothing."""
    assert paths(pachd.client.pfs.list_file(file=file(commit, "/"))) == ["/a/", "/file1.dat", "/large"]
    assert set(paths(pachd.client.pfs.list_file(file=file(commit, "/a")))) == {
        "/a/b/",
        "/a/file2.dat",
        "/a/z-1",
    }
    assert paths(pachd.client.pfs.list_file(file=file(commit, "/large"))) == ["/large"]
    assert paths(pachd.client.pfs.list_file(file=file(commit, "/none"))) == []


def test_pages_of_a_listing(pachd: Pachd, commit: pfs.Commit) -> None:
    """§7.3: the marker is excluded; reverse needs a number, and that has a limit."""

    def page(**options: object) -> list[str]:
        return paths(pachd.client.pfs.list_file(file=file(commit, "/"), **options))

    assert page(number=2) == ["/a/", "/file1.dat"]
    assert page(number=2, pagination_marker=file(commit, "/file1.dat")) == ["/large"]
    assert page(number=1, reverse=True) == ["/large"]
    with refused(UNKNOWN, "number must be > 0 when reverse is true"):
        page(reverse=True)
    with refused(UNKNOWN, "cannot return more than 100000 files"):
        page(number=100_001)


def test_a_walk(pachd: Pachd, commit: pfs.Commit) -> None:
    """§7.3: depth first, directories before what is in them, beginning with the one asked for."""
    walked = paths(pachd.client.pfs.walk_file(file=file(commit, "/a")))
    assert walked == ["/a/", "/a/b/", "/a/b/file3.dat", "/a/file2.dat", "/a/z-1"]
    with refused(NOT_FOUND, "does not contain item"):
        list(pachd.client.pfs.walk_file(file=file(commit, "/none")))


@pytest.mark.parametrize(
    ("pattern", "found"),
    [
        ("/", ["/"]),
        ("/*", ["/a/", "/file1.dat", "/large"]),
        ("*", ["/a/", "/file1.dat", "/large"]),
        ("/a/", ["/a/"]),
        ("/a/*", ["/a/b/", "/a/file2.dat", "/a/z-1"]),
        ("/**.dat", ["/a/b/file3.dat", "/a/file2.dat", "/file1.dat"]),
        ("/file?.dat", ["/file1.dat"]),
        ("/file[0-9].dat", ["/file1.dat"]),
        ("/file[!0-9].dat", []),
        ("/file[[:digit:]].dat", ["/file1.dat"]),
        ("/{large,file1.dat}", ["/file1.dat", "/large"]),
        ("/(large|a)", ["/a/", "/large"]),
        ("/@(large|a)", ["/a/", "/large"]),
        ("/!(large|a)", ["/file1.dat"]),
        ("/+(l|a|r|g|e)", ["/a/", "/large"]),
        ("/f?(i)le1.dat", ["/file1.dat"]),
        ("/f*(i|l|e)1.dat", ["/file1.dat"]),
        ("/none*", []),
    ],
)
def test_globs(pachd: Pachd, commit: pfs.Commit, pattern: str, found: list[str]) -> None:
    """§7.4: whole paths, files and directories; §7.3: no match is an empty stream."""
    assert glob(pachd, commit, pattern) == found


def test_two_stars_match_at_every_level(pachd: Pachd, commit: pfs.Commit) -> None:
    """§7.4: `/**` yields all files and all directories."""
    assert set(glob(pachd, commit, "/**")) >= {*TREE, "/a/", "/a/b/"}


def test_differences_to_the_parent(pachd: Pachd, commit: pfs.Commit) -> None:
    """§7.3: DiffFile, directories included; a path of one side has only that."""
    second = pachd.change("data", [add("/a/b/file3.dat", b"+"), add("/new", b""), delete("/file1.dat")])
    found = [
        (one.new_file.file.path, one.old_file.file.path)
        for one in pachd.client.pfs.diff_file(new_file=file(second, "/"))
    ]
    assert found == [
        ("/", "/"),
        ("/a/", "/a/"),
        ("/a/b/", "/a/b/"),
        ("/a/b/file3.dat", "/a/b/file3.dat"),
        ("", "/file1.dat"),
        ("/new", ""),
    ]


def test_differences_of_two_commits(pachd: Pachd, commit: pfs.Commit) -> None:
    """§7.3: `old_file` may be any; nothing differs from itself."""
    pachd.put("data", {"/x": b"1"})
    third = pachd.change("data", [delete("/x")])
    diff = pachd.client.pfs.diff_file
    assert list(diff(new_file=file(third, "/"), old_file=file(commit, "/"))) == []
    assert len(list(diff(new_file=file(third, "/")))) == 2, "the root and /x"


def test_an_open_commit_can_be_read(pachd: Pachd, commit: pfs.Commit) -> None:
    """§7.3: its base and what was written so far; `committed` is not set yet."""
    started = pachd.start("data")
    pachd.client.pfs.put_file_from_bytes(commit=started, path="/new", data=b"1")
    assert set(pachd.files(started)) == {*TREE, "/new"}
    assert not is_set(pachd.client.pfs.inspect_file(file=file(started, "/new")).committed)


def test_a_commit_on_an_open_base_cannot_be_read(pachd: Pachd, commit: pfs.Commit) -> None:
    """§7.3: `unfinished`."""
    pachd.repo("out")
    out = pachd.branch("out")
    pachd.client.pfs.create_branch(branch=out, provenance=[pachd.branch("data")])
    pachd.put("data", {"/x": b"1"})
    with refused(UNKNOWN, "unfinished"):
        list(pachd.client.pfs.list_file(file=file(pachd.head(out), "/")))


def test_what_differs_between_two_paths(pachd: Pachd) -> None:
    """§7.3: DiffFile merges both listings by path, so that nothing of two folders is the same."""
    pachd.repo("a", {"/x/1": b"1", "/y/1": b"1"})
    head = pachd.commit("a")
    pairs = list(pachd.client.pfs.diff_file(new_file=file(head, "/x"), old_file=file(head, "/y")))
    assert [one.new_file.file.path for one in pairs if one.is_set("new_file")] == ["/x/", "/x/1"]
    assert [one.old_file.file.path for one in pairs if one.is_set("old_file")] == ["/y/", "/y/1"]


def test_what_differs_between_two_repos(pachd: Pachd) -> None:
    """§7.3: DiffFile by path, whatever the commits are of; equal folders are left out."""
    pachd.repo("a", {"/d/1": b"1", "/e/2": b"2", "/only-a": b""})
    pachd.repo("b", {"/d/1": b"1", "/e/2": b"other"})
    pairs = pachd.client.pfs.diff_file(
        new_file=file(pachd.commit("a"), "/"), old_file=file(pachd.commit("b"), "/")
    )
    assert [(one.new_file.file.path, one.old_file.file.path) for one in pairs] == [
        ("/", "/"),
        ("/e/", "/e/"),
        ("/e/2", "/e/2"),
        ("/only-a", ""),
    ]
    same = {"new_file": file(pachd.commit("a"), "/d"), "old_file": file(pachd.commit("b"), "/d")}
    assert list(pachd.client.pfs.diff_file(**same)) == []


def test_files_by_their_datum(pachd: Pachd) -> None:
    """§7.3: `file.datum` restricts to one tag, in answers it is the tag."""
    pachd.repo("data")
    commit = pachd.change("data", [add("/1", b"1", "one"), add("/2", b"2", "two"), add("/3", b"3")])
    by_datum = pfs.File(commit=commit, path="/*", datum="two")
    with pachd.client.pfs.pfs_tar_file(by_datum) as tar:
        assert [name.lstrip("/") for name in tar.getnames()] == ["2"]
    found = {one.file.path: one.file.datum for one in pachd.client.pfs.list_file(file=file(commit, "/"))}
    assert found == {"/1": "one", "/2": "two", "/3": "default"}
