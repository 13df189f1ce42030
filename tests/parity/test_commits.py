"""Commits: their life, their names, their lists."""

from __future__ import annotations

import pytest
from pachyderm_sdk.api import pfs

from tests.parity.pachd import (
    NO_ID,
    NOT_FOUND,
    UNKNOWN,
    Pachd,
    eventually,
    file,
    ids,
    in_thread,
    is_set,
    refused,
)


def test_the_head_moves_when_a_commit_starts(pachd: Pachd) -> None:
    """§5.4: StartCommit makes the branch; answers carry no branch (§3)."""
    pachd.repo("data")
    started = pachd.client.pfs.start_commit(branch=pachd.branch("data"), description="why")
    assert started.branch.name == ""
    assert pachd.head(pachd.branch("data")).id == started.id
    info = pachd.client.pfs.inspect_commit(commit=pachd.commit("data"))
    assert (info.commit.id, info.commit.branch.name) == (started.id, "")
    assert (info.description, info.origin.kind) == ("why", pfs.OriginKind.USER)
    assert is_set(info.started)
    assert not is_set(info.finishing)


def test_the_first_commit_has_no_parent(pachd: Pachd) -> None:
    """§5.4: and the second has the first."""
    pachd.repo("data")
    first, second = (pachd.put("data", {"/f": b"%d" % n}) for n in range(2))
    assert pachd.client.pfs.inspect_commit(commit=first).parent_commit.id == ""
    info = pachd.client.pfs.inspect_commit(commit=second)
    assert info.parent_commit.id == first.id
    assert [c.id for c in pachd.client.pfs.inspect_commit(commit=first).child_commits] == [second.id]


def test_details_come_with_the_end(pachd: Pachd) -> None:
    """§5.4: sizes are told of a finished commit only."""
    pachd.repo("data")
    commit = pachd.start("data")
    assert not pachd.client.pfs.inspect_commit(commit=commit).is_set("details")
    pachd.modify(commit, pfs.ModifyFileRequest(add_file=pfs.AddFile(path="/f", raw=b"12345")))
    pachd.client.pfs.finish_commit(commit=commit)
    info = pachd.client.pfs.wait_commit(commit)
    assert info.details.size_bytes == 5
    assert is_set(info.finished)


def test_finishing_may_describe_and_mark_as_errored(pachd: Pachd) -> None:
    """§5.4: FinishCommit with description and error; the head stays."""
    pachd.repo("data")
    commit = pachd.start("data")
    pachd.client.pfs.finish_commit(commit=commit, description="because", error="spoilt")
    info = pachd.client.pfs.wait_commit(commit)
    assert (info.description, info.error) == ("because", "spoilt")
    assert pachd.head(pachd.branch("data")).id == commit.id


def test_an_open_head_has_no_children(pachd: Pachd) -> None:
    """§5.4: StartCommit on it is refused; FINISHING is enough."""
    pachd.repo("data")
    commit = pachd.start("data")
    with refused(UNKNOWN, "has not been finished"):
        pachd.start("data")
    pachd.client.pfs.finish_commit(commit=commit)
    assert pachd.start("data").id != commit.id


def test_a_commit_finishes_once(pachd: Pachd) -> None:
    """§5.4: `has already finished`, `cannot clear finished commit`."""
    pachd.repo("data")
    commit = pachd.put("data", {"/f": b"1"})
    with refused(UNKNOWN, "has already finished"):
        pachd.client.pfs.finish_commit(commit=commit)
    with refused(UNKNOWN, "cannot clear finished commit"):
        pachd.client.pfs.clear_commit(commit=commit)


def test_a_commit_needs_a_branch_and_a_repo(pachd: Pachd) -> None:
    """§5.4: `branch must be specified`, `repo … not found`."""
    repo = pachd.repo("data")
    with refused(UNKNOWN, "branch must be specified"):
        pachd.client.pfs.start_commit(branch=pfs.Branch(repo=repo))
    with refused(NOT_FOUND, "not found"):
        pachd.client.pfs.start_commit(branch=pachd.branch("none"))


