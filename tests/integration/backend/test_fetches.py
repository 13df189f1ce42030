"""Deploys of manifests over HTTP, fetched by the real engine from a server of this machine."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from kaos_formats.manifest import MANIFEST_FILE, parse_manifest
from tests.support.backend import DATA, SOURCE, Backend
from tests.support.webserver import WebServer


class Remote(WebServer):
    """The files of the little data bundle."""

    def __init__(self) -> None:
        super().__init__()
        for path, content in DATA.items():
            self.put(f"/{path}", content)

    def manifest(self, *paths: str) -> bytes:
        lines = ({"url": self.url(f"/{path}"), "path": path} for path in paths)
        return "".join(json.dumps(line) + "\n" for line in lines).encode()


@pytest.fixture
def remote() -> Iterator[Remote]:
    made = Remote()
    yield made
    made.close()


def put(backend: Backend, workspace: str, text: bytes, name: str = "letters") -> str:
    return backend.put(workspace, "manifest", {MANIFEST_FILE: parse_manifest(text).text}, name)


def deploy(backend: Backend, workspace: str, **given: Any) -> Any:
    answer = backend.deploy(workspace, **given)
    return answer, backend.wait(workspace, answer["job"])


def versions(backend: Backend, workspace: str) -> list[tuple[str, bool, list[str]]]:
    listed = backend.call("GET", f"/workspaces/{workspace}/versions/data")["versions"]
    return [(one["id"], one["current"], one["jobs"]) for one in listed]


def test_what_a_manifest_names_is_the_data(backend: Backend, workspace: str, remote: Remote) -> None:
    source = backend.put(workspace, "source", SOURCE, "little")
    manifest = put(backend, workspace, remote.manifest(*DATA))
    answer, job = deploy(backend, workspace, source=source, manifest=manifest)
    assert answer["stages"] == ["fetch", "build", "train"]
    assert (answer["data"], answer["manifest"]["name"]) == (None, "letters")
    assert (job["state"], job["reason"]) == ("success", "")
    data = backend.put(workspace, "data", DATA, "letters")
    assert job["inputs"]["data"]["id"] == data
    assert (job["inputs"]["data"]["files"], job["inputs"]["manifest"]["id"]) == (len(DATA), manifest)
    assert [trial["model"][:13] for trial in job["trials"]] == [f"{source[:6]}-{data[:6]}"]
    again = backend.deploy(workspace, manifest=manifest)
    assert (again["status"], again["job"]) == ("unchanged", job["id"])
    assert versions(backend, workspace) == [(data, True, [job["id"]])]
    # Only what has changed is downloaded, and what was made of it before can go.
    remote.put("/a.txt", b"another\n")
    remote.sent = 0
    _, other = deploy(backend, workspace, refresh=True)
    assert remote.sent == len(b"another\n")
    fresh = other["inputs"]["data"]["id"]
    assert (other["state"], other["stages"][-1]["skipped"]) == ("success", 0)
    assert backend.deploy(workspace, manifest=manifest)["status"] == "unchanged"
    assert versions(backend, workspace) == [(fresh, True, [other["id"]]), (data, False, [job["id"]])]
    removals = f"/workspaces/{workspace}/removals"
    backend.error("POST", removals, 409, "in_use", json={"data": [data]})
    gone = backend.call("POST", removals, json={"data": [data[:8]], "force": True})
    assert (gone["jobs"], gone["data"]) == ([job["id"]], [data])
    assert versions(backend, workspace) == [(fresh, True, [other["id"]])]


def test_a_fetch_that_fails_leaves_the_data_of_before(
    backend: Backend, workspace: str, remote: Remote
) -> None:
    lines = remote.manifest("a.txt", "gone", "sub/b.txt", "lost")
    source = backend.put(workspace, "source", SOURCE, "little")
    _, failed = deploy(backend, workspace, source=source, manifest=put(backend, workspace, lines))
    assert (failed["state"], failed["code"]) == ("failed", "fetch_failed")
    assert failed["reason"].startswith("the fetch failed: ")
    assert "2, 4" in failed["reason"]
    assert [stage["state"] for stage in failed["stages"]] == ["failed", "success", "unrunnable"]
    answer = backend.deploy(workspace, hyper={"lr": [0.5]})
    assert (answer["status"], "-m" in answer["hint"]) == ("waiting", True)
    # Data that was sent, and that of another manifest, stay current.
    data = backend.put(workspace, "data", DATA, "letters")
    _, sent = deploy(backend, workspace, data=data)
    assert (sent["state"], sent["inputs"]["manifest"]) == ("success", None)
    manifest = put(backend, workspace, remote.manifest("a.txt"))
    for good, kind in ((None, "data"), (manifest, "manifest")):
        if good is not None:
            _, fetched = deploy(backend, workspace, manifest=good)
            assert (fetched["state"], fetched["reason"]) == ("success", "")
        _, failed = deploy(backend, workspace, manifest=put(backend, workspace, lines))
        assert (failed["state"], [s["name"] for s in failed["stages"]]) == ("failed", ["fetch", "train"])
        held = backend.call("GET", f"/workspaces/{workspace}")
        assert [held["manifest"] and held["manifest"]["id"], held["data"]["files"]] == [
            good,
            1 if good else 2,
        ]
        remote.requests.clear()
        answer, job = deploy(backend, workspace, hyper={"lr": [0.1, kind == "data"]})
        assert (answer["parts"], job["state"]) == ([kind, "hyper"], "success")
        assert "could not be fetched" in answer["message"]
        assert job["inputs"]["data"]["id"] == held["data"]["id"]
        assert not remote.requests
    # Once the servers have it, the same lines are fetched.
    remote.put("/gone", b"there")
    remote.put("/lost", b"found")
    _, mended = deploy(backend, workspace, manifest=put(backend, workspace, lines))
    assert (mended["state"], mended["inputs"]["data"]["files"]) == ("success", 4)


def test_what_cannot_be_is_refused(backend: Backend, workspace: str, remote: Remote) -> None:
    data = backend.put(workspace, "data", DATA)
    manifest = put(backend, workspace, remote.manifest(*DATA))
    path = f"/workspaces/{workspace}/deploys"
    backend.error("POST", path, 400, "invalid_request", json={"data": data, "manifest": manifest})
    backend.error("POST", path, 404, "no_bundle", json={"refresh": True})
