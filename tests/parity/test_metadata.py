"""EditMetadata, and what a server says of itself."""

from __future__ import annotations

import pytest
from pachyderm_sdk.api import metadata, pfs
from pachyderm_sdk.errors import AuthServiceNotActivated

from tests.parity.pachd import INVALID, UNKNOWN, Pachd, refused


def of_repo(pachd: Pachd) -> dict[str, str]:
    return dict(pachd.client.pfs.inspect_repo(repo=pachd.named("data")).metadata)


def edit(pachd: Pachd, **op: object) -> metadata.Edit:
    return metadata.Edit(repo=pachd.named("data").as_picker(), **op)


@pytest.fixture(autouse=True)
def data(pachd: Pachd) -> None:
    pachd.repo("data", {"/f": b"1"})


def test_metadata_shows_at_what_carries_it(pachd: Pachd) -> None:
    """§17: projects, repos, branches and commits, finished ones too."""
    commit = pachd.client.pfs.inspect_commit(commit=pachd.commit("data")).commit
    added = metadata.EditAddKey(key="k", value="v")
    pachd.client.metadata.edit_metadata(
        edits=[
            metadata.Edit(project=pfs.ProjectPicker(name=pachd.project.name), add_key=added),
            metadata.Edit(repo=pachd.named("data").as_picker(), add_key=added),
            metadata.Edit(branch=pachd.branch("data").as_picker(), add_key=added),
            metadata.Edit(commit=commit.as_picker(), add_key=added),
        ]
    )
    assert pachd.client.pfs.inspect_project(project=pachd.project).metadata == {"k": "v"}
    assert of_repo(pachd) == {"k": "v"}
    assert pachd.client.pfs.inspect_branch(branch=pachd.branch("data")).metadata == {"k": "v"}
    assert pachd.client.pfs.inspect_commit(commit=commit).metadata == {"k": "v"}


def test_the_kinds_of_edits(pachd: Pachd) -> None:
    """§17: edit_key upserts, delete of a missing key is fine, replace takes all."""
    change = pachd.client.metadata.edit_metadata
    change(edits=[edit(pachd, edit_key=metadata.EditEditKey(key="a", value="1"))])
    change(edits=[edit(pachd, edit_key=metadata.EditEditKey(key="a", value="2"))])
    assert of_repo(pachd) == {"a": "2"}
    change(edits=[edit(pachd, delete_key=metadata.EditDeleteKey(key="none"))])
    change(edits=[edit(pachd, replace=metadata.EditReplace(replacement={"b": "3"}))])
    assert of_repo(pachd) == {"b": "3"}
    change(edits=[edit(pachd, delete_key=metadata.EditDeleteKey(key="b"))])
    assert of_repo(pachd) == {}


def test_edits_are_all_or_nothing(pachd: Pachd) -> None:
    """§17: the one that fails is named by its number."""
    first = edit(pachd, edit_key=metadata.EditEditKey(key="k", value="1"))
    again = edit(pachd, add_key=metadata.EditAddKey(key="k", value="2"))
    with refused(UNKNOWN, "already exists; use edit_key instead"):
        pachd.client.metadata.edit_metadata(edits=[first, again])
    assert of_repo(pachd) == {}


def test_a_key_has_a_name(pachd: Pachd) -> None:
    """§17: an empty key is INVALID_ARGUMENT."""
    with refused(INVALID):
        pachd.client.metadata.edit_metadata(
            edits=[edit(pachd, add_key=metadata.EditAddKey(key="", value="1"))]
        )


def test_the_version(pachd: Pachd) -> None:
    """§1.3: GetVersion, of the series that this suite describes."""
    version = pachd.client.get_version()
    assert (version.major, version.minor) == (2, 12)


def test_the_cluster(pachd: Pachd) -> None:
    """§1.3: InspectCluster answers with the same ids every time."""
    one, two = pachd.client.admin.inspect_cluster(), pachd.client.admin.inspect_cluster()
    assert (one.id, one.deployment_id) == (two.id, two.deployment_id)
    assert one.id


def test_auth_that_is_off_says_so(pachd: Pachd) -> None:
    """§3: WhoAmI is UNIMPLEMENTED in words that the SDK knows, on a server without auth."""
    try:
        pachd.client.auth.who_am_i()
    except AuthServiceNotActivated:
        return
    assert pachd.address.token, "a server that knows who asks was given a token"


def test_a_sound_store_has_no_complaints(pachd: Pachd) -> None:
    """§8: Fsck streams nothing."""
    assert list(pachd.client.pfs.fsck()) == []
