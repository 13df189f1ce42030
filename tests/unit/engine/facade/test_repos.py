"""Projects, repos, branches and metadata through the SDK."""

from __future__ import annotations

import grpc
import pytest
from pachyderm_sdk import Client
from pachyderm_sdk.api import metadata, pfs
from pachyderm_sdk.errors import AuthServiceNotActivated

from .refusals import refused

DATA = pfs.Repo.from_uri("data")
MASTER = pfs.Branch.from_uri("data@master")


def commit_once(client: Client, branch: pfs.Branch = MASTER) -> pfs.Commit:
    with client.pfs.commit(branch=branch) as commit:
        commit.put_file_from_bytes("/file", b"content")
    return commit


def test_projects(client: Client) -> None:
    lab = pfs.Project(name="lab")
    client.pfs.create_project(project=lab, description="first")
    with refused(grpc.StatusCode.ALREADY_EXISTS, "project lab already exists"):
        client.pfs.create_project(project=lab)
    client.pfs.create_project(project=lab, description="second", update=True)
    assert client.pfs.inspect_project(project=lab).description == "second"
    assert client.pfs.inspect_project_v2(project=lab).info.project.name == "lab"
    assert [info.project.name for info in client.pfs.list_project()] == ["default", "lab"]
    client.pfs.create_repo(repo=pfs.Repo.from_uri("lab/r"))
    with refused(grpc.StatusCode.FAILED_PRECONDITION, "cannot delete project lab: repo lab/r still exists"):
        client.pfs.delete_project(project=lab)
    client.pfs.delete_project(project=lab, force=True)
    assert not client.pfs.project_exists(lab)
    with refused(grpc.StatusCode.NOT_FOUND, 'project "lab" not found'):
        client.pfs.delete_project(project=lab)
    client.pfs.delete_project(project=lab, force=True)
    with refused(grpc.StatusCode.UNKNOWN, "project names must start with an alphanumeric character"):
        client.pfs.create_project(project=pfs.Project(name="-x"))


def test_repos(client: Client) -> None:
    client.pfs.create_repo(repo=DATA, description="mine")
    with refused(grpc.StatusCode.ALREADY_EXISTS, "repo default/data already exists"):
        client.pfs.create_repo(repo=DATA)
    client.pfs.create_repo(repo=DATA, description="ours", update=True)
    info = client.pfs.inspect_repo(repo=DATA)
    assert (info.description, info.branches, info.details.size_bytes) == ("ours", [], 0)
    commit_once(client)
    info = client.pfs.inspect_repo(repo=DATA)
    assert (info.size_bytes_upper_bound, info.details.size_bytes) == (7, 7)
    assert [branch.name for branch in info.branches] == ["master"]
    with refused(grpc.StatusCode.NOT_FOUND, 'project "nowhere" not found'):
        client.pfs.create_repo(repo=pfs.Repo.from_uri("nowhere/r"))
    with refused(grpc.StatusCode.UNKNOWN, "invalid: only alphanumeric characters"):
        client.pfs.create_repo(repo=pfs.Repo(name="no spaces"))
    with refused(grpc.StatusCode.UNKNOWN, "__filesets__ is a reserved name"):
        client.pfs.create_repo(repo=pfs.Repo(name="__filesets__"))
    with refused(grpc.StatusCode.NOT_FOUND, "not found"):
        client.pfs.create_repo(repo=pfs.Repo(name="nobody", type="spec"))
    assert not client.pfs.repo_exists(pfs.Repo.from_uri("other"))


def test_listing_repos(client: Client) -> None:
    for name in ("b", "a", "c"):
        client.pfs.create_repo(repo=pfs.Repo(name=name))
    client.pfs.create_repo(repo=pfs.Repo(name="a", type="meta"))

    def listed(**options: object) -> list[str]:
        return [f"{info.repo.name}.{info.repo.type}" for info in client.pfs.list_repo(**options)]

    assert listed() == ["a.meta", "a.user", "b.user", "c.user"]
    assert listed(type="user") == ["a.user", "b.user", "c.user"]
    assert listed(type="user", page=pfs.RepoPage(page_size=2, page_index=1)) == ["c.user"]
    assert listed(projects=[pfs.Project(name="none")]) == []


def test_deleting_repos(client: Client) -> None:
    client.pfs.create_repo(repo=DATA)
    client.pfs.create_repo(repo=pfs.Repo(name="data", type="meta"))
    client.pfs.create_repo(repo=pfs.Repo(name="out"))
    client.pfs.create_branch(branch=pfs.Branch.from_uri("out@master"), provenance=[MASTER])
    with refused(grpc.StatusCode.UNKNOWN, "in the direct provenance of"):
        client.pfs.delete_repo(repo=DATA)
    assert client.pfs.delete_repo(repo=DATA, force=True).deleted
    assert not client.pfs.delete_repo(repo=DATA).deleted
    assert [info.repo.name for info in client.pfs.list_repo()] == ["out"]
    assert client.pfs.inspect_branch(branch=pfs.Branch.from_uri("out@master")).direct_provenance == []
    client.pfs.delete_all()
    assert list(client.pfs.list_repo()) == []
    assert client.pfs.project_exists(pfs.Project(name="default"))


