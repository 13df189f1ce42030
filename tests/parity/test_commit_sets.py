"""Commit sets: what one write made, everywhere."""

from __future__ import annotations

from pachyderm_sdk.api import pfs

from tests.parity.pachd import NO_ID, NOT_FOUND, UNKNOWN, Pachd, in_thread, is_set, refused


def of(commit: pfs.Commit) -> pfs.CommitSet:
    return pfs.CommitSet(id=commit.id)


def test_a_set_has_its_provenance_with_it(pachd: Pachd) -> None:
    """§5.4: InspectCommitSet, topologically sorted, commits of other sets included."""
    pachd.repo("data")
    pachd.repo("hyper", {"/h": b"1"})
    pachd.derived("out", "data", "hyper")
    hyper = pachd.head(pachd.branch("hyper"))
    commit = pachd.put("data", {"/f": b"1"})
    infos = list(pachd.client.pfs.inspect_commit_set(commit_set=of(commit)))
    found = [(info.commit.repo.name, info.commit.id) for info in infos]
    assert found[-1] == ("out", commit.id)
    assert set(found[:-1]) == {("data", commit.id), ("hyper", hyper.id)}


def test_waiting_for_a_set(pachd: Pachd) -> None:
    """§5.4: until every commit of it has finished, errored ones too."""
    pachd.repo("data")
    out = pachd.derived("out", "data")
    commit = pachd.start("data")
    thread, results = in_thread(lambda: pachd.another_client().pfs.wait_commit_set(of(commit)))
    pachd.client.pfs.finish_commit(commit=commit)
    pachd.client.pfs.wait_commit(commit)
    assert results == [], "the one downstream is open"
    pachd.finish_by_force(pachd.head(out), error="failed")
    thread.join(60)
    (infos,) = results
    assert all(is_set(info.finished) for info in infos)  # type: ignore[attr-defined]


def test_a_set_that_is_not(pachd: Pachd) -> None:
    """§5.4: NOT_FOUND `no commits found for commitset`."""
    with refused(NOT_FOUND, "no commits found for commitset"):
        list(pachd.client.pfs.inspect_commit_set(commit_set=pfs.CommitSet(id=NO_ID)))


def test_sets_of_a_project_newest_first(pachd: Pachd) -> None:
    """§5.4: ListCommitSet."""
    pachd.repo("data")
    first, second = (pachd.put("data", {"/f": b"%d" % n}) for n in range(2))
    infos = list(pachd.client.pfs.list_commit_set(project=pachd.project))
    assert [info.commit_set.id for info in infos] == [second.id, first.id]
    assert [c.commit.id for c in infos[0].commits] == [second.id]


def test_dropping_a_set_returns_the_heads(pachd: Pachd) -> None:
    """§5.4: DropCommitSet of an open set, downstream too."""
    pachd.repo("data")
    out = pachd.derived("out", "data")
    first = pachd.put("data", {"/f": b"1"})
    pachd.finish_by_force(pachd.head(out))
    commit = pachd.start("data")
    pachd.client.pfs.drop_commit_set(commit_set=of(commit))
    assert pachd.head(pachd.branch("data")).id == first.id
    assert pachd.head(out).id == first.id
    assert not pachd.client.pfs.commit_exists(commit)


def test_dropping_the_first_set_leaves_an_empty_head(pachd: Pachd) -> None:
    """§5.4: with no parent a new empty commit is made: a branch always has a head."""
    pachd.repo("data")
    commit = pachd.put("data", {"/f": b"1"})
    pachd.client.pfs.drop_commit_set(commit_set=of(commit))
    head = pachd.head(pachd.branch("data"))
    assert head.id != commit.id
    assert pachd.files(head) == {}


def test_what_has_children_is_not_dropped(pachd: Pachd) -> None:
    """§5.4: `cannot drop a commit that has children`."""
    pachd.repo("data")
    first, _ = (pachd.put("data", {"/f": b"%d" % n}) for n in range(2))
    with refused(UNKNOWN, "cannot drop a commit that has children"):
        pachd.client.pfs.drop_commit_set(commit_set=of(first))


def test_squashing_folds_into_the_child(pachd: Pachd) -> None:
    """§5.4: the commit goes, its content stays; a head cannot be squashed."""
    pachd.repo("data")
    first, second, third = (pachd.put("data", {f"/{n}": b"1"}) for n in range(3))
    with refused(UNKNOWN, "cannot squash a commit that has no children"):
        pachd.client.pfs.squash_commit_set(commit_set=of(third))
    pachd.client.pfs.squash_commit_set(commit_set=of(second))
    assert not pachd.client.pfs.commit_exists(second)
    assert pachd.client.pfs.inspect_commit(commit=third).parent_commit.id == first.id
    assert set(pachd.files(third)) == {"/0", "/1", "/2"}


def test_sets_that_others_were_made_from_stay(pachd: Pachd) -> None:
    """§5.4: `has subvenant commit sets`."""
    pachd.repo("data")
    pachd.repo("hyper")
    out = pachd.derived("out", "data", "hyper")
    hyper = pachd.put("hyper", {"/h": b"1"})
    pachd.finish_by_force(pachd.head(out))
    pachd.put("data", {"/f": b"1"})  # made from that commit of hyper
    pachd.finish_by_force(pachd.head(out))
    pachd.put("hyper", {"/h": b"2"})
    pachd.finish_by_force(pachd.head(out))
    with refused(UNKNOWN, "subvenant commit sets"):
        pachd.client.pfs.squash_commit_set(commit_set=of(hyper))


def test_diamonds_have_one_commit_a_repo(pachd: Pachd) -> None:
    """§6: at most one commit per repo and set, however many ways lead there."""
    pachd.repo("data")
    pachd.derived("left", "data")
    pachd.derived("right", "data")
    bottom = pachd.derived("bottom", "left", "right")
    before = len(list(pachd.client.pfs.list_commit(repo=bottom.repo)))
    commit = pachd.put("data", {"/f": b"1"})
    infos = list(pachd.client.pfs.inspect_commit_set(commit_set=of(commit)))
    assert sorted(info.commit.repo.name for info in infos) == ["bottom", "data", "left", "right"]
    assert {info.commit.id for info in infos} == {commit.id}
    assert len(list(pachd.client.pfs.list_commit(repo=bottom.repo))) == before + 1
