"""Uploads over HTTP: what is stored, what is refused, and that a refusal leaves nothing in any repo."""

from __future__ import annotations

import http.client
import socket
import threading
from urllib.parse import urlsplit

import pytest
from pachyderm_sdk.api import pfs

from tests.support.archives import archive, compress, hostile, member, tar, tree_of
from tests.support.backend import DATA, ZSTD, Backend, repo, traces
from tests.support.waiting import eventually
from tests.unit.backend.test_upload import HOSTILE, TREE


def url(workspace: str, bundle_id: str, kind: str = "data") -> str:
    return f"/workspaces/{workspace}/bundles/{kind}/{bundle_id}?name=x"


def test_a_bundle_is_staged_then_current(backend: Backend, workspace: str) -> None:
    bundle_id, body = archive(DATA)
    stored = backend.call("PUT", url(workspace, bundle_id), 201, data=body)
    assert (stored["id"], stored["name"], stored["files"], stored["bytes"]) == (bundle_id, "x", 2, 11)
    assert (stored["new_files"], stored["new_bytes"]) == (2, 11)
    assert backend.call("GET", f"/workspaces/{workspace}/bundles/data/{bundle_id}")["id"] == bundle_id
    backend.error("GET", f"/workspaces/{workspace}/bundles/data/head", 404, "no_bundle")
    backend.deploy(workspace, data=bundle_id)
    head = backend.call("GET", f"/workspaces/{workspace}/bundles/data/head")
    assert (head["id"], head["author"]) == (bundle_id, "me@test")
    assert backend.call("GET", f"/workspaces/{workspace}/bundles/data/{bundle_id}") == head
    text = backend.request("GET", f"/workspaces/{workspace}/bundles/data/head/tree")
    assert text.content == tree_of(DATA).text
    assert text.headers["content-type"].startswith("text/plain")
    client = backend.sdk()
    commit = pfs.Commit(repo=repo(workspace, "data"), id="master")
    paths = {f.file.path for f in client.pfs.walk_file(file=pfs.File(commit=commit, path="/"))}
    assert paths == {
        "/",
        f"/{bundle_id}/",
        f"/{bundle_id}/a.txt",
        f"/{bundle_id}/sub/",
        f"/{bundle_id}/sub/b.txt",
        f"/{bundle_id}.tree",
    }


def test_sending_it_twice_is_once(backend: Backend, workspace: str) -> None:
    bundle_id, body = archive(DATA)
    backend.call("PUT", url(workspace, bundle_id), 201, data=body)
    before = traces(backend.sdk(), workspace)
    again = backend.call("PUT", url(workspace, bundle_id), 201, data=body)
    assert (again["new_files"], again["files"]) == (0, 2)
    assert traces(backend.sdk(), workspace) == before


def test_only_what_is_new_is_sent(backend: Backend, workspace: str) -> None:
    base = backend.put(workspace, "data", DATA)
    backend.deploy(workspace, data=base)
    new = {"sub/b.txt": DATA["sub/b.txt"], "renamed.txt": DATA["a.txt"], "c.txt": b"gamma\n"}
    bundle_id, body = archive({"c.txt": b"gamma\n"}, tree_of(new))
    stored = backend.call("PUT", url(workspace, bundle_id) + f"&base={base}", 201, data=body)
    assert (stored["files"], stored["new_files"], stored["new_bytes"]) == (3, 1, 6)
    backend.deploy(workspace, data=bundle_id)
    client = backend.sdk()
    for path, content in new.items():
        file = pfs.File(
            commit=pfs.Commit(repo=repo(workspace, "data"), id="master"), path=f"/{bundle_id}/{path}"
        )
        with client.pfs.pfs_file(file) as opened:
            assert opened.read() == content
    assert not client.pfs.path_exists(
        pfs.File(
            commit=pfs.Commit(
                repo=repo(workspace, "data"), branch=pfs.Branch(repo=repo(workspace, "data"), name="master")
            ),
            path=f"/{base}/a.txt",
        )
    )