def test_clearing_goes_back_to_the_parent(pachd: Pachd) -> None:
    """§5.4: ClearCommit drops all writes of an open commit."""
    pachd.repo("data", {"/f": b"1"})
    commit = pachd.start("data")
    pachd.client.pfs.put_file_from_bytes(commit=commit, path="/g", data=b"2")
    pachd.client.pfs.delete_file(commit=commit, path="/f")
    pachd.client.pfs.clear_commit(commit=commit)
    assert pachd.files(commit) == {"/f": b"1"}


def test_a_fork_builds_on_the_parent_it_names(pachd: Pachd) -> None:
    """§5.4: StartCommit with the parent of another branch."""
    pachd.repo("data")
    first = pachd.put("data", {"/f": b"1"})
    pachd.put("data", {"/g": b"2"})
    fork = pachd.start("data", "fork", parent=first)
    pachd.client.pfs.finish_commit(commit=fork)
    assert pachd.client.pfs.inspect_commit(commit=fork).parent_commit.id == first.id
    assert pachd.files(fork) == {"/f": b"1"}


def test_names_of_commits(pachd: Pachd) -> None:
    """§4: branches, ids, ancestry from the end and from the root; a branch may stand in the id."""
    pachd.repo("data")
    first, second, third = (pachd.put("data", {"/f": b"%d" % n}) for n in range(3))

    def found(ref: str) -> str:
        return str(pachd.client.pfs.inspect_commit(commit=pachd.commit("data", ref)).commit.id)

    assert found("master") == found(third.id) == found("master.3") == third.id
    assert found("master^") == found("master~1") == found(f"{third.id}^") == second.id
    assert found("master^2") == found("master^^") == found("master.1") == first.id
    by_branch = pfs.Commit(branch=pachd.branch("data"), id="^")
    assert pachd.client.pfs.inspect_commit(commit=by_branch).commit.id == second.id


def test_names_that_name_nothing(pachd: Pachd) -> None:
    """§4: past the first commit, mixed suffixes, no repo, unknown ids and branches."""
    pachd.repo("data", {"/f": b"1"})
    for ref in ("master^", "gone", NO_ID):
        with refused(NOT_FOUND):
            pachd.client.pfs.inspect_commit(commit=pachd.commit("data", ref))
    with refused(UNKNOWN, "invalid ancestry syntax"):
        pachd.client.pfs.inspect_commit(commit=pachd.commit("data", "master^~"))
    with refused(UNKNOWN, "commit must have a repo"):
        pachd.client.pfs.inspect_commit(commit=pfs.Commit(id=NO_ID))
    assert not pachd.client.pfs.commit_exists(pachd.commit("data", NO_ID))


def test_a_set_id_names_what_the_set_was_made_from(pachd: Pachd) -> None:
    """§4: `upstream_repo@<set id>` is resolved through provenance."""
    pachd.repo("data")
    pachd.repo("hyper")
    pachd.derived("out", "data", "hyper")
    before = pachd.head(pachd.branch("hyper"))
    commit = pachd.put("data", {"/f": b"1"})
    assert pachd.client.pfs.inspect_commit(commit=pachd.commit("hyper", commit.id)).commit.id == before.id


def test_commits_are_listed_newest_first(pachd: Pachd) -> None:
    """§5.4: ListCommit, reversed and limited."""
    pachd.repo("data")
    made = [pachd.put("data", {"/f": b"%d" % n}).id for n in range(4)]
    assert ids(pachd.client.pfs.list_commit(repo=pachd.named("data"))) == made[::-1]
    assert ids(pachd.client.pfs.list_commit(repo=pachd.named("data"), number=2)) == made[:1:-1]
    assert ids(pachd.client.pfs.list_commit(repo=pachd.named("data"), reverse=True)) == made


