"""Branches: heads, provenance, triggers."""

from __future__ import annotations

from typing import Any

import pytest
from pachyderm_sdk.api import pfs

from tests.parity.pachd import NO_ID, NOT_FOUND, UNKNOWN, Pachd, eventually, ids, is_set, refused


def names(branches: list[pfs.Branch]) -> set[str]:
    return {branch.repo.name for branch in branches}


def trigger(pachd: Pachd, **when: object) -> pfs.Branch:
    """data@release, moved by commits on data@master; data@master has an empty head."""
    pachd.repo("data")
    pachd.client.pfs.create_branch(branch=pachd.branch("data"))
    release = pachd.branch("data", "release")
    pachd.client.pfs.create_branch(branch=release, trigger=pfs.Trigger(branch="master", **when))
    return release


def test_a_new_branch_has_an_empty_finished_head(pachd: Pachd) -> None:
    """§5.3 rule 2: its origin is AUTO, and it is listed."""
    pachd.repo("data")
    pachd.client.pfs.create_branch(branch=pachd.branch("data"))
    (head,) = pachd.client.pfs.list_commit(repo=pachd.named("data"))
    assert head.origin.kind == pfs.OriginKind.AUTO
    assert is_set(head.finished)
    assert pachd.head(pachd.branch("data")).id == head.commit.id


def test_the_same_branch_again_changes_nothing(pachd: Pachd) -> None:
    """§5.3 rule 4: a no-op makes no commit."""
    pachd.repo("data", {"/f": b"1"})
    head = pachd.head(pachd.branch("data")).id
    pachd.client.pfs.create_branch(branch=pachd.branch("data"))
    assert pachd.head(pachd.branch("data")).id == head
    assert len(list(pachd.client.pfs.list_commit(repo=pachd.named("data")))) == 1


def test_a_head_can_be_given(pachd: Pachd) -> None:
    """§5.3 rule 1: the branch points at a commit that exists, named by any text; no new one is made."""
    pachd.repo("data")
    first, second = (pachd.put("data", {"/f": b"%d" % n}) for n in range(2))
    dev = pachd.branch("data", "dev")
    pachd.client.pfs.create_branch(branch=dev, head=pachd.commit("data", "master^"))
    assert pachd.head(dev).id == first.id
    pachd.client.pfs.create_branch(branch=dev, head=second)
    assert pachd.head(dev).id == second.id
    assert ids(pachd.client.pfs.list_commit(repo=pachd.named("data"), all=True)) == [second.id, first.id]


def test_the_head_is_of_the_same_repo(pachd: Pachd) -> None:
    """§5.3 rule 1: `must belong to the same repo`."""
    pachd.repo("data", {"/f": b"1"})
    pachd.repo("other")
    with refused(UNKNOWN, "must belong to the same repo"):
        pachd.client.pfs.create_branch(branch=pachd.branch("other"), head=pachd.commit("data"))


def test_branches_are_listed_newest_first(pachd: Pachd) -> None:
    """§5.3: ListBranch, and in reverse."""
    pachd.repo("data")
    for name in ("one", "two", "three"):
        pachd.client.pfs.create_branch(branch=pachd.branch("data", name))
    infos = pachd.client.pfs.list_branch(repo=pachd.named("data"))
    assert [info.branch.name for info in infos] == ["three", "two", "one"]
    infos = pachd.client.pfs.list_branch(repo=pachd.named("data"), reverse=True)
    assert [info.branch.name for info in infos] == ["one", "two", "three"]


def test_what_is_missing_is_not_found(pachd: Pachd) -> None:
    """§5.3: branches and repos of InspectBranch, ListBranch, DeleteBranch and CreateBranch."""
    pachd.repo("data")
    with refused(NOT_FOUND, "not found"):
        pachd.client.pfs.inspect_branch(branch=pachd.branch("data", "none"))
    with refused(NOT_FOUND, "not found"):
        pachd.client.pfs.delete_branch(branch=pachd.branch("data", "none"))
    with refused(NOT_FOUND, "not found"):
        list(pachd.client.pfs.list_branch(repo=pachd.named("none")))
    with refused(NOT_FOUND, "not found"):
        pachd.client.pfs.create_branch(branch=pachd.branch("none"))
    assert not pachd.client.pfs.branch_exists(pachd.branch("none"))


def test_commits_outlive_their_branch(pachd: Pachd) -> None:
    """§5.3: DeleteBranch leaves the commits."""
    pachd.repo("data")
    commit = pachd.put("data", {"/f": b"1"})
    pachd.client.pfs.delete_branch(branch=pachd.branch("data"))
    assert not pachd.client.pfs.branch_exists(pachd.branch("data"))
    assert pachd.files(commit) == {"/f": b"1"}


def test_names_of_branches(pachd: Pachd) -> None:
    """§4: as repos, and nothing that looks like a commit id."""
    pachd.repo("data")
    with refused(UNKNOWN, "only alphanumeric characters"):
        pachd.client.pfs.create_branch(branch=pachd.branch("data", "a/b"))
    with refused(UNKNOWN, "branch name cannot be a UUID V4"):
        pachd.client.pfs.create_branch(branch=pachd.branch("data", NO_ID))


