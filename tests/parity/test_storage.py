"""`storage.Fileset`, chunks, the cache, and what looks after a server's storage."""

from __future__ import annotations

from pathlib import Path

import betterproto.lib.google.protobuf as google
import pytest
from pachyderm_sdk.api import pfs, storage

from tests.parity.pachd import INVALID, NOT_FOUND, UNIMPLEMENTED, UNKNOWN, Pachd, file, refused

Pieces = dict[str, bytes]


def append(path: str, data: bytes | None) -> storage.CreateFilesetRequest:
    return storage.CreateFilesetRequest(append_file=storage.AppendFile(path=path, data=data))


def made(pachd: Pachd, *changes: storage.CreateFilesetRequest) -> str:
    return str(pachd.client.storage.create_fileset(iter(changes)).fileset_id)


def read(pachd: Pachd, id: str, *filters: storage.FileFilter, empty: bool = False) -> Pieces:
    """path → content, put together from the messages."""
    found: Pieces = {}
    for message in pachd.client.storage.read_fileset(fileset_id=id, filters=list(filters), empty_files=empty):
        found[message.path] = found.get(message.path, b"") + (message.data or b"")
    return found


def matching(pattern: str) -> storage.FileFilter:
    return storage.FileFilter(path_regex=pattern)


def between(lower: str, upper: str) -> storage.FileFilter:
    return storage.FileFilter(path_range=storage.PathRange(lower=lower, upper=upper))


TREE = {"/a/1": b"one", "/a/2": b"", "/b/3": b"three" * 2_000_000}


def test_what_is_appended_is_read(pachd: Pachd) -> None:
    """§8: storage.Fileset; files only, by path, large ones in several messages."""
    id = made(pachd, *(append(path, data) for path, data in reversed(TREE.items())), append("/a/1", b"!"))
    found = read(pachd, id)
    assert found == {**TREE, "/a/1": b"one!"}
    assert list(found) == sorted(found)
    assert read(pachd, id, empty=True) == dict.fromkeys(TREE, b"")


def test_deletes_and_copies(pachd: Pachd) -> None:
    """§8: delete_file and copy_file; what is missing is nothing."""
    first = made(pachd, *(append(path, b"x") for path in ("/d/1", "/d/2", "/e")))
    copy = storage.CreateFilesetRequest(
        copy_file=storage.CopyFile(fileset_id=first, src="/d/", dst="/copied/")
    )
    same = storage.CreateFilesetRequest(copy_file=storage.CopyFile(fileset_id=first, src="/e"))
    none = storage.CreateFilesetRequest(copy_file=storage.CopyFile(fileset_id=first, src="/none"))
    gone = storage.CreateFilesetRequest(delete_file=storage.DeleteFile(path="/new"))
    assert read(pachd, made(pachd, append("/new", b"y"), gone, copy, same, none, gone)) == {
        "/copied/1": b"x",
        "/copied/2": b"x",
        "/e": b"x",
    }


def test_filters(pachd: Pachd) -> None:
    """§8: ranges of paths and Go's regular expressions, unanchored; a file has to pass them all."""
    id = made(pachd, *(append(f"/{name}", b"") for name in ("a", "ab", "b", "c/a")))
    assert list(read(pachd, id, matching("a$"))) == ["/a", "/c/a"]
    assert list(read(pachd, id, matching(r"^/\w+$"))) == ["/a", "/ab", "/b"]
    assert list(read(pachd, id, between("/ab", "/c"))) == ["/ab", "/b"]
    assert list(read(pachd, id, between("/ab", ""), matching("a"))) == ["/ab", "/c/a"]


@pytest.mark.embedded("whose words and status these are is not said")
def test_a_pattern_that_is_none(pachd: Pachd) -> None:
    """§8: what RE2 does not have either is refused."""
    id = made(pachd, append("/a", b""))
    for pattern in ("(", r"(a)\1", "(?=a)"):
        with refused(INVALID, "is no regular expression"):
            read(pachd, id, matching(pattern))


def test_both_services_have_the_same_file_sets(pachd: Pachd) -> None:
    """§8: made here, added to a commit there, and the other way round."""
    pachd.repo("data")
    commit = pachd.start("data")
    pachd.client.pfs.add_file_set(commit=commit, file_set_id=made(pachd, append("/f", b"1")))
    pachd.client.pfs.finish_commit(commit=commit)
    assert pachd.files(commit) == {"/f": b"1"}
    id = pachd.client.pfs.get_file_set(commit=commit).file_set_id
    assert read(pachd, id) == {"/f": b"1"}


