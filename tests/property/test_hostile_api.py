"""The HTTP API and the engine's: whatever is sent gets an answer in words, and leaves nothing behind."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any
from urllib.parse import quote

import grpc
import pytest
import requests
from hypothesis import given
from hypothesis import strategies as st
from pachyderm_sdk import Client
from pachyderm_sdk.api import metadata, pfs

from kaos_formats.tree import TREE_FILE
from tests.support.archives import compress, member, tar, tree_of
from tests.support.backend import Backend, repo, running_backend, traces
from tests.support.hostile import ANSWER_TIMEOUT_S, any_body, any_json, any_text, few, globs, paths, text

SPEC_FIELDS = [
    *("transform", "input", "parallelismSpec", "datumTries", "jobTimeout", "resourceLimits", "outputBranch"),
    *("metadata", "service", "x"),
]
NEVER = {grpc.StatusCode.INTERNAL, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.UNAVAILABLE}


@pytest.fixture(scope="module")
def backend(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backend]:
    with running_backend(tmp_path_factory.mktemp("home")) as running:
        yield running


@pytest.fixture(scope="module")
def workspace(backend: Backend) -> str:
    return backend.workspace("hostile")


@pytest.fixture(scope="module")
def client(backend: Backend, workspace: str) -> Client:
    return backend.sdk()


def ask(backend: Backend, method: str, path: str, **kwargs: Any) -> requests.Response:
    """The answer, which is one of the API's own: no crash, no silence, JSON that says what is wrong."""
    headers = {"Content-Type": "application/zstd" if method == "PUT" else "application/json"}
    response = backend.http.request(
        method, f"{backend.url}{path}", timeout=ANSWER_TIMEOUT_S, headers=headers, **kwargs
    )
    assert response.status_code != 415
    assert response.status_code < 500, response.text
    if response.status_code >= 400:
        assert response.json()["error"]["message"]
    return response


@few(60)
@given(name=any_text, description=any_text)
def test_names_and_descriptions(backend: Backend, name: str, description: str) -> None:
    body = json.dumps({"name": name, "description": description})
    made = ask(backend, "POST", "/workspaces", data=body)
    found = ask(backend, "GET", f"/workspaces/{quote(name, safe='', errors='surrogatepass')}")
    if made.status_code == 201:
        assert found.status_code == 200
        listed = ask(backend, "GET", "/workspaces").json()["workspaces"]
        assert {w["name"]: w["description"] for w in listed}[name] == description
        ask(backend, "DELETE", f"/workspaces/{quote(name, safe='')}")
    assert ask(backend, "GET", "/workspaces").json()["workspaces"]


@few(80)
@given(body=any_body, route=st.sampled_from(["/workspaces", "/workspaces/hostile/deploys"]))
def test_bodies(backend: Backend, workspace: str, body: bytes, route: str) -> None:
    ask(backend, "POST", route, data=body)


@few(80)
@given(grid=any_json)
def test_grids(backend: Backend, workspace: str, grid: Any) -> None:
    answer = ask(backend, "POST", f"/workspaces/{workspace}/deploys", data=json.dumps({"hyper": grid}))
    shown = ask(backend, "GET", f"/workspaces/{workspace}").json()
    if answer.status_code == 200 and grid is not None:
        assert shown["hyper"]["id"] == answer.json()["grid"]["id"]


@few(60)
@given(
    fields=st.dictionaries(
        st.sampled_from(["source", "data", "parallelism", "author", "retry", "resources", "x"]),
        st.one_of(any_json, st.fixed_dictionaries({"cpu": any_json, "memory": any_json, "gpu": any_json})),
    )
)
def test_settings(backend: Backend, workspace: str, fields: dict[str, Any]) -> None:
    ask(backend, "POST", f"/workspaces/{workspace}/deploys", data=json.dumps(fields))


@few(60)
@given(
    segments=st.lists(
        st.one_of(
            text, st.sampled_from(["jobs", "last", "models", "logs", "bundles", "head", "data", "tree"])
        ),
        max_size=4,
    ),
    query=st.dictionaries(
        st.sampled_from(["tail", "sort", "order", "trial", "limit", "follow", "base", "name"]),
        text,
        max_size=2,
    ),
)
def test_places(backend: Backend, workspace: str, segments: list[str], query: dict[str, str]) -> None:
    path = "".join(f"/{quote(segment[:2000], safe='')}" for segment in segments)
    short = {key: value[:2000] for key, value in query.items()}
    ask(backend, "GET", f"/workspaces/{workspace}{path}", params=short)


FILES = {"train": b"#!/bin/sh\n", "sub/data": b"x" * 700, "empty": b""}
TREE = tree_of(FILES)
KINDS = (
    tarfile.REGTYPE,
    tarfile.SYMTYPE,
    tarfile.LNKTYPE,
    tarfile.DIRTYPE,
    tarfile.FIFOTYPE,
    b"x",
    b"g",
    b"L",
)
members = st.builds(
    member,
    st.one_of(st.sampled_from([*FILES, TREE_FILE]), paths),
    st.one_of(st.sampled_from(list(FILES.values())), st.binary(max_size=600)),
    st.sampled_from(KINDS),
)