def test_a_span_of_commits(pachd: Pachd) -> None:
    """§5.4: `to` is included, `from` is not; `from` needs `to`."""
    pachd.repo("data")
    made = [pachd.put("data", {"/f": b"%d" % n}) for n in range(4)]
    found = pachd.client.pfs.list_commit(repo=pachd.named("data"), to=made[2], from_=made[0])
    assert ids(found) == [made[2].id, made[1].id]
    with refused(UNKNOWN, "cannot use `from` commit without `to` commit"):
        list(pachd.client.pfs.list_commit(repo=pachd.named("data"), from_=made[0]))


def test_commits_by_origin(pachd: Pachd) -> None:
    """§5.4: `origin_kind` filters; `all` has every commit."""
    pachd.repo("data")
    user = pachd.put("data", {"/f": b"1"})
    pachd.client.pfs.create_branch(branch=pachd.branch("data", "empty"))
    auto = pachd.head(pachd.branch("data", "empty"))

    def listed(**options: object) -> list[str]:
        return ids(pachd.client.pfs.list_commit(repo=pachd.named("data"), **options))

    assert listed(origin_kind=pfs.OriginKind.AUTO) == [auto.id]
    assert listed(origin_kind=pfs.OriginKind.USER) == [user.id]
    assert set(listed(all=True)) == {user.id, auto.id}


def test_commits_of_a_missing_repo(pachd: Pachd) -> None:
    """§5.4: ListCommit is NOT_FOUND."""
    with refused(NOT_FOUND, "not found"):
        list(pachd.client.pfs.list_commit(repo=pachd.named("none")))


def test_waiting_for_the_end(pachd: Pachd) -> None:
    """§5.4: InspectCommit waits until FINISHED; an errored commit ends the wait normally."""
    pachd.repo("data")
    commit = pachd.start("data")
    thread, results = in_thread(lambda: pachd.another_client().pfs.wait_commit(commit))
    pachd.client.pfs.finish_commit(commit=commit, error="bad")
    thread.join(60)
    assert [info.error for info in results] == ["bad"]  # type: ignore[attr-defined]


def test_a_wait_ends_when_its_commit_is_dropped(pachd: Pachd) -> None:
    """§5.4: `commit … was deleted`."""
    pachd.repo("data", {"/f": b"1"})
    commit = pachd.start("data")
    thread, results = in_thread(lambda: pachd.another_client().pfs.wait_commit(commit))
    pachd.client.pfs.drop_commit_set(commit_set=pfs.CommitSet(id=commit.id))
    thread.join(60)
    assert len(results) == 1
    assert isinstance(results[0], Exception)


def test_a_subscription_has_the_old_commits_and_the_new(pachd: Pachd) -> None:
    """§5.4: SubscribeCommit emits oldest first, from the empty head of CreateBranch on, one branch's only."""
    pachd.repo("data")
    pachd.client.pfs.create_branch(branch=pachd.branch("data"))
    first = pachd.put("data", {"/f": b"1"})
    stream = pachd.client.pfs.subscribe_commit(
        repo=pachd.named("data"), branch="master", state=pfs.CommitState.FINISHED
    )
    assert next(stream).origin.kind == pfs.OriginKind.AUTO
    assert next(stream).commit.id == first.id
    pachd.put("data", {"/f": b"2"}, branch="other")
    second = pachd.put("data", {"/f": b"3"})
    assert next(stream).commit.id == second.id
    stream.close()


def test_a_subscription_from_a_commit_leaves_that_out(pachd: Pachd) -> None:
    """§5.4: `from` is excluded."""
    pachd.repo("data")
    first, second = (pachd.put("data", {"/f": b"%d" % n}) for n in range(2))
    stream = pachd.client.pfs.subscribe_commit(
        repo=pachd.named("data"), branch="master", from_=first, state=pfs.CommitState.STARTED
    )
    assert next(stream).commit.id == second.id
    stream.close()