def test_composing_sharding_and_renewing(pachd: Pachd) -> None:
    """§8: in the order given; the parts cover all of it."""
    ids = [made(pachd, append("/f", data), append(f"/{data.decode()}", data)) for data in (b"1", b"2")]
    both = pachd.client.storage.compose_fileset(fileset_ids=ids, ttl_seconds=60).fileset_id
    assert read(pachd, both) == {"/1": b"1", "/2": b"2", "/f": b"12"}
    for measure in ({"num_files": 1}, {"size_bytes": 1}):
        shards = pachd.client.storage.shard_fileset(fileset_id=both, **measure).shards
        parts = [read(pachd, both, between(one.lower, one.upper)) for one in shards]
        assert len(parts) > 1
        assert {path: data for part in parts for path, data in part.items()} == read(pachd, both)
        assert sum(map(len, parts)) == 3
    pachd.client.storage.renew_fileset(fileset_id=both, ttl_seconds=60)
    with refused(UNKNOWN, "exceeds max ttl"):
        pachd.client.storage.renew_fileset(fileset_id=both, ttl_seconds=10_000)


def test_a_file_set_that_is_not(pachd: Pachd) -> None:
    """§8: neither read nor composed."""
    none = "0" * 32
    for call in (
        lambda: read(pachd, none),
        lambda: pachd.client.storage.compose_fileset(fileset_ids=[none], ttl_seconds=60),
        lambda: pachd.client.storage.renew_fileset(fileset_id=none, ttl_seconds=60),
        lambda: pachd.client.storage.shard_fileset(fileset_id=none),
    ):
        with refused(NOT_FOUND):
            call()


def test_a_file_set_put_together_by_the_sdk(pachd: Pachd, tmp_path: Path) -> None:
    """§8: references to chunks, fetched over HTTP, checked, and kept for the next time."""
    id, cache, out = made(pachd, *(append(path, data) for path, data in TREE.items())), "cache", "out"
    sdk = pachd.client.storage
    sdk.assemble_fileset(id, "/", tmp_path / out, cache_location=tmp_path / cache)
    written = [path for path in (tmp_path / out).rglob("*") if path.is_file()]
    assert {f"/{path.relative_to(tmp_path / out)}": path.read_bytes() for path in written} == TREE
    chunks = {path.name for path in (tmp_path / cache).iterdir()}
    assert len(chunks) >= 2
    # Another one: the cache holds all it needs, without any server.
    sdk.assemble_fileset(
        id, "/b", tmp_path / "b", cache_location=tmp_path / cache, fetch_missing_chunks=False
    )
    assert (tmp_path / "b" / "b" / "3").read_bytes() == TREE["/b/3"]
    sdk.fetch_chunks(id, "/a", cache_location=tmp_path / cache, prune=True)
    assert len(list((tmp_path / cache).iterdir())) == 1


def test_values_are_cached(pachd: Pachd) -> None:
    """§8: by key, cleared by the beginning of their tag."""
    prefix = pachd.project.name
    value = google.Any(type_url="type.googleapis.com/x", value=b"1")
    call = pachd.client.pfs
    call.put_cache(key=f"{prefix}/1", value=value, tag=f"{prefix}-a")
    call.put_cache(key=f"{prefix}/2", value=value, tag=f"{prefix}-b", file_set_ids=[made(pachd)])
    assert call.get_cache(key=f"{prefix}/1").value.value == b"1"
    call.clear_cache(tag_prefix=f"{prefix}-a")
    with refused(NOT_FOUND):
        call.get_cache(key=f"{prefix}/1")
    assert call.get_cache(key=f"{prefix}/2").value.type_url == value.type_url
    call.clear_cache(tag_prefix=prefix)
    with refused(NOT_FOUND):
        call.get_cache(key=f"{prefix}/2")


def test_storage_is_counted_and_read(pachd: Pachd) -> None:
    """§8: CheckStorage, in a range of hashes."""
    pachd.repo("data", {"/1": b"check me", "/2": b"me too"})
    check = pachd.client.pfs.check_storage
    total = check(read_chunk_data=True).chunk_object_count
    assert total >= 1
    parts = [check(chunk_end=b"\x80"), check(chunk_begin=b"\x80")]
    assert sum(part.chunk_object_count for part in parts) == total


@pytest.mark.embedded("pachd has credentials of buckets and databases")
def test_there_is_nowhere_else_to_write(pachd: Pachd) -> None:
    """§8: Egress, and §7.3: GetFile with a URL, are refused with what to do instead."""
    commit = pachd.put(pachd.repo("data").name, {"/f": b"1"})
    bucket = "s3://bucket/path"
    with refused(UNIMPLEMENTED, "read the files and write them"):
        pachd.client.pfs.egress(commit=commit, object_storage=pfs.ObjectStorageEgress(url=bucket))
    with refused(UNIMPLEMENTED, "read the files and write them"):
        list(pachd.client.pfs.get_file(file=file(commit, "/f"), url=bucket))