@few(60)
@given(
    tree=st.one_of(st.just(TREE.text), st.binary(max_size=50)),
    more=st.lists(members, max_size=3),
    honest=st.lists(st.sampled_from(sorted(FILES)), unique=True),
    cut=st.one_of(st.none(), st.integers(0, 4000)),
    flip=st.one_of(st.none(), st.integers(0, 4000)),
)
def test_archives(
    backend: Backend,
    workspace: str,
    tree: bytes,
    more: list[Any],
    honest: list[str],
    cut: int | None,
    flip: int | None,
) -> None:
    """Stored whole or not at all; nothing lies around afterwards."""
    raw = bytearray(
        tar([member(TREE_FILE, tree), *(member(path, FILES[path]) for path in honest), *more])[:cut]
    )
    if flip is not None and flip < len(raw):
        raw[flip] ^= 0x41
    before = traces(backend.sdk(), workspace)
    answer = ask(
        backend,
        "PUT",
        f"/workspaces/{workspace}/bundles/data/{TREE.id}",
        params={"name": "n"},
        data=compress(bytes(raw)),
    )
    if answer.status_code == 201:
        assert sorted(honest) == sorted(FILES)
        ask(backend, "DELETE", f"/workspaces/{workspace}/bundles/data/{TREE.id}")
    assert traces(backend.sdk(), workspace) == before
    assert not list((backend.home / "engine" / "tmp").iterdir())


def refusal(call: Callable[[], object]) -> grpc.StatusCode | None:
    """How the engine refused a call; None if it did not. Never as a crash."""
    try:
        call()
    except grpc.RpcError as error:
        refused = error
    else:
        return None
    assert refused.code() not in NEVER, refused.details()
    assert "Exception" not in refused.details()
    return refused.code()


def modify(client: Client, commit: pfs.Commit, *requests: pfs.ModifyFileRequest) -> None:
    client.pfs.modify_file(iter([pfs.ModifyFileRequest(set_commit=commit), *requests]))


@pytest.fixture(scope="module")
def commit(client: Client) -> pfs.Commit:
    client.pfs.create_project(project=pfs.Project(name="hostile-files"))
    files = repo("hostile-files", "files")
    client.pfs.create_repo(repo=files)
    return client.pfs.start_commit(branch=pfs.Branch(repo=files, name="master"))


@few(80)
@given(path=paths, content=st.binary(max_size=20))
def test_paths_of_files(client: Client, commit: pfs.Commit, path: str, content: bytes) -> None:
    """A file is refused, or it is there."""
    client.pfs.clear_commit(commit=commit)
    add = pfs.ModifyFileRequest(add_file=pfs.AddFile(path=path, raw=content))
    if refusal(lambda: modify(client, commit, add)):
        assert not files_of(client, commit)
    else:
        assert list(files_of(client, commit).values()) == [content]


def files_of(client: Client, commit: pfs.Commit) -> dict[str, bytes]:
    found = {}
    for info in client.pfs.walk_file(file=pfs.File(commit=commit, path="/")):
        if info.file_type == pfs.FileType.FILE:
            with client.pfs.pfs_file(info.file) as file:
                found[info.file.path] = file.read()
    return found


@few(60)
@given(pattern=globs)
def test_globs(backend: Backend, client: Client, commit: pfs.Commit, pattern: str) -> None:
    client.pfs.clear_commit(commit=commit)
    for path in ("/" + "a" * 40 + "/" + "a" * 40, "/b"):
        modify(client, commit, pfs.ModifyFileRequest(add_file=pfs.AddFile(path=path, raw=b"x")))
    refusal(lambda: list(client.pfs.glob_file(commit=commit, pattern=pattern, path_range=pfs.PathRange())))


@few(60)
@given(
    name=text,
    id=st.one_of(text, st.from_regex(r"(master|[0-9a-f]{32})?[\^~.]{0,3}[0-9]{0,30}", fullmatch=True)),
)
def test_references(client: Client, commit: pfs.Commit, name: str, id: str) -> None:
    for one in (
        pfs.Commit(repo=commit.repo, id=id),
        pfs.Commit(repo=repo("hostile-files", name), id="master"),
    ):
        root = pfs.File(commit=one, path="/")
        refusal(partial(client.pfs.inspect_commit, commit=one))
        refusal(lambda root=root: list(client.pfs.list_file(file=root)))
    branch = pfs.Branch(repo=commit.repo, name=name)
    if refusal(lambda: client.pfs.create_branch(branch=branch)) is None:
        client.pfs.delete_branch(branch=branch)


@few(60)
@given(name=text, description=text, key=text.filter(bool), value=text)
def test_words(client: Client, name: str, description: str, key: str, value: str) -> None:
    """Names are refused or found again; descriptions and metadata come back as they were."""
    project = pfs.Project(name=name)
    if name in ("default", "hostile", "hostile-files") or refusal(
        lambda: client.pfs.create_project(project=project, description=description)
    ):
        return
    edit = metadata.Edit(
        project=pfs.ProjectPicker(name=name), replace=metadata.EditReplace(replacement={key: value})
    )
    edited = refusal(lambda: client.metadata.edit_metadata(edits=[edit]))
    found = client.pfs.inspect_project(project=project)
    assert found.description == description
    assert found.metadata == ({} if edited else {key: value})
    client.pfs.delete_project(project=project)


@few(60)
@given(
    spec=st.one_of(
        any_json,
        st.fixed_dictionaries(
            {"pipeline": st.just({"name": "p", "project": {"name": "hostile-files"}})},
            optional=dict.fromkeys(SPEC_FIELDS, any_json),
        ),
    )
)
def test_pipeline_specs(client: Client, commit: pfs.Commit, spec: Any) -> None:
    request = json.dumps(spec)
    refusal(lambda: client.pps.create_pipeline_v2(create_pipeline_request_json=request, dry_run=True))


def test_afterwards_all_is_well(backend: Backend, client: Client, workspace: str) -> None:
    """The tests above hurt nobody: not the store, not the next user."""
    assert [one.error for one in client.pfs.fsck()] == []
    assert not list((backend.home / "engine" / "tmp").iterdir())
    other = backend.workspace("afterwards")
    backend.deploy_all(other, hyper={"lr": [0.1]})
    assert backend.wait(other)["state"] == "success"