def test_what_is_downstream_appears_with_its_input(pachd: Pachd) -> None:
    """§6: in the same moment, with the same id, made from the input's commit and the other's head."""
    pachd.repo("data")
    pachd.repo("hyper", {"/h": b"1"})
    out = pachd.derived("out", "data", "hyper")
    before = pachd.head(out)
    hyper = pachd.head(pachd.branch("hyper"))
    commit = pachd.start("data")
    info = pachd.client.pfs.inspect_commit(commit=pachd.head(out))
    assert (info.commit.id, info.parent_commit.id) == (commit.id, before.id)
    assert info.origin.kind == pfs.OriginKind.AUTO
    assert not is_set(info.finishing)
    assert {(c.repo.name, c.id) for c in info.direct_provenance} == {("data", commit.id), ("hyper", hyper.id)}


def test_what_is_not_downstream_gets_nothing(pachd: Pachd) -> None:
    """§6: no alias, no new id."""
    pachd.repo("data")
    pachd.repo("hyper", {"/h": b"1"})
    pachd.derived("out", "data", "hyper")
    pachd.put("data", {"/f": b"1"})
    assert len(list(pachd.client.pfs.list_commit(repo=pachd.named("hyper")))) == 1


def test_an_output_branch_takes_no_commits_of_users(pachd: Pachd) -> None:
    """§5.4: `cannot start a commit on an output branch`."""
    pachd.repo("data")
    out = pachd.derived("out", "data")
    with refused(UNKNOWN, "cannot start a commit on an output branch"):
        pachd.client.pfs.start_commit(branch=out)


def test_walking_the_provenance_of_a_commit(pachd: Pachd) -> None:
    """§5.4: WalkCommitProvenance and WalkCommitSubvenance."""
    pachd.repo("data")
    pachd.derived("mid", "data")
    pachd.derived("out", "mid")
    commit = pachd.put("data", {"/f": b"1"})
    up = pachd.client.pfs.walk_commit_provenance(start=[pachd.commit("out", commit.id).as_picker()])
    assert {info.commit.repo.name for info in up} == {"out", "mid", "data"}
    down = pachd.client.pfs.walk_commit_subvenance(start=[commit.as_picker()])
    assert {info.commit.repo.name for info in down} == {"out", "mid", "data"}


def test_an_errored_commit_is_no_base(pachd: Pachd) -> None:
    """§7.1: the content of a commit starts from its nearest ancestor without error."""
    pachd.repo("data", {"/f": b"1"})
    bad = pachd.start("data")
    pachd.client.pfs.put_file_from_bytes(commit=bad, path="/bad", data=b"2")
    pachd.client.pfs.finish_commit(commit=bad, error="spoilt")
    pachd.client.pfs.wait_commit(bad)
    assert set(pachd.files(bad)) == {"/f", "/bad"}, "but it can be read"
    good = pachd.put("data", {"/good": b"3"})
    assert set(pachd.files(good)) == {"/f", "/good"}


def test_commits_that_changed_a_path(pachd: Pachd) -> None:
    """§5.4: FindCommits goes back through the ancestry, and ends with where it stopped."""
    pachd.repo("data")
    first = pachd.put("data", {"/f": b"1"})
    pachd.put("data", {"/other": b"1"})
    third = pachd.put("data", {"/f": b"2"})
    answers = list(pachd.client.pfs.find_commits(start=third, file_path="/f"))
    assert [a.found_commit.id for a in answers[:-1]] == [third.id, first.id]
    assert (answers[-1].last_searched_commit.id, answers[-1].commits_searched) == (first.id, 3)


@pytest.mark.parametrize("recursive", [False, True])
def test_dropping_one_commit(pachd: Pachd, recursive: bool) -> None:
    """§5.4: DropCommit takes what was made from it only when asked to."""
    pachd.repo("data")
    out = pachd.derived("out", "data")
    first = pachd.put("data", {"/f": b"1"})
    pachd.finish_by_force(pachd.head(out))
    commit = pachd.put("data", {"/f": b"2"})
    if not recursive:
        with refused(UNKNOWN, "with subvenance without recursive"):
            pachd.client.pfs.drop_commit(commit=commit)
        return
    pachd.client.pfs.drop_commit(commit=commit, recursive=True)
    assert pachd.head(pachd.branch("data")).id == first.id
    assert pachd.head(out).id == first.id


