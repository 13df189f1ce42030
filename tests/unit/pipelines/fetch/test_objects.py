"""Object stores: S3 as moto's server speaks it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kaos_pipelines.fetch.errors import FetchFailed
from kaos_pipelines.fetch.guard import Policy

from tests.support.objectstores import object_stores
from tests.unit.pipelines.fetch.conftest import Fetching

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
LARGE = bytes(range(256)) * (5 << 12)


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    from moto.server import ThreadedMotoServer

    found = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    found.start()
    host, port = found.get_host_and_port()
    yield f"http://{host}:{port}"
    found.stop()


@pytest.fixture
def bucket(server: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    import boto3

    for name in list(os.environ):
        if name.startswith("AWS_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_ENDPOINT_URL", server)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "ada")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "hunter22")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    made = boto3.resource("s3").Bucket("data")
    made.create()
    made.objects.delete()
    return made


def test_objects_and_folders(fetching: Fetching, bucket: Any) -> None:
    objects = {"a b+c.csv": b"1", "x/large.bin": LARGE, "x/y/ü.csv": b"", "xy/other": b"no", "x/folder/": b""}
    for key, body in objects.items():
        bucket.put_object(Key=key, Body=body)
    lines: list[dict[str, object]] = [
        {"url": "s3://data/a b+c.csv", "path": "a.csv", "size": 1},
        {"url": "s3://data/x/", "path": "x/"},
    ]
    fetching.any_name = True
    tree = fetching(*lines)
    assert fetching.files(tree) == {"a.csv": b"1", "x/large.bin": LARGE, "x/y/ü.csv": b""}
    folder = fetching.sources(tree)[1]
    assert (folder.files, folder.size) == (2, len(LARGE))
    assert fetching(*lines) == tree
    bucket.put_object(Key="x/new", Body=b"2")
    assert fetching.file("x/new", fetching(*lines)) == b"2"
    assert fetching.sources(fetching(*lines))[1].etag != folder.etag


def test_what_is_not_there_is_told(fetching: Fetching, bucket: Any) -> None:
    bucket.put_object(Key="x/y", Body=b"")
    with pytest.raises(FetchFailed) as caught:
        fetching(
            {"url": "s3://data/none", "path": "a"},
            {"url": "s3://none/none", "path": "b"},
            {"url": "s3://data/none/", "path": "c/"},
            {"url": "s3://data/x", "path": "d"},
        )
    reasons = [
        "there is no such object",
        "there is no such object",
        "no file in that folder",
        "it is a folder",
    ]
    assert [why in caught.value.problems[number] for number, why in enumerate(reasons, 1)] == [True] * 4


def test_an_object_that_changes_meanwhile_is_begun_anew(
    fetching: Fetching, bucket: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    import s3fs

    bucket.put_object(Key="a", Body=LARGE)
    real, calls = s3fs.S3FileSystem._cat_file, []

    async def cat(system: Any, path: str, **how: Any) -> bytes:
        calls.append(how["start"])
        if len(calls) == 2:
            bucket.put_object(Key="a", Body=LARGE[::-1])
        if len(calls) == 4:
            raise ConnectionResetError
        found: bytes = await real(system, path, **how)
        return found

    monkeypatch.setattr(s3fs.S3FileSystem, "_cat_file", cat)
    assert fetching.file("a", fetching({"url": "s3://data/a", "path": "a"})) == LARGE[::-1]
    # The first range of the new one had come when the connection broke.
    assert calls == [0, 4 << 20, 0, 4 << 20, 4 << 20]


def test_an_endpoint_inside_is_refused(fetching: Fetching, bucket: Any) -> None:
    bucket.put_object(Key="a", Body=b"inside")
    fetching.policy = Policy.of({"KAOS_FETCH_PRIVATE": "0"})
    with pytest.raises(FetchFailed, match="is not public"):
        fetching({"url": "s3://data/a", "path": "a"})
    fetching.policy = Policy.of({"KAOS_FETCH_PRIVATE": "0", "KAOS_FETCH_ALLOW": "127.0.0.1"})
    assert fetching.file("a", fetching({"url": "s3://data/a", "path": "a"})) == b"inside"


def test_without_credentials_it_asks_as_anybody(
    fetching: Fetching, bucket: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    bucket.put_object(Key="a", Body=b"public", ACL="public-read")
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    assert fetching.file("a", fetching({"url": "s3://data/a", "path": "a"})) == b"public"


def test_a_plug_in_that_is_missing_is_named(fetching: Fetching, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "s3fs", None)
    monkeypatch.setitem(sys.modules, "adlfs", None)
    with pytest.raises(FetchFailed) as caught:
        fetching({"url": "s3://data/a", "path": "a"}, {"url": "az://data/a", "path": "b"})
    assert "pip install 'kaos[s3]'" in caught.value.problems[1]
    assert "pip install 'kaos[az]'" in caught.value.problems[2]


def test_azures_credentials_are_shown_to_their_account(
    fetching: Fetching, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AZURE_STORAGE_ACCOUNT_NAME", "ours")
    monkeypatch.setenv("AZURE_STORAGE_SAS_TOKEN", "secret")
    with pytest.raises(FetchFailed, match="those of another account than theirs"):
        fetching({"url": "abfs://container@theirs.dfs.core.windows.net/a", "path": "a"})


@pytest.mark.parametrize("scheme", ["gs", "az"])
def test_the_stores_of_google_and_microsoft(
    fetching: Fetching, monkeypatch: pytest.MonkeyPatch, scheme: str
) -> None:
    with object_stores() as stores:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", stores.url)
        monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", stores.azure)
        fetching.policy = Policy.of({"KAOS_FETCH_PRIVATE": "0", "KAOS_FETCH_ALLOW": "127.0.0.1"})
        stores.objects |= {"data/a b.csv": b"1", "data/x/large": LARGE, "data/x/y/z": b"", "data/xy": b"no"}
        lines: list[dict[str, object]] = [
            {"url": f"{scheme}://data/a b.csv", "path": "a.csv"},
            {"url": f"{scheme}://data/x/", "path": "x/"},
        ]
        tree = fetching(*lines)
        assert fetching.files(tree) == {"a.csv": b"1", "x/large": LARGE, "x/y/z": b""}
        assert fetching(*lines) == tree
        stores.objects["data/a b.csv"] = b"2"
        assert fetching.file("a.csv", fetching(*lines)) == b"2"
        with pytest.raises(FetchFailed, match="there is no such object"):
            fetching({"url": f"{scheme}://data/none", "path": "a"})
        fetching.policy = Policy.of({"KAOS_FETCH_PRIVATE": "0"})
        asked = len(stores.requests)
        with pytest.raises(FetchFailed, match="is not public"):
            fetching(*lines)
        assert len(stores.requests) == asked
