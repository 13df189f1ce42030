"""File sets."""

from __future__ import annotations

from pachyderm_sdk.api import pfs

from tests.parity.pachd import UNKNOWN, Pachd, add, delete, refused


def held(id: str) -> pfs.Commit:
    return pfs.Commit(repo=pfs.Repo(name="__filesets__"), id=id)


def made(pachd: Pachd, *ops: pfs.ModifyFileRequest) -> str:
    return str(pachd.client.pfs.create_file_set(iter(ops)).file_set_id)


def test_a_file_set_is_read_like_a_commit(pachd: Pachd) -> None:
    """§8: through the virtual repo `__filesets__`."""
    id = made(pachd, add("/a/f", b"1"), add("/g", b"2"))
    assert pachd.files(held(id)) == {"/a/f": b"1", "/g": b"2"}


def test_file_sets_are_layered_in_order(pachd: Pachd) -> None:
    """§8: ComposeFileSet."""
    first = made(pachd, add("/f", b"1"), add("/gone", b"x"))
    second = made(pachd, add("/f", b"2"), delete("/gone"))
    both = pachd.client.pfs.compose_file_set(file_set_ids=[first, second], ttl_seconds=60).file_set_id
    assert pachd.files(held(both)) == {"/f": b"12"}


def test_a_file_set_is_added_to_an_open_commit(pachd: Pachd) -> None:
    """§8: AddFileSet appends to what the commit has; not to a finished one."""
    pachd.repo("data", {"/f": b"1"})
    id = made(pachd, add("/f", b"2"), add("/g", b"3"))
    commit = pachd.start("data")
    pachd.client.pfs.add_file_set(commit=commit, file_set_id=id)
    pachd.client.pfs.finish_commit(commit=commit)
    assert pachd.files(commit) == {"/f": b"12", "/g": b"3"}
    with refused(UNKNOWN):
        pachd.client.pfs.add_file_set(commit=commit, file_set_id=id)


def test_the_file_sets_of_a_commit(pachd: Pachd) -> None:
    """§8: GetFileSet of its content, or of its own writes."""
    pachd.repo("data", {"/f": b"1"})
    commit = pachd.put("data", {"/g": b"2"})
    total = pachd.client.pfs.get_file_set(commit=commit).file_set_id
    own = pachd.client.pfs.get_file_set(commit=commit, type=pfs.GetFileSetRequestFileSetType.DIFF)
    assert set(pachd.files(held(total))) == {"/f", "/g"}
    assert set(pachd.files(held(own.file_set_id))) == {"/g"}
    again = pachd.client.pfs.get_file_set(commit=held(total)).file_set_id
    assert set(pachd.files(held(again))) == {"/f", "/g"}


def test_how_long_a_file_set_may_be_kept(pachd: Pachd) -> None:
    """§8: from a second to half an hour."""
    id = made(pachd, add("/f", b"1"))
    pachd.client.pfs.renew_file_set(file_set_id=id, ttl_seconds=60)
    with refused(UNKNOWN, "exceeds max ttl"):
        pachd.client.pfs.renew_file_set(file_set_id=id, ttl_seconds=10_000)
    with refused(UNKNOWN, "must be at least one second"):
        pachd.client.pfs.renew_file_set(file_set_id=id, ttl_seconds=0)


def test_a_file_set_in_parts(pachd: Pachd) -> None:
    """§8: ShardFileSet answers with ranges of paths that cover it."""
    id = made(pachd, *(add(f"/{n:02}", b"x") for n in range(10)))
    shards = pachd.client.pfs.shard_file_set(file_set_id=id, num_files=3).shards
    assert len(shards) > 1
    found = [
        info.file.path
        for shard in shards
        for info in pachd.client.pfs.glob_file(commit=held(id), pattern="/*", path_range=shard)
    ]
    assert found == [f"/{n:02}" for n in range(10)]