def test_a_base_that_is_no_longer_current(backend: Backend, workspace: str) -> None:
    bundle_id, body = archive(DATA)
    error = backend.error(
        "PUT", url(workspace, bundle_id) + f"&base={'a' * 32}", 409, "stale_base", data=body
    )
    assert error["fields"] == {"head": None}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_archives_leave_no_trace(backend: Backend, workspace: str, name: str) -> None:
    error = backend.error(
        "PUT", url(workspace, TREE.id, "source"), 400, "invalid_bundle", data=HOSTILE[name]()
    )
    assert "Traceback" not in str(error)
    found = traces(backend.sdk(), workspace)
    assert found == {"jobs": []}


def test_a_hostile_archive_leaves_a_deployed_bundle_alone(backend: Backend, workspace: str) -> None:
    base = backend.put(workspace, "data", DATA)
    backend.deploy(workspace, data=base)
    before = traces(backend.sdk(), workspace)
    new = tree_of({**DATA, "c": b"c"})
    for members in ([], [member("c", b"d")], [member("c", b"c"), member("../a.txt", b"x")]):
        backend.error(
            "PUT", url(workspace, new.id) + f"&base={base}", 400, "invalid_bundle", data=hostile(new, members)
        )
    assert traces(backend.sdk(), workspace) == before


def test_a_bundle_id_that_is_none(backend: Backend, workspace: str) -> None:
    backend.error("PUT", url(workspace, "xyz"), 400, "invalid_bundle", data=b"")
    backend.error(
        "PUT", url(workspace, "a" * 32).replace("name=x", "name=a/b"), 400, "invalid_name", data=b""
    )


def test_a_client_that_goes_away_leaves_no_trace(backend: Backend, workspace: str) -> None:
    tree = tree_of({"big": bytes(20 * 2**20)})
    body = compress(tar([member(".kaos-tree", tree.text), member("big", bytes(20 * 2**20))]))
    place = urlsplit(backend.url)
    for sent in (0, 10, len(body) // 2, len(body) - 1):
        with socket.create_connection((place.hostname, place.port)) as connection:
            head = (
                f"PUT {place.path}{url(workspace, tree.id)} HTTP/1.1\r\nHost: localhost\r\n"
                f"Authorization: Bearer {backend.token}\r\nContent-Type: application/zstd\r\n"
                f"Content-Length: {len(body)}\r\n\r\n"
            )
            connection.sendall(head.encode() + body[:sent])
        eventually(lambda: not [t for t in threading.enumerate() if t.name.startswith("upload")])
    eventually(lambda: traces(backend.sdk(), workspace) == {"jobs": []})
    backend.call("PUT", url(workspace, tree.id), 201, data=body)


def test_a_chunked_body_streams(backend: Backend, workspace: str) -> None:
    files = {f"f{i:04d}": b"%d" % i for i in range(500)}
    bundle_id, body = archive(files)
    place = urlsplit(backend.url)
    assert place.hostname is not None
    connection = http.client.HTTPConnection(place.hostname, place.port, timeout=30)
    pieces = (body[i : i + 1000] for i in range(0, len(body), 1000))
    headers = {"Authorization": f"Bearer {backend.token}"} | ZSTD
    connection.request("PUT", place.path + url(workspace, bundle_id), pieces, headers, encode_chunked=True)
    assert connection.getresponse().status == 201
    connection.close()


def test_a_bundle_that_will_not_be_deployed_is_forgotten(backend: Backend, workspace: str) -> None:
    bundle_id, body = archive(DATA)
    backend.call("PUT", url(workspace, bundle_id), 201, data=body)
    for _ in range(2):
        assert (
            backend.request("DELETE", f"/workspaces/{workspace}/bundles/data/{bundle_id}").status_code == 204
        )
    backend.error("GET", f"/workspaces/{workspace}/bundles/data/{bundle_id}", 404, "no_bundle")


@pytest.mark.parametrize(
    ("files", "told"),
    [
        ({"train": b"x"}, "Dockerfile"),
        ({"Dockerfile": b"FROM python:3"}, "no train"),
        ({"m/Dockerfile": b"FROM python:3", "m/model/train": b"x"}, "not executable"),
    ],
)
def test_a_source_that_cannot_be_built_leaves_no_trace(
    backend: Backend, workspace: str, files: dict[str, bytes], told: str
) -> None:
    bundle_id, body = archive(files)
    error = backend.error("PUT", url(workspace, bundle_id, "source"), 400, "invalid_bundle", data=body)
    assert told in error["message"]
    assert traces(backend.sdk(), workspace) == {"jobs": []}