def test_a_read_waits_for_a_commit_that_is_finishing(pachd: Pachd) -> None:
    """§5.4, read after write: what was finished is read without a wait of one's own."""
    pachd.repo("data")
    commit = pachd.start("data")
    pachd.client.pfs.put_file_from_bytes(commit=commit, path="/f", data=b"1")
    pachd.client.pfs.finish_commit(commit=commit)
    assert pachd.read(commit, "/f") == b"1"
    eventually(lambda: is_set(pachd.client.pfs.inspect_commit(commit=commit).finished), "it finishes")


def test_forgetting_what_a_commit_held(pachd: Pachd) -> None:
    """§5.4: later reads fail; what came after it keeps its files."""
    pachd.repo("data")
    first = pachd.put("data", {"/1": b"1"})
    second = pachd.put("data", {"/2": b"2"})
    pachd.client.pfs.forget_commit(commit=first.as_picker())
    for read in (
        lambda: pachd.read(first, "/1"),
        lambda: list(pachd.client.pfs.list_file(file=file(first, "/"))),
        lambda: list(pachd.client.pfs.diff_file(new_file=file(second, "/"))),
    ):
        with refused(UNKNOWN, "the commit is forgotten"):
            read()
    assert pachd.files(second) == {"/1": b"1", "/2": b"2"}
    assert ids(pachd.client.pfs.list_commit(repo=pachd.named("data"))) == [second.id, first.id]


@pytest.mark.embedded("what pachd does with a head is not said")
def test_a_head_is_not_forgotten(pachd: Pachd) -> None:
    """§5.4: nor is what an open commit is made of."""
    pachd.repo("data")
    first = pachd.put("data", {"/1": b"1"})
    head = pfs.CommitPicker(branch_head=pachd.branch("data").as_picker())
    with refused(UNKNOWN, "is the head of branch master"):
        pachd.client.pfs.forget_commit(commit=head)
    pachd.start("data")
    with refused(UNKNOWN, "has not been finished"):
        pachd.client.pfs.forget_commit(commit=head)
    assert pachd.read(first, "/1") == b"1"


def test_squashing_one_commit(pachd: Pachd) -> None:
    """§5.4: SquashCommit; its content is in its child, and a head has none."""
    pachd.repo("data")
    first = pachd.put("data", {"/1": b"1"})
    with refused(UNKNOWN, "cannot squash a commit that has no children"):
        pachd.client.pfs.squash_commit(commit=first)
    second = pachd.put("data", {"/2": b"2"})
    pachd.client.pfs.squash_commit(commit=first)
    assert ids(pachd.client.pfs.list_commit(repo=pachd.named("data"))) == [second.id]
    assert pachd.files(second) == {"/1": b"1", "/2": b"2"}


def test_a_search_has_a_limit(pachd: Pachd) -> None:
    """§5.4: FindCommits says where it stopped and how many it looked at."""
    pachd.repo("data")
    commits = [pachd.put("data", {f"/{n}": b""}) for n in range(3)]
    found = list(pachd.client.pfs.find_commits(start=commits[2], file_path="/none", limit=2))
    assert [one.last_searched_commit.id for one in found] == [commits[1].id]
    assert found[-1].commits_searched == 2


def test_commits_before_a_time(pachd: Pachd) -> None:
    """§5.4: `started_time`, later ones with `reverse`; `number` counts what is left."""
    pachd.repo("data")
    commits = [pachd.put("data", {f"/{n}": b""}) for n in range(4)]
    when = pachd.client.pfs.inspect_commit(commit=commits[2]).started
    list_commit = pachd.client.pfs.list_commit
    repo = pachd.named("data")
    assert ids(list_commit(repo=repo, started_time=when)) == [commits[1].id, commits[0].id]
    assert ids(list_commit(repo=repo, started_time=when, number=1)) == [commits[1].id]
    assert ids(list_commit(repo=repo, started_time=when, reverse=True)) == [commits[3].id]
