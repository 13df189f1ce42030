"""A store that any earlier version left behind opens in this one: nothing is lost, nothing runs again.

`write.py` says how such a store is made and `contents.py` what is looked at. What a store was found to hold
by the version that wrote it is kept beside it.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import zstandard
from pachyderm_sdk import Client
from pachyderm_sdk.api import pfs, pps

from tests.stores import inputs
from tests.stores.contents import UNFINISHED, contents
from tests.support.home import Home

STORES = sorted(Path(__file__).parent.glob("*.tar.zst"))
PROJECT = pfs.Project(name=UNFINISHED)


@pytest.fixture(scope="module", params=STORES, ids=lambda path: path.name.partition(".")[0])
def store(request: pytest.FixtureRequest) -> Path:
    return Path(request.param)


@pytest.fixture(scope="module")
def home(store: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    """The old store under the kaos of today."""
    path = tmp_path_factory.mktemp("old") / "home"
    path.mkdir(mode=0o700)
    raw = zstandard.ZstdDecompressor().stream_reader(io.BytesIO(store.read_bytes())).read()
    with tarfile.open(fileobj=io.BytesIO(raw)) as tar:
        tar.extractall(path, filter="data")
    kaos = Home(path, env={"KAOS_ENGINE_CPUS": "2"})
    yield kaos
    kaos.down()


@pytest.fixture(scope="module")
def client(home: Home) -> Client:
    return home.client()


def differences(wanted: Any, found: Any, place: str = "") -> Iterator[str]:
    """Where two JSON values differ, in words."""
    if isinstance(wanted, dict) and isinstance(found, dict):
        for key in sorted(wanted.keys() | found.keys()):
            yield from differences(wanted.get(key), found.get(key), f"{place}/{key}")
    elif isinstance(wanted, list) and isinstance(found, list) and len(wanted) == len(found):
        for number, (one, other) in enumerate(zip(wanted, found, strict=True)):
            yield from differences(one, other, f"{place}/{number}")
    elif wanted != found:
        yield f"{place}: {_short(wanted)} became {_short(found)}"


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 300 else f"{text[:300]} … ({len(text)} characters)"


def test_everything_is_there(home: Home, store: Path) -> None:
    """Before the tests below, which add to it: pytest keeps the order."""
    wanted = json.loads(store.with_name(store.name.replace(".tar.zst", ".json")).read_text())
    assert list(differences(wanted, contents(home))) == []


def test_the_check_finds_nothing(client: Client) -> None:
    assert [one.error for one in client.pfs.fsck()] == []


def test_the_same_inputs_start_nothing(home: Home, tmp_path: Path) -> None:
    done = home.json("train", "info", "-w", "digits")["id"]
    source = inputs.write_folder(tmp_path / "code", inputs.SOURCE_2)
    data = inputs.write_folder(tmp_path / "numbers", inputs.DATA_2)
    grid = inputs.write_grid(tmp_path / "grid.json", inputs.GRID_2)
    answer = home.json("train", "deploy", "-w", "digits", "-s", source, "-d", data, "-h", grid)
    assert (answer["status"], answer["job"]) == ("unchanged", done)


def test_the_interrupted_job_is_done(client: Client) -> None:
    job = next(
        client.pps.list_job(pipeline=pps.Pipeline(name="interrupted", project=PROJECT), history=-1)
    ).job
    assert client.pps.inspect_job(job=job, wait=True).state == pps.JobState.JOB_SUCCESS
    assert read(client, "interrupted", "/r") == b"ready"


def test_the_job_that_waits_runs_when_its_commit_is_finished(client: Client) -> None:
    job = next(client.pps.list_job(pipeline=pps.Pipeline(name="waits", project=PROJECT), history=-1)).job
    client.pfs.finish_commit(commit=head("late"))
    assert client.pps.inspect_job(job=job, wait=True).state == pps.JobState.JOB_SUCCESS
    assert read(client, "waits", "/l") == b"late"


def test_the_open_transaction_can_be_finished(client: Client) -> None:
    (transaction,) = client.transaction.list_transaction().transaction_info
    client.transaction.finish_transaction(transaction=transaction.transaction)
    found = client.pfs.inspect_commit(commit=head("target"))
    assert (found.commit.id, found.description) == (transaction.transaction.id, "in a transaction")


def test_a_branch_goes_on(client: Client) -> None:
    """Its open commit is finished; what follows from it downstream, too."""
    archive = pfs.Project(name="archive")
    derived = pfs.Branch(repo=pfs.Repo(name="derived", type="user", project=archive), name="master")
    letters = pfs.Branch(repo=pfs.Repo(name="letters", type="user", project=archive), name="master")
    older, newest = (
        one.commit for one in reversed([*client.pfs.list_commit(repo=derived.repo, all=True)][:2])
    )
    client.pfs.finish_commit(commit=client.pfs.inspect_branch(branch=letters).head)
    for commit in (older, newest):
        client.pfs.finish_commit(commit=commit, force=True)
        client.pfs.wait_commit(commit)
    with client.pfs.pfs_file(pfs.File(commit=newest, path="/out")) as file:
        assert file.read() == b"not finished"


def head(repo: str) -> pfs.Commit:
    return pfs.Commit(repo=pfs.Repo(name=repo, type="user", project=PROJECT), id="master")


def read(client: Client, repo: str, path: str) -> bytes:
    with client.pfs.pfs_file(pfs.File(commit=head(repo), path=path)) as file:
        return bytes(file.read())


def test_one_more_point_runs_alone(home: Home, tmp_path: Path) -> None:
    """In an image that is made again: the store came without it."""
    before = home.json("train", "info", "-w", "digits")
    source = inputs.write_folder(tmp_path / "code", inputs.SOURCE_2)
    grid = inputs.write_grid(tmp_path / "grid.json", inputs.GRID_3)
    home.run("train", "deploy", "-w", "digits", "-s", source, "-h", grid, "--wait")
    after = home.json("train", "info", "-w", "digits")
    assert sorted(trial["state"] for trial in after["trials"]) == ["skipped", "skipped", "skipped", "success"]
    stamps = {trial["model"]: trial["metrics"]["stamp"] for trial in after["trials"]}
    assert stamps.items() >= {trial["model"]: trial["metrics"]["stamp"] for trial in before["trials"]}.items()