def test_a_new_branch_has_an_empty_head(client: Client) -> None:
    client.pfs.create_repo(repo=DATA)
    client.pfs.create_branch(branch=MASTER)
    client.pfs.create_branch(branch=MASTER)
    (head,) = client.pfs.list_commit(repo=DATA)
    assert head.origin.kind == pfs.OriginKind.AUTO
    assert head.finished.year > 1970
    assert client.pfs.inspect_branch(branch=MASTER).head.id == head.commit.id


def test_branches(client: Client) -> None:
    client.pfs.create_repo(repo=DATA)
    first, second = commit_once(client), commit_once(client)
    dev = pfs.Branch.from_uri("data@dev")
    client.pfs.create_branch(branch=dev, head=pfs.Commit.from_uri("data@master^"))
    assert client.pfs.inspect_branch(branch=dev).head.id == first.id
    client.pfs.create_branch(branch=dev, head=second)
    assert client.pfs.inspect_branch(branch=dev).head.id == second.id
    assert [info.branch.name for info in client.pfs.list_branch(repo=DATA)] == ["dev", "master"]
    assert [info.branch.name for info in client.pfs.list_branch(repo=DATA, reverse=True)] == ["master", "dev"]
    client.pfs.delete_branch(branch=dev)
    assert not client.pfs.branch_exists(dev)
    assert client.pfs.commit_exists(first), "commits stay"
    with refused(grpc.StatusCode.NOT_FOUND, "branch default/data@dev not found"):
        client.pfs.delete_branch(branch=dev)
    with refused(grpc.StatusCode.NOT_FOUND, "repo default/nope not found"):
        list(client.pfs.list_branch(repo=pfs.Repo.from_uri("nope")))
    with refused(grpc.StatusCode.UNKNOWN, "branch name cannot be a UUID V4"):
        client.pfs.create_branch(branch=pfs.Branch(repo=DATA, name=first.id))


def test_branches_that_are_refused(client: Client) -> None:
    for name in ("data", "mid", "out"):
        client.pfs.create_repo(repo=pfs.Repo(name=name))
    commit = commit_once(client)
    out, mid = pfs.Branch.from_uri("out@master"), pfs.Branch.from_uri("mid@master")
    with refused(grpc.StatusCode.UNKNOWN, "must belong to the same repo"):
        client.pfs.create_branch(branch=out, head=commit)
    with refused(grpc.StatusCode.UNKNOWN, "provenance of its own branch"):
        client.pfs.create_branch(branch=MASTER, provenance=[pfs.Branch.from_uri("data@x")])
    with refused(grpc.StatusCode.UNKNOWN, "cannot have both a trigger and provenance"):
        client.pfs.create_branch(branch=out, provenance=[MASTER], trigger=pfs.Trigger(branch="x", commits=1))
    client.pfs.create_branch(branch=mid, provenance=[MASTER])
    with refused(grpc.StatusCode.INTERNAL, "cycle"):
        client.pfs.create_branch(branch=MASTER, provenance=[mid])
    with refused(grpc.StatusCode.UNKNOWN, "multiple branches from the same repo"):
        client.pfs.create_branch(branch=out, provenance=[mid, pfs.Branch.from_uri("data@dev")])
    assert not client.pfs.branch_exists(out), "a refused call leaves nothing"
    assert not client.pfs.branch_exists(pfs.Branch.from_uri("data@dev"))
    with refused(grpc.StatusCode.UNKNOWN, "in the direct provenance of"):
        client.pfs.delete_branch(branch=MASTER)


def test_provenance_is_transitive_both_ways(client: Client) -> None:
    for name in ("data", "mid", "out"):
        client.pfs.create_repo(repo=pfs.Repo(name=name))
    out, mid = pfs.Branch.from_uri("out@master"), pfs.Branch.from_uri("mid@master")
    client.pfs.create_branch(branch=mid, provenance=[MASTER])
    client.pfs.create_branch(branch=out, provenance=[mid])
    info = client.pfs.inspect_branch(branch=out)
    assert [branch.repo.name for branch in info.provenance] == ["data", "mid"]
    assert [branch.repo.name for branch in info.direct_provenance] == ["mid"]
    info = client.pfs.inspect_branch(branch=MASTER)
    assert [branch.repo.name for branch in info.subvenance] == ["mid", "out"]
    walked = client.pfs.walk_branch_subvenance(start=[MASTER.as_picker()])
    assert [one.branch.repo.name for one in walked] == ["data", "mid", "out"]
    client.pfs.create_branch(branch=out)
    assert client.pfs.inspect_branch(branch=out).direct_provenance == [], "an upsert without removes it"


