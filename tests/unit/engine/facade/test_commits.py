"""Commits, commit sets and propagation through the SDK."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import grpc
import pytest
from pachyderm_sdk import Client
from pachyderm_sdk.api import pfs

from kaos_backend.engine.facade import rpc
from kaos_backend.engine.store.store import Store
from kaos_formats import reasons

from .refusals import refused

DATA = pfs.Repo.from_uri("data")
MASTER = pfs.Branch.from_uri("data@master")
OUT = pfs.Branch.from_uri("out@master")


@pytest.fixture(autouse=True)
def repos(client: Client) -> None:
    for name in ("data", "hyper", "out"):
        client.pfs.create_repo(repo=pfs.Repo(name=name))


@pytest.fixture
def pipeline(client: Client) -> None:
    """`out` depends on data and hyper, as the output of a pipeline does."""
    client.pfs.create_branch(branch=OUT, provenance=[MASTER, pfs.Branch.from_uri("hyper@master")])


def finish_by_force(client: Client, commit: pfs.Commit, error: str = "") -> None:
    client.pfs.finish_commit(commit=commit, force=True, error=error)


def commit_once(client: Client, uri: str = "data@master", name: str = "/file") -> pfs.Commit:
    with client.pfs.commit(branch=pfs.Branch.from_uri(uri)) as commit:
        commit.put_file_from_bytes(name, b"content")
    return commit


def ids(infos: object) -> list[str]:
    return [info.commit.id for info in infos]  # type: ignore[attr-defined]


def test_a_commit_lives_from_start_to_finish(client: Client) -> None:
    commit = client.pfs.start_commit(branch=MASTER, description="why")
    assert commit.branch.name == ""
    assert client.pfs.inspect_branch(branch=MASTER).head.id == commit.id, "the head moves at the start"
    info = client.pfs.inspect_commit(commit=commit)
    assert (info.description, info.origin.kind, info.finishing.year) == ("why", pfs.OriginKind.USER, 1970)
    assert not info.is_set("details")
    with refused(grpc.StatusCode.UNKNOWN, "has not been finished"):
        client.pfs.start_commit(branch=MASTER)
    client.pfs.finish_commit(commit=commit, description="because", error="spoilt")
    info = client.pfs.wait_commit(commit)
    assert (info.description, info.error) == ("because", "spoilt")
    assert info.is_set("details")
    with refused(grpc.StatusCode.UNKNOWN, "has already finished") as error:
        client.pfs.finish_commit(commit=commit)
    assert (reasons.KEY, reasons.COMMIT_FINISHED) in error.value.trailing_metadata()  # type: ignore[attr-defined]
    with refused(grpc.StatusCode.UNKNOWN, "cannot clear finished commit"):
        client.pfs.clear_commit(commit=commit)
    with refused(grpc.StatusCode.NOT_FOUND, "repo default/nope not found"):
        client.pfs.start_commit(branch=pfs.Branch.from_uri("nope@master"))
    with refused(grpc.StatusCode.UNKNOWN, "branch must be specified"):
        client.pfs.start_commit(branch=pfs.Branch(repo=DATA))


def test_clearing_goes_back_to_the_base(client: Client) -> None:
    commit_once(client)
    commit = client.pfs.start_commit(branch=MASTER)
    client.pfs.put_file_from_bytes(commit=commit, path="/other", data=b"x")
    client.pfs.delete_file(commit=commit, path="/file")
    client.pfs.clear_commit(commit=commit)
    assert [one.file.path for one in client.pfs.list_file(file=pfs.File(commit=commit, path="/"))] == [
        "/file"
    ]


def test_what_names_a_commit(client: Client) -> None:
    first, second, third = (commit_once(client) for _ in range(3))

    def named(uri: str) -> str:
        return str(client.pfs.inspect_commit(commit=pfs.Commit.from_uri(uri)).commit.id)

    assert named("data@master") == third.id
    assert named("data@master^") == named("data@master~1") == named(f"data@{third.id}^") == second.id
    assert named("data@master^2") == named("data@master.1") == named("data@master^^") == first.id
    assert named("data@master.3") == third.id
    by_branch_and_id = pfs.Commit(branch=MASTER, id="^")
    assert client.pfs.inspect_commit(commit=by_branch_and_id).commit.id == second.id
    branch_in_id = pfs.Commit(repo=DATA, id="master")
    assert client.pfs.inspect_commit(commit=branch_in_id).commit.id == third.id
    with refused(grpc.StatusCode.NOT_FOUND, "past the first commit"):
        named("data@master^3")
    with refused(grpc.StatusCode.UNKNOWN, "invalid ancestry syntax"):
        named("data@master^~")
    with refused(grpc.StatusCode.NOT_FOUND, "branch default/data@gone not found"):
        named("data@gone")
    with refused(grpc.StatusCode.NOT_FOUND, "commit default/data@"):
        named("data@" + "0" * 12 + "4" + "0" * 19)
    with refused(grpc.StatusCode.UNKNOWN, "commit must have a repo"):
        client.pfs.inspect_commit(commit=pfs.Commit(id=first.id))


def test_listing_commits(client: Client) -> None:
    made = [commit_once(client).id for _ in range(4)]
    assert ids(client.pfs.list_commit(repo=DATA)) == made[::-1]
    assert ids(client.pfs.list_commit(repo=DATA, reverse=True, number=2)) == made[:2]
    to = pfs.Commit(repo=DATA, id=made[2])
    from_ = pfs.Commit(repo=DATA, id=made[0])
    assert ids(client.pfs.list_commit(repo=DATA, to=to, from_=from_)) == [made[2], made[1]]
    with refused(grpc.StatusCode.UNKNOWN, "cannot use `from` commit without `to` commit"):
        list(client.pfs.list_commit(repo=DATA, from_=from_))
    with refused(grpc.StatusCode.NOT_FOUND, "repo default/nope not found"):
        list(client.pfs.list_commit(repo=pfs.Repo(name="nope")))
    client.pfs.create_branch(branch=pfs.Branch.from_uri("data@empty"))
    auto = client.pfs.list_commit(repo=DATA, origin_kind=pfs.OriginKind.AUTO)
    assert len(list(auto)) == 1
    third = client.pfs.inspect_commit(commit=to).started
    assert ids(client.pfs.list_commit(repo=DATA, started_time=third)) == [made[1], made[0]]
    later = ids(client.pfs.list_commit(repo=DATA, started_time=third, reverse=True, number=1))
    assert later == [made[3]]


def test_a_fork_builds_on_its_parent(client: Client) -> None:
    first = commit_once(client)
    commit_once(client, name="/second")
    fork = client.pfs.start_commit(branch=pfs.Branch.from_uri("data@fork"), parent=first)
    client.pfs.finish_commit(commit=fork)
    info = client.pfs.inspect_commit(commit=fork)
    assert info.parent_commit.id == first.id
    assert [one.file.path for one in client.pfs.list_file(file=pfs.File(commit=fork, path="/"))] == ["/file"]


@pytest.mark.usefixtures("pipeline")
def test_downstream_commits_appear_with_their_input(client: Client) -> None:
    before = client.pfs.inspect_branch(branch=OUT).head
    finish_by_force(client, before)
    commit = client.pfs.start_commit(branch=MASTER)
    head = client.pfs.inspect_commit(commit=client.pfs.inspect_branch(branch=OUT).head)
    assert head.commit.id == commit.id, "one set id for all of it"
    assert head.parent_commit.id == before.id
    assert head.origin.kind == pfs.OriginKind.AUTO
    hyper = client.pfs.inspect_branch(branch=pfs.Branch.from_uri("hyper@master")).head
    assert [(one.repo.name, one.id) for one in head.direct_provenance] == [
        ("data", commit.id),
        ("hyper", hyper.id),
    ]
    upstream = client.pfs.inspect_commit(commit=pfs.Commit(repo=hyper.repo, id=commit.id))
    assert upstream.commit.id == hyper.id, "a set id names, upstream, what the set was made from"
    assert ids(client.pfs.list_commit(repo=hyper.repo)) == [hyper.id], "what is not downstream gets nothing"
    with refused(grpc.StatusCode.UNKNOWN, "cannot start a commit on an output branch"):
        client.pfs.start_commit(branch=OUT)
    with refused(grpc.StatusCode.UNKNOWN, "cannot finish a pipeline output or meta commit"):
        client.pfs.finish_commit(commit=head.commit)
    infos = list(client.pfs.inspect_commit_set(commit_set=pfs.CommitSet(id=commit.id)))
    assert [(one.commit.repo.name, one.commit.id) for one in infos] == [
        ("data", commit.id),
        ("hyper", hyper.id),
        ("out", commit.id),
    ]
    walked = client.pfs.walk_commit_provenance(start=[pfs.Commit.from_uri(f"out@{commit.id}").as_picker()])
    assert [one.commit.repo.name for one in walked] == ["out", "data", "hyper"]


@pytest.mark.usefixtures("pipeline")
def test_an_output_commit_waits_for_its_base(client: Client) -> None:
    first = client.pfs.inspect_branch(branch=OUT).head
    commit_once(client)
    second = client.pfs.inspect_branch(branch=OUT).head
    with refused(grpc.StatusCode.UNKNOWN, "unfinished"):
        list(client.pfs.list_file(file=pfs.File(commit=second, path="/")))
    client.pfs.put_file_from_bytes(commit=first, path="/result", data=b"1")
    finish_by_force(client, first)
    assert [one.file.path for one in client.pfs.list_file(file=pfs.File(commit=second, path="/"))] == [
        "/result"
    ]
    finish_by_force(client, second, error="failed")
    commit_once(client)
    third = client.pfs.inspect_branch(branch=OUT).head
    assert [one.file.path for one in client.pfs.list_file(file=pfs.File(commit=third, path="/"))] == [
        "/result"
    ]


def in_thread(call: Callable[[], object]) -> tuple[threading.Thread, list[object]]:
    """Start `call`; its result, or the error it raised, ends up in the list."""
    results: list[object] = []

    def run() -> None:
        try:
            results.append(call())
        except grpc.RpcError as error:
            results.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    return thread, results


@pytest.mark.usefixtures("pipeline")
def test_waiting(client: Client) -> None:
    out = client.pfs.inspect_branch(branch=OUT).head
    commit = client.pfs.start_commit(branch=MASTER)
    waits = [
        in_thread(lambda: client.pfs.wait_commit(commit)),
        in_thread(
            lambda: client.pfs.inspect_commit(
                commit=pfs.Commit.from_uri("out@master"), wait=pfs.CommitState.READY
            )
        ),
        in_thread(lambda: client.pfs.wait_commit_set(pfs.CommitSet(id=commit.id))),
    ]
    client.pfs.finish_commit(commit=commit, error="bad input")
    for thread, results in waits[:2]:
        thread.join(10)
        assert results[0].commit.id == commit.id
    assert waits[2][1] == []
    finish_by_force(client, out)
    finish_by_force(client, client.pfs.inspect_branch(branch=OUT).head)
    waits[2][0].join(10)
    assert sorted(one.commit.repo.name for one in waits[2][1][0]) == ["data", "hyper", "out"]
    with refused(grpc.StatusCode.NOT_FOUND, "no commits found for commitset"):
        client.pfs.wait_commit_set(pfs.CommitSet(id="0" * 32))


def test_a_wait_ends_when_its_commit_is_deleted(client: Client) -> None:
    commit = client.pfs.start_commit(branch=MASTER)
    thread, results = in_thread(lambda: client.pfs.wait_commit(commit))
    client.pfs.drop_commit_set(commit_set=pfs.CommitSet(id=commit.id))
    thread.join(10)
    assert results
    assert isinstance(results[0], grpc.RpcError)


def test_a_cancelled_wait_lets_go_of_its_thread(
    client: Client, address: tuple[str, int], store: Store
) -> None:
    commit = client.pfs.start_commit(branch=MASTER)
    request = pfs.SubscribeCommitRequest(repo=DATA, branch="master", state=pfs.CommitState.STARTED)
    with grpc.insecure_channel(f"{address[0]}:{address[1]}") as channel:
        subscribe = channel.unary_stream(
            "/pfs_v2.API/SubscribeCommit",
            request_serializer=pfs.SubscribeCommitRequest.SerializeToString,
            response_deserializer=pfs.CommitInfo.FromString,
        )
        # Calls of earlier tests may not be forgotten yet.
        rpc._woken.clear()
        stream = subscribe(request, metadata=(("authn-token", client.auth_token),))
        assert next(stream).commit.id == commit.id
        deadline = time.monotonic() + 10
        while not rpc._woken:
            assert time.monotonic() < deadline, "the call waits"
            time.sleep(0.01)
        seen = store.changes.version()
        stream.cancel()
        assert store.changes.wait(seen, 10) > seen, "the end of a call wakes what waits for it"


def test_subscribing(client: Client) -> None:
    client.pfs.create_branch(branch=MASTER)
    first = commit_once(client)
    stream = client.pfs.subscribe_commit(repo=DATA, branch="master", state=pfs.CommitState.FINISHED)
    empty = next(stream)
    assert empty.origin.kind == pfs.OriginKind.AUTO
    assert next(stream).commit.id == first.id
    commit_once(client, "data@other")
    second = commit_once(client)
    assert next(stream).commit.id == second.id
    later = client.pfs.subscribe_commit(
        repo=DATA, branch="master", from_=first, state=pfs.CommitState.STARTED
    )
    assert next(later).commit.id == second.id
    stream.close()
    later.close()


@pytest.mark.usefixtures("pipeline")
def test_dropping_a_set(client: Client) -> None:
    base = client.pfs.inspect_branch(branch=MASTER).head
    out = client.pfs.inspect_branch(branch=OUT).head
    finish_by_force(client, out)
    commit = client.pfs.start_commit(branch=MASTER)
    client.pfs.drop_commit_set(commit_set=pfs.CommitSet(id=commit.id))
    assert client.pfs.inspect_branch(branch=MASTER).head.id == base.id
    assert client.pfs.inspect_branch(branch=OUT).head.id == out.id
    assert not client.pfs.commit_exists(commit)
    first, second = commit_once(client), commit_once(client)
    with refused(grpc.StatusCode.UNKNOWN, "cannot drop a commit that has children"):
        client.pfs.drop_commit_set(commit_set=pfs.CommitSet(id=first.id))
    with refused(grpc.StatusCode.NOT_FOUND, "no commits found for commitset"):
        client.pfs.drop_commit_set(commit_set=pfs.CommitSet(id=commit.id))
    with refused(grpc.StatusCode.UNKNOWN, "with subvenance without recursive"):
        client.pfs.drop_commit(commit=second)
    client.pfs.drop_commit(commit=second, recursive=True)
    assert client.pfs.inspect_branch(branch=MASTER).head.id == first.id


def test_dropping_the_first_commit_leaves_an_empty_head(client: Client) -> None:
    commit = commit_once(client)
    client.pfs.drop_commit_set(commit_set=pfs.CommitSet(id=commit.id))
    head = client.pfs.inspect_commit(commit=pfs.Commit.from_uri("data@master"))
    assert head.origin.kind == pfs.OriginKind.AUTO
    assert head.finished.year > 1970
    assert head.size_bytes_upper_bound == 0


def test_squashing_a_set(client: Client) -> None:
    first, second, third = (
        commit_once(client),
        commit_once(client, name="/two"),
        commit_once(client, name="/three"),
    )
    with refused(grpc.StatusCode.UNKNOWN, "cannot squash a commit that has no children"):
        client.pfs.squash_commit_set(commit_set=pfs.CommitSet(id=third.id))
    client.pfs.squash_commit_set(commit_set=pfs.CommitSet(id=second.id))
    assert ids(client.pfs.list_commit(repo=DATA)) == [third.id, first.id]
    assert client.pfs.inspect_commit(commit=third).parent_commit.id == first.id
    names = [one.file.path for one in client.pfs.list_file(file=pfs.File(commit=third, path="/"))]
    assert names == ["/file", "/three", "/two"]


@pytest.mark.usefixtures("pipeline")
def test_sets_that_others_were_made_from_stay(client: Client) -> None:
    finish_by_force(client, client.pfs.inspect_branch(branch=OUT).head)
    hyper = commit_once(client, "hyper@master")
    finish_by_force(client, pfs.Commit(repo=OUT.repo, id=hyper.id))
    data = commit_once(client)
    finish_by_force(client, pfs.Commit(repo=OUT.repo, id=data.id))
    commit_once(client, "hyper@master")
    finish_by_force(client, client.pfs.inspect_branch(branch=OUT).head)
    with refused(grpc.StatusCode.UNKNOWN, "has subvenant commit sets"):
        client.pfs.squash_commit_set(commit_set=pfs.CommitSet(id=hyper.id))


def test_listing_sets(client: Client) -> None:
    first, second = commit_once(client), commit_once(client, "hyper@master")
    assert [one.commit_set.id for one in client.pfs.list_commit_set()] == [second.id, first.id]
    assert list(client.pfs.list_commit_set(project=pfs.Project(name="none"))) == []


def test_finding_the_commits_that_changed_a_path(client: Client) -> None:
    first = commit_once(client)
    commit_once(client, name="/other")
    third = commit_once(client)
    with client.pfs.commit(branch=MASTER) as fourth:
        fourth.put_file_from_bytes("/file", b"changed")
    found = list(client.pfs.find_commits(start=fourth, file_path="/file"))
    assert [one.found_commit.id for one in found[:-1]] == [fourth.id, first.id]
    assert found[-1].last_searched_commit.id == first.id
    assert found[-1].commits_searched == 4
    assert third.id not in {one.found_commit.id for one in found}
