"""Damage in the store, from its discovery to the same folder sent again."""

from __future__ import annotations

import json
import os
import sqlite3
from pathlib import Path
from typing import Any

import pytest
import requests
from blake3 import blake3

from tests.support.archives import archive
from tests.support.backend import SOURCE, Backend


@pytest.fixture
def files() -> dict[str, bytes]:
    """Content that no other test has: equal content is stored, and laid out for trials, once."""
    return {"large.bin": os.urandom(2 << 20), "small.txt": b"small\n"}


def flip(path: Path) -> None:
    """Change the first byte of a file."""
    with path.open("r+b") as file:
        old = file.read(1)
        file.seek(0)
        file.write(bytes([old[0] ^ 1]))


def loose(backend: Backend, files: dict[str, bytes]) -> Path:
    """Where the large file lies."""
    name = blake3(files["large.bin"]).hexdigest()
    return backend.home / "engine" / "objects" / name[:2] / name[2:]


def check(backend: Backend, repair: bool = False) -> list[dict[str, Any]]:
    response = backend.request("POST", "/check", json={"repair": repair})
    assert response.status_code == 200, response.text
    lines = [json.loads(line) for line in response.text.splitlines()]
    assert all(line.pop("version") == 1 for line in lines)
    return lines


def findings(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [line["finding"] for line in lines if "finding" in line]


def test_a_sound_store(backend: Backend, files: dict[str, bytes]) -> None:
    backend.put("default", "data", files)
    lines = check(backend)
    assert findings(lines) == []
    progress, end = lines[-2]["progress"], lines[-1]["end"]
    assert progress["objects"] == progress["objects_total"] == end["objects"]
    assert progress["bytes"] == progress["bytes_total"] == end["bytes"] >= len(files["large.bin"])
    assert (end["damaged"], end["repaired"]) == (0, 0)


def test_the_same_folder_sent_again_heals_what_a_check_found(
    backend: Backend, files: dict[str, bytes]
) -> None:
    workspace = backend.workspace("hurt")
    source = backend.put(workspace, "source", SOURCE)
    data = backend.put(workspace, "data", files)
    job = backend.deploy(workspace, source=source, data=data)["job"]
    backend.wait(workspace)
    flip(loose(backend, files))

    lines = check(backend)
    found = findings(lines)
    assert {one["path"] for one in found if one["repo"] == "data"} == {f"/{data}/large.bin"}
    assert {one["workspace"] for one in found} == {workspace}
    assert all("objects/" in one["what"] and not one["repaired"] for one in found)
    assert lines[-1]["end"]["damaged"] == len(found)

    backend.error("GET", f"/workspaces/{workspace}/bundles/data/{data}", 404, "no_bundle")
    backend.error("GET", f"/workspaces/{workspace}/bundles/data/head/tree", 404, "no_bundle")
    error = backend.error("PUT", *_put(workspace, data, base=data), 409, "stale_base", data=b"")
    assert error["fields"]["head"] == data
    assert backend.put(workspace, "data", files) == data
    assert findings(check(backend)) == []
    assert backend.call("GET", f"/workspaces/{workspace}/bundles/data/{data}")["id"] == data
    answer = backend.deploy(workspace, source=source, data=data)
    assert (answer["status"], answer["job"]) == ("unchanged", job)
    commits = backend.sdk().pfs.list_branch(repo=_repo(workspace, "data"))
    assert [branch.branch.name for branch in commits] == ["master"], "nothing staged stays behind"


def test_a_finding_is_called_as_its_owner_called_it(backend: Backend) -> None:
    workspace = backend.workspace("names")
    content = os.urandom(2 << 20)
    data = backend.put(workspace, "data", {"größe (1).bin": content, "deep/[x].txt": b"x"})
    backend.deploy(workspace, data=data)
    name = blake3(content).hexdigest()
    flip(backend.home / "engine" / "objects" / name[:2] / name[2:])
    found = findings(check(backend))
    assert {one["path"] for one in found} == {f"/{data}/größe (1).bin"}
    # Nothing of it stays behind for the tests that look at the whole store.
    backend.put(workspace, "data", {"größe (1).bin": content, "deep/[x].txt": b"x"})
    assert findings(check(backend)) == []


def _put(workspace: str, bundle: str, base: str) -> tuple[str]:
    return (f"/workspaces/{workspace}/bundles/data/{bundle}?name=bundle&base={base}",)


def _repo(workspace: str, name: str) -> Any:
    from pachyderm_sdk.api import pfs

    return pfs.Repo(name=name, type="user", project=pfs.Project(name=workspace))


def test_a_trial_says_what_is_damaged_and_runs_once_it_is_healed(
    backend: Backend, files: dict[str, bytes]
) -> None:
    workspace = backend.workspace("trial")
    source = backend.put(workspace, "source", SOURCE)
    data = backend.put(workspace, "data", files)
    flip(loose(backend, files))
    backend.deploy(workspace, source=source, data=data)
    job = backend.wait(workspace)
    assert job["state"] == "failed"
    told = json.dumps(job) + backend.request("GET", f"/workspaces/{workspace}/jobs/last/logs").text
    assert f"/{data}/large.bin" in told
    assert "is damaged" in told
    backend.put(workspace, "data", files)
    backend.deploy(workspace, source=source, data=data, retry=True)
    assert backend.wait(workspace)["state"] == "success"


def test_a_download_never_ends_well_with_damaged_content(backend: Backend, files: dict[str, bytes]) -> None:
    workspace = backend.workspace("get")
    source = backend.put(workspace, "source", SOURCE)
    data = backend.put(workspace, "data", files)
    backend.deploy(workspace, source=source, data=data)
    backend.wait(workspace)
    flip(loose(backend, files))
    path = f"/workspaces/{workspace}/jobs/last/archive?what=data"
    try:
        response = backend.request("GET", path)
    except requests.exceptions.ChunkedEncodingError:
        pass
    else:
        assert response.status_code == 500
    # Now it is known, and said before anything is sent.
    error = backend.error("GET", path, 500, "data_loss")
    assert f"/{data}/large.bin" in error["message"]
    backend.put(workspace, "data", files)
    assert backend.request("GET", path).status_code == 200


def test_a_model_is_refused_by_the_name_of_what_is_damaged(backend: Backend, files: dict[str, bytes]) -> None:
    """Also when much that is whole would be sent first."""
    workspace = backend.workspace("model")
    source, data = backend.put(workspace, "source", SOURCE), backend.put(workspace, "data", files)
    backend.deploy(workspace, source=source, data=data)
    job = backend.wait(workspace)
    model = job["trials"][0]["model"]
    # What the trial wrote: the content of the data's files, one after the other.
    written = b"".join(body for _, body in sorted(files.items()))
    name = blake3(written).hexdigest()
    flip(backend.home / "engine" / "objects" / name[:2] / name[2:])
    check(backend)
    error = backend.error("GET", f"/workspaces/{workspace}/jobs/last/archive?what=model", 500, "data_loss")
    assert f"/{model}/data.txt" in error["message"]
    assert error["fields"]["paths"] == [f"/{model}/data.txt"]
    # Content is content, wherever it comes from.
    backend.put(workspace, "data", {"copy": written})
    assert backend.request("GET", f"/workspaces/{workspace}/jobs/last/archive?what=model").status_code == 200


def test_the_grid_is_written_again_when_it_is_deployed_again(
    backend: Backend, files: dict[str, bytes]
) -> None:
    workspace = backend.workspace("grid")
    source = backend.put(workspace, "source", SOURCE)
    data = backend.put(workspace, "data", files)
    backend.deploy(workspace, source=source, data=data, hyper={"lr": [0.1, 0.2]})
    backend.wait(workspace)
    database = sqlite3.connect(backend.home / "engine" / "engine.sqlite")
    with database:
        changed = database.execute(
            "UPDATE small_objects SET data=zeroblob(length(data)) WHERE instr(data, ?)=2",
            (b'"lr":0.2',),
        )
        assert changed.rowcount == 1
    database.close()
    assert "hyper" in {one["repo"] for one in findings(check(backend))}
    backend.deploy(workspace, hyper={"lr": [0.1, 0.2]})
    assert "hyper" not in {one["repo"] for one in findings(check(backend))}


@pytest.mark.parametrize("body", [b"", b"[]", b'{"repair": "maybe"}', b'{"other": 1}'])
def test_a_check_is_asked_for_in_so_many_words(backend: Backend, body: bytes) -> None:
    backend.error(
        "POST", "/check", 400, "invalid_request", data=body, headers={"Content-Type": "application/json"}
    )


def test_an_archive_that_heals_is_not_thrown_away_half_way(backend: Backend, files: dict[str, bytes]) -> None:
    """A broken-off upload heals nothing and leaves nothing."""
    data = backend.put("default", "data", files)
    flip(loose(backend, files))
    check(backend)
    _, body = archive(files)
    backend.error(
        "PUT", f"/workspaces/default/bundles/data/{data}?name=b", 400, "invalid_bundle", data=body[:-100]
    )
    assert findings(check(backend)) != []
    backend.put("default", "data", files)
    assert findings(check(backend)) == []