@pytest.mark.parametrize("condition", ["cron_spec", "rate_limit_spec"])
def test_a_trigger_with_a_time_that_is_none(client: Client, condition: str) -> None:
    client.pfs.create_repo(repo=DATA)
    client.pfs.create_branch(branch=MASTER)
    release = pfs.Branch.from_uri("data@release")
    trigger = pfs.Trigger(branch="master", **{condition: "every day"})
    with refused(grpc.StatusCode.UNKNOWN, condition):
        client.pfs.create_branch(branch=release, trigger=trigger)
    assert not client.pfs.branch_exists(release)


def test_triggers_move_their_branch(client: Client) -> None:
    client.pfs.create_repo(repo=DATA)
    release = pfs.Branch.from_uri("data@release")
    client.pfs.create_branch(branch=MASTER)
    client.pfs.create_branch(branch=release, trigger=pfs.Trigger(branch="master", size="10B"))
    assert client.pfs.inspect_branch(branch=release).trigger.size == "10B"
    start = client.pfs.inspect_branch(branch=release).head.id
    commit_once(client)
    assert client.pfs.inspect_branch(branch=release).head.id == start
    with client.pfs.commit(branch=MASTER) as grown:
        grown.put_file_from_bytes("/more", b"12345678")
    assert client.pfs.inspect_branch(branch=release).head.id == grown.id
    with refused(grpc.StatusCode.UNKNOWN, "triggers branches"):
        client.pfs.delete_branch(branch=MASTER)


def test_metadata(client: Client) -> None:
    client.pfs.create_repo(repo=DATA)
    commit = commit_once(client)
    targets = {
        "project": pfs.ProjectPicker(name="default"),
        "repo": DATA.as_picker(),
        "branch": MASTER.as_picker(),
        "commit": pfs.Commit.from_uri(f"data@{commit.id}").as_picker(),
        "cluster": metadata.ClusterPicker(),
    }
    add = metadata.EditAddKey(key="k", value="v")
    edits = [metadata.Edit(**{name: picker}, add_key=add) for name, picker in targets.items()]
    client.metadata.edit_metadata(edits=edits)
    assert client.pfs.inspect_project(project=pfs.Project(name="default")).metadata == {"k": "v"}
    assert client.pfs.inspect_repo(repo=DATA).metadata == {"k": "v"}
    assert client.pfs.inspect_branch(branch=MASTER).metadata == {"k": "v"}
    assert client.pfs.inspect_commit(commit=commit).metadata == {"k": "v"}
    assert client.admin.inspect_cluster().metadata == {"k": "v", "kaos.runtime": "process"}

    again = metadata.Edit(repo=targets["repo"], add_key=add)
    other = metadata.Edit(repo=targets["repo"], edit_key=metadata.EditEditKey(key="k", value="w"))
    with refused(
        grpc.StatusCode.UNKNOWN, "edit #1: add_key target key 'k' already exists; use edit_key instead"
    ):
        client.metadata.edit_metadata(edits=[other, again])
    assert client.pfs.inspect_repo(repo=DATA).metadata == {"k": "v"}, "all edits or none"
    gone = metadata.Edit(repo=targets["repo"], delete_key=metadata.EditDeleteKey(key="none"))
    replace = metadata.Edit(repo=targets["repo"], replace=metadata.EditReplace(replacement={"new": "1"}))
    client.metadata.edit_metadata(edits=[other, gone, replace])
    assert client.pfs.inspect_repo(repo=DATA).metadata == {"new": "1"}


def test_the_server_introduces_itself(client: Client) -> None:
    version = client.get_version()
    assert (version.major, version.minor, version.micro) == (2, 12, 2)
    assert client.admin.inspect_cluster().id == client.admin.inspect_cluster().id
    assert client.enterprise.get_state().state == 0
    with pytest.raises(AuthServiceNotActivated):
        client.auth.who_am_i()


def test_what_is_not_built_says_so(client: Client) -> None:
    with refused(grpc.StatusCode.UNIMPLEMENTED, "snapshot.API/ListSnapshot is not built"):
        list(client.snapshot.list_snapshot())


def test_only_holders_of_the_token_are_answered(address: tuple[str, int], client: Client) -> None:
    host, port = address
    with refused(grpc.StatusCode.UNAUTHENTICATED, "no authentication token"):
        Client(host=host, port=port).get_version()
    stranger = Client(host=host, port=port, auth_token="guess")
    with refused(grpc.StatusCode.UNAUTHENTICATED, "corrupted or has expired"):
        stranger.get_version()
    with refused(grpc.StatusCode.UNAUTHENTICATED, "corrupted or has expired"):
        list(stranger.pfs.list_repo())
    with refused(grpc.StatusCode.UNAUTHENTICATED, "corrupted or has expired"):
        stranger.pfs.modify_file(iter([pfs.ModifyFileRequest(set_commit=pfs.Commit.from_uri("a@b"))]))
    with refused(grpc.StatusCode.UNAUTHENTICATED, "corrupted or has expired"):
        stranger.auth.who_am_i()
