"""Repos."""

from __future__ import annotations

import pytest
from pachyderm_sdk.api import pfs

from tests.parity.pachd import EXISTS, NOT_FOUND, UNKNOWN, Pachd, is_set, refused


def listed(pachd: Pachd, **options: object) -> list[str]:
    infos = pachd.client.pfs.list_repo(projects=[pachd.project], **options)
    return [f"{info.repo.name}.{info.repo.type}" for info in infos]


def test_a_repo_says_what_it_was_made_with(pachd: Pachd) -> None:
    """§5.2: InspectRepo; CreateRepo makes no branch."""
    pachd.client.pfs.create_repo(repo=pachd.named("data"), description="mine")
    info = pachd.client.pfs.inspect_repo(repo=pachd.named("data"))
    assert (info.repo, info.description, info.branches) == (pachd.named("data"), "mine", [])
    assert is_set(info.created)


def test_a_repo_is_made_once(pachd: Pachd) -> None:
    """§5.2: CreateRepo of one that exists is ALREADY_EXISTS."""
    pachd.repo("data")
    with refused(EXISTS, "already exists"):
        pachd.repo("data")


def test_update_changes_the_description_alone(pachd: Pachd) -> None:
    """§5.2: `update` of a repo that exists."""
    pachd.repo("data", {"/f": b"1"})
    pachd.client.pfs.create_repo(repo=pachd.named("data"), description="other", update=True)
    assert pachd.client.pfs.inspect_repo(repo=pachd.named("data")).description == "other"
    assert pachd.files(pachd.commit("data")) == {"/f": b"1"}


def test_sizes_follow_master(pachd: Pachd) -> None:
    """§5.2: size_bytes_upper_bound and details.size_bytes are those of the newest commit of `master`."""
    pachd.repo("data", {"/f": b"1234567"})
    pachd.put("data", {"/g": b"12345678901"}, branch="other")
    info = pachd.client.pfs.inspect_repo(repo=pachd.named("data"))
    assert info.details.size_bytes == 7
    assert info.size_bytes_upper_bound >= 7
    assert {branch.name for branch in info.branches} == {"master", "other"}


def test_a_repo_needs_its_project(pachd: Pachd) -> None:
    """§5.2: a missing project is NOT_FOUND."""
    nowhere = pfs.Project(name=f"{pachd.project.name}-none")
    with refused(NOT_FOUND, "not found"):
        pachd.client.pfs.create_repo(repo=pfs.Repo(name="r", project=nowhere))


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("no spaces", "only alphanumeric characters"),
        ("ü", "only alphanumeric characters"),
        ("line\n", "only alphanumeric characters"),
    ],
)
def test_names_of_repos(pachd: Pachd, name: str, text: str) -> None:
    """§4: letters, digits, `_` and `-`."""
    with refused(UNKNOWN, text):
        pachd.repo(name)


def test_the_repo_of_file_sets_is_reserved(pachd: Pachd) -> None:
    """§4: `__filesets__` is a reserved name."""
    with refused(UNKNOWN, "reserved name"):
        pachd.client.pfs.create_repo(repo=pfs.Repo(name="__filesets__"))


def test_a_system_repo_needs_the_user_repo_of_its_name(pachd: Pachd) -> None:
    """§5.2: spec and meta repos stand beside a user repo."""
    with refused(NOT_FOUND):
        pachd.client.pfs.create_repo(repo=pachd.named("nobody", "spec"))


def test_repos_are_listed_by_name_and_type(pachd: Pachd) -> None:
    """§5.2: ListRepo has all types unless one is asked for, ordered by name."""
    for name in ("b", "a", "c"):
        pachd.repo(name)
    pachd.client.pfs.create_repo(repo=pachd.named("a", "meta"))
    assert listed(pachd, type="user") == ["a.user", "b.user", "c.user"]
    assert sorted(listed(pachd)) == ["a.meta", "a.user", "b.user", "c.user"]


def test_repos_of_other_projects_are_left_out(pachd: Pachd) -> None:
    """§5.2: ListRepo by project."""
    pachd.repo("a")
    pachd.client.pfs.create_repo(repo=pfs.Repo(name="b", project=pachd.new_project()))
    assert listed(pachd) == ["a.user"]


def test_a_missing_repo_is_not_found(pachd: Pachd) -> None:
    """§5.2: InspectRepo is NOT_FOUND, so that repo_exists of the SDK works (§1.4)."""
    with refused(NOT_FOUND, "not found"):
        pachd.client.pfs.inspect_repo(repo=pachd.named("none"))
    assert not pachd.client.pfs.repo_exists(pachd.named("none"))


def test_deleting_what_is_missing_is_no_error(pachd: Pachd) -> None:
    """§5.2: DeleteRepo answers whether there was one."""
    pachd.repo("data")
    assert pachd.client.pfs.delete_repo(repo=pachd.named("data")).deleted
    assert not pachd.client.pfs.delete_repo(repo=pachd.named("data")).deleted


def test_deleting_a_repo_takes_its_system_repos(pachd: Pachd) -> None:
    """§5.2: the meta repo goes with the user repo."""
    pachd.repo("data")
    pachd.client.pfs.create_repo(repo=pachd.named("data", "meta"))
    pachd.client.pfs.delete_repo(repo=pachd.named("data"))
    assert listed(pachd) == []


def test_a_repo_that_others_depend_on_is_deleted_by_force_only(pachd: Pachd) -> None:
    """§5.2: without force, `in the direct provenance of`."""
    pachd.repo("data")
    out = pachd.derived("out", "data")
    with refused(UNKNOWN, "in the direct provenance of"):
        pachd.client.pfs.delete_repo(repo=pachd.named("data"))
    pachd.client.pfs.delete_repo(repo=pachd.named("data"), force=True)
    assert pachd.client.pfs.inspect_branch(branch=out).direct_provenance == []


def test_all_repos_of_a_project_at_once(pachd: Pachd) -> None:
    """§5.2: DeleteRepos by project names what it deleted."""
    pachd.repo("a")
    pachd.repo("b")
    gone = pachd.client.pfs.delete_repos(projects=[pachd.project], force=True).repos
    assert sorted(repo.name for repo in gone) == ["a", "b"]
    assert listed(pachd) == []


def test_summary_of_a_project(pachd: Pachd) -> None:
    """§5.2: ReposSummary counts the user repos of a project."""
    pachd.repo("a", {"/f": b"123"})
    pachd.repo("b")
    (summary,) = pachd.client.pfs.repos_summary(
        projects=[pfs.ProjectPicker(name=pachd.project.name)]
    ).summaries
    assert summary.user_repo_count == 2
