"""How much of a listing is asked for: numbers and pages that make no sense, or are behind every end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import grpc
import pytest
from pachyderm_sdk import Client
from pachyderm_sdk.api import pfs, pps

from kaos_backend.engine.errors import InvalidArgument
from kaos_backend.engine.facade.convert import at_most, page_of

from .refusals import refused

INT64 = (1 << 63) - 1
REPO = pfs.Repo(name="r", type="user", project=pfs.Project(name="default"))
MASTER = pfs.Commit(repo=REPO, branch=pfs.Branch(repo=REPO, name="master"))


@pytest.mark.parametrize(
    "call",
    [
        lambda pfs_: pfs_.list_commit(repo=REPO, number=-1),
        lambda pfs_: pfs_.list_file(file=pfs.File(commit=MASTER, path="/"), number=-1),
        lambda pfs_: pfs_.list_repo(page=pfs.RepoPage(page_size=-1)),
        lambda pfs_: pfs_.list_repo(page=pfs.RepoPage(page_size=1, page_index=-1)),
    ],
)
def test_negative_ones_are_refused(client: Client, call: Callable[[Any], Any]) -> None:
    client.pfs.create_repo(repo=REPO)
    client.pfs.create_branch(branch=pfs.Branch(repo=REPO, name="master"))
    with refused(grpc.StatusCode.INVALID_ARGUMENT, "negative"):
        list(call(client.pfs))


def test_pages_behind_every_end_are_empty(client: Client) -> None:
    client.pfs.create_repo(repo=REPO)
    assert [one.repo.name for one in client.pfs.list_repo(page=pfs.RepoPage(page_size=INT64))] == ["r"]
    assert not list(client.pfs.list_repo(page=pfs.RepoPage(page_size=INT64, page_index=INT64)))


def test_nothing_said_is_all() -> None:
    assert (at_most(0), at_most(3)) == (None, 3)
    assert page_of(pps.PipelinePage()) == (0, None)
    assert page_of(pps.PipelinePage(page_size=2, page_index=3)) == (6, 8)
    with pytest.raises(InvalidArgument, match="-1"):
        at_most(-1)