def test_provenance_is_transitive(pachd: Pachd) -> None:
    """§5.3: BranchInfo tells direct and transitive provenance, and subvenance."""
    pachd.repo("data")
    mid, out = pachd.derived("mid", "data"), pachd.derived("out", "mid")
    info = pachd.client.pfs.inspect_branch(branch=out)
    assert (names(info.direct_provenance), names(info.provenance)) == ({"mid"}, {"data", "mid"})
    info = pachd.client.pfs.inspect_branch(branch=pachd.branch("data"))
    assert names(info.subvenance) == {"mid", "out"}
    assert names(pachd.client.pfs.inspect_branch(branch=mid).subvenance) == {"out"}


def test_walking_provenance(pachd: Pachd) -> None:
    """§5.3: WalkBranchProvenance and WalkBranchSubvenance start with what was asked for."""
    pachd.repo("data")
    pachd.derived("mid", "data")
    out = pachd.derived("out", "mid")
    up = pachd.client.pfs.walk_branch_provenance(start=[out.as_picker()])
    assert {info.branch.repo.name for info in up} == {"data", "mid", "out"}
    down = pachd.client.pfs.walk_branch_subvenance(start=[pachd.branch("data").as_picker()])
    assert {info.branch.repo.name for info in down} == {"data", "mid", "out"}


def test_a_branch_with_provenance_waits_to_be_filled(pachd: Pachd) -> None:
    """§5.3 rule 3: an open AUTO commit is its head; branches it depends on are made, empty."""
    pachd.repo("data")
    pachd.repo("out")
    pachd.client.pfs.create_branch(branch=pachd.branch("out"), provenance=[pachd.branch("data")])
    head = pachd.client.pfs.inspect_commit(commit=pachd.head(pachd.branch("out")))
    assert head.origin.kind == pfs.OriginKind.AUTO
    assert not is_set(head.finishing)
    assert is_set(pachd.client.pfs.inspect_commit(commit=pachd.commit("data")).finished)


def test_provenance_left_out_is_removed(pachd: Pachd) -> None:
    """§5.3 rule 4: an upsert without provenance."""
    pachd.repo("data")
    out = pachd.derived("out", "data")
    pachd.client.pfs.create_branch(branch=out)
    assert pachd.client.pfs.inspect_branch(branch=out).direct_provenance == []


def test_provenance_that_is_refused(pachd: Pachd) -> None:
    """§5.3 rule 5: of its own repo, beside a trigger, two branches of a repo."""
    pachd.repo("data")
    mid = pachd.derived("mid", "data")
    pachd.repo("out")
    with refused(UNKNOWN, "provenance of its own branch"):
        pachd.client.pfs.create_branch(branch=pachd.branch("data"), provenance=[pachd.branch("data", "x")])
    with refused(UNKNOWN):
        pachd.client.pfs.create_branch(
            branch=pachd.branch("out"), provenance=[mid], trigger=pfs.Trigger(branch="x", commits=1)
        )
    with refused(UNKNOWN, "multiple branches from the same repo"):
        pachd.client.pfs.create_branch(
            branch=pachd.branch("out"), provenance=[mid, pachd.branch("data", "dev")]
        )
    assert not pachd.client.pfs.branch_exists(pachd.branch("out"))


def test_a_branch_that_others_depend_on_is_deleted_by_force_only(pachd: Pachd) -> None:
    """§5.3: without force, `in the direct provenance of`."""
    pachd.repo("data")
    out = pachd.derived("out", "data")
    with refused(UNKNOWN, "in the direct provenance of"):
        pachd.client.pfs.delete_branch(branch=pachd.branch("data"))
    pachd.client.pfs.delete_branch(branch=pachd.branch("data"), force=True)
    assert pachd.client.pfs.inspect_branch(branch=out).direct_provenance == []


def test_moving_a_head_reaches_downstream(pachd: Pachd) -> None:
    """§5.3 rule 1 and §6: no new commit upstream, but one downstream, made from the head of now."""
    pachd.repo("data")
    first, second = (pachd.put("data", {"/f": b"%d" % n}) for n in range(2))
    out = pachd.derived("out", "data")
    pachd.client.pfs.create_branch(branch=pachd.branch("data"), head=first)
    head = pachd.client.pfs.inspect_commit(commit=pachd.head(out))
    assert head.commit.id not in (first.id, second.id)
    assert [commit.id for commit in head.direct_provenance] == [first.id]


def test_a_trigger_by_size(pachd: Pachd) -> None:
    """§5.3: the branch moves to the commit with which enough bytes were added."""
    release = trigger(pachd, size="10B")
    start = pachd.head(release).id
    pachd.put("data", {"/f": b"1234567"})
    assert pachd.head(release).id == start
    grown = pachd.put("data", {"/g": b"12345678"})
    eventually(lambda: pachd.head(release).id == grown.id, "the trigger fires")


