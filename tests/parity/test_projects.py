"""Projects."""

from __future__ import annotations

import pytest
from pachyderm_sdk.api import pfs

from tests.parity.pachd import EXISTS, NOT_FOUND, PRECONDITION, UNKNOWN, Pachd, is_set, refused


def test_a_project_says_what_it_was_made_with(pachd: Pachd) -> None:
    """§5.1: InspectProject gives description and time."""
    pachd.client.pfs.create_project(project=pachd.project, description="mine", update=True)
    info = pachd.client.pfs.inspect_project(project=pachd.project)
    assert (info.project.name, info.description) == (pachd.project.name, "mine")
    assert is_set(info.created_at)


def test_a_project_is_made_once(pachd: Pachd) -> None:
    """§5.1: CreateProject of one that exists is ALREADY_EXISTS."""
    with refused(EXISTS, "already exists"):
        pachd.client.pfs.create_project(project=pachd.project)


def test_update_makes_what_is_missing(pachd: Pachd) -> None:
    """§5.1: `update` upserts."""
    project = pachd.new_project()
    pachd.client.pfs.delete_project(project=project)
    pachd.client.pfs.create_project(project=project, update=True)
    assert pachd.client.pfs.project_exists(project)


def test_the_second_inspection_has_the_defaults(pachd: Pachd) -> None:
    """§5.1: InspectProjectV2 answers with the info and the project's defaults as JSON."""
    answer = pachd.client.pfs.inspect_project_v2(project=pachd.project)
    assert answer.info.project.name == pachd.project.name
    assert answer.defaults_json.lstrip().startswith("{")


def test_the_list_has_every_project(pachd: Pachd) -> None:
    """§5.1: ListProject has `default`, too."""
    names = {info.project.name for info in pachd.client.pfs.list_project()}
    assert {"default", pachd.project.name} <= names


def test_a_missing_project_is_not_found(pachd: Pachd) -> None:
    """§5.1: Inspect and Delete of a missing one are NOT_FOUND; with force there is nothing to do."""
    missing = pfs.Project(name=f"{pachd.project.name}-none")
    with refused(NOT_FOUND, "not found"):
        pachd.client.pfs.inspect_project(project=missing)
    with refused(NOT_FOUND, "not found"):
        pachd.client.pfs.delete_project(project=missing)
    assert not pachd.client.pfs.project_exists(missing)


def test_a_project_with_repos_is_deleted_by_force_only(pachd: Pachd) -> None:
    """§5.1: FAILED_PRECONDITION names a repo that is left; force takes the repos along."""
    project = pachd.new_project()
    repo = pfs.Repo(name="r", project=project)
    pachd.client.pfs.create_repo(repo=repo)
    with refused(PRECONDITION, "still exists"):
        pachd.client.pfs.delete_project(project=project)
    pachd.client.pfs.delete_project(project=project, force=True)
    assert not pachd.client.pfs.project_exists(project)
    assert not pachd.client.pfs.repo_exists(repo)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("-x", "project names must start with an alphanumeric character"),
        ("a b", "only alphanumeric characters"),
        ("x" * 52, "51"),
    ],
)
def test_names_of_projects(pachd: Pachd, name: str, text: str) -> None:
    """§4: letters, digits, `_` and `-`, the first of them alphanumeric, 51 characters at most."""
    with refused(UNKNOWN, text):
        pachd.client.pfs.create_project(project=pfs.Project(name=name))


def test_a_project_is_made_at_once_even_in_a_transaction(pachd: Pachd) -> None:
    """§5.1: CreateProject is not transactional."""
    project = pachd.new_project()
    pachd.client.pfs.delete_project(project=project)
    with pachd.client.transaction.transaction():
        pachd.client.pfs.create_project(project=project)
        assert pachd.client.pfs.project_exists(project)