def test_a_trigger_by_commits(pachd: Pachd) -> None:
    """§5.3: counted since the trigger fired last."""
    release = trigger(pachd, commits=2)
    # Whether the empty head counts is left open, so begin at the first firing.
    start = pachd.head(release).id
    while pachd.head(release).id == start:
        pachd.put("data", {"/0": b""})
    fired = pachd.head(release).id
    pachd.put("data", {"/1": b""})
    assert pachd.head(release).id == fired
    second = pachd.put("data", {"/2": b""})
    eventually(lambda: pachd.head(release).id == second.id, "the trigger fires")


def test_a_trigger_that_wants_all_of_its_conditions(pachd: Pachd) -> None:
    """§5.3: `all` is AND; without it one condition is enough."""
    release = trigger(pachd, commits=2, size="1K", all=True)
    start = pachd.head(release).id
    for name in ("/1", "/2"):
        pachd.put("data", {name: b""})
    assert pachd.head(release).id == start
    third = pachd.put("data", {"/3": bytes(1025)})
    eventually(lambda: pachd.head(release).id == third.id, "the trigger fires")


def test_a_trigger_that_wants_any_of_its_conditions(pachd: Pachd) -> None:
    """§5.3: without `all` one is enough."""
    release = trigger(pachd, commits=100, size="1K")
    start = pachd.head(release).id
    pachd.put("data", {"/1": b""})
    assert pachd.head(release).id == start
    second = pachd.put("data", {"/2": bytes(1025)})
    eventually(lambda: pachd.head(release).id == second.id, "the trigger fires")


def test_a_trigger_with_a_rate_limit(pachd: Pachd) -> None:
    """§5.3: not again before its time has come."""
    release = trigger(pachd, rate_limit_spec="@every 1s")
    first = pachd.head(release).id

    def fired() -> bool:
        pachd.put("data", {"/1": b""})
        return pachd.head(release).id != first

    eventually(fired, "the trigger fires")
    never = pachd.branch("data", "never")
    pachd.client.pfs.create_branch(
        branch=never, trigger=pfs.Trigger(branch="master", rate_limit_spec="@never")
    )
    start = pachd.head(never).id
    pachd.put("data", {"/2": b""})
    assert pachd.head(never).id == start


def test_a_trigger_by_time(pachd: Pachd) -> None:
    """§5.3: its branch moves to what is there, and what depends on it follows."""
    release = trigger(pachd, cron_spec="@every 1s")
    pachd.repo("out")
    out = pachd.branch("out")
    pachd.client.pfs.create_branch(branch=out, provenance=[release])
    commit = pachd.put("data", {"/1": b"1"})
    eventually(lambda: pachd.head(release).id == commit.id, "the trigger fires")
    (source,) = pachd.client.pfs.inspect_commit(commit=pachd.head(out)).direct_provenance
    assert source.id == commit.id


def test_a_chain_of_triggers(pachd: Pachd) -> None:
    """§5.3: a branch that a trigger has moved is the source of others."""
    release = trigger(pachd, commits=1)
    last = pachd.branch("data", "last")
    pachd.client.pfs.create_branch(branch=last, trigger=pfs.Trigger(branch="release", commits=1))
    commit = pachd.put("data", {"/1": b""})
    eventually(lambda: pachd.head(release).id == commit.id == pachd.head(last).id, "both fire")


@pytest.mark.parametrize(
    ("when", "text"),
    [
        ({"branch": "release", "commits": 1}, "triggers cannot form a loop"),
        ({"branch": "master", "cron_spec": "@daily", "commits": 1}, ""),
        ({"branch": "master", "size": "many"}, ""),
        ({"branch": "master", "rate_limit_spec": "now and then"}, ""),
        ({"branch": "master", "cron_spec": "61 * * * *"}, ""),
    ],
)
def test_triggers_that_are_refused(pachd: Pachd, when: dict[str, Any], text: str) -> None:
    """§5.3: loops, times beside other conditions, and what cannot be read."""
    pachd.repo("data")
    with refused(UNKNOWN, text):
        pachd.client.pfs.create_branch(branch=pachd.branch("data", "release"), trigger=pfs.Trigger(**when))


def test_a_trigger_left_out_is_removed(pachd: Pachd) -> None:
    """§5.3 rule 4: an upsert without trigger."""
    release = trigger(pachd, commits=1)
    assert pachd.client.pfs.inspect_branch(branch=release).trigger.branch == "master"
    pachd.client.pfs.create_branch(branch=release)
    start = pachd.head(release).id
    pachd.put("data", {"/1": b""})
    assert pachd.client.pfs.inspect_branch(branch=release).trigger.branch == ""
    assert pachd.head(release).id == start


def test_a_branch_that_triggers_is_deleted_by_force_only(pachd: Pachd) -> None:
    """§5.3: `triggers branches`."""
    trigger(pachd, commits=1)
    with refused(UNKNOWN, "triggers branches"):
        pachd.client.pfs.delete_branch(branch=pachd.branch("data"))
