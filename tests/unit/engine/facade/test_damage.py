"""Damage as clients meet it: DATA_LOSS with the names of the file and its commit, before the stream ends."""

from __future__ import annotations

import os
from pathlib import Path

import grpc
import pytest
from blake3 import blake3
from pachyderm_sdk import Client
from pachyderm_sdk.api import pfs

from kaos_backend.engine.store.store import Store
from kaos_formats import kaos_v1

LARGE = os.urandom(9 << 20)
SMALL = os.urandom(200_000)


@pytest.fixture
def commit(client: Client) -> pfs.Commit:
    client.pfs.create_repo(repo=pfs.Repo.from_uri("data"))
    with client.pfs.commit(branch=pfs.Branch.from_uri("data@master")) as opened:
        opened.put_file_from_bytes("/good", b"good")
        opened.put_file_from_bytes("/large", LARGE)
        opened.put_file_from_bytes("/small", SMALL)
    return opened


def flip(path: Path, at: int) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        old = file.read(1)
        file.seek(at)
        file.write(bytes([old[0] ^ 1]))


def hurt(store: Store, which: str) -> bytes:
    """Damage the file `which`; return the name of its object."""
    if which == "/large":
        hash_ = blake3(LARGE).digest()
        flip(store.objects.loose_path(hash_), len(LARGE) // 2)
        return hash_
    hash_ = blake3(SMALL).digest()
    (pack,) = store.objects.packs.iterdir()
    flip(pack, pack.read_bytes().index(SMALL))
    return hash_


@pytest.mark.parametrize("which", ["/large", "/small"])
@pytest.mark.parametrize("offset", [0, 1_000])
def test_get_file(client: Client, store: Store, commit: pfs.Commit, which: str, offset: int) -> None:
    hash_ = hurt(store, which)
    file = pfs.File(commit=commit, path=which)
    with pytest.raises(grpc.RpcError) as told:
        list(client.pfs.get_file(file=file, offset=offset))
    assert told.value.code() is grpc.StatusCode.DATA_LOSS
    for part in (which, f"default/data at commit {commit.id}", hash_.hex(), "kaos fsck"):
        assert part in told.value.details()
    good = client.pfs.get_file(file=pfs.File(commit=commit, path="/good"))
    assert b"".join(message.value for message in good) == b"good"


@pytest.mark.parametrize("which", ["/large", "/small"])
def test_get_file_tar(client: Client, store: Store, commit: pfs.Commit, which: str) -> None:
    hurt(store, which)
    with pytest.raises(grpc.RpcError) as told:
        list(client.pfs.get_file_tar(file=pfs.File(commit=commit, path="/")))
    assert told.value.code() is grpc.StatusCode.DATA_LOSS
    assert f"{which} in repo default/data at commit {commit.id}" in told.value.details()


@pytest.mark.parametrize("which", ["/large", "/small"])
def test_the_same_content_sent_again_heals(
    client: Client, store: Store, commit: pfs.Commit, which: str
) -> None:
    hurt(store, which)
    with pytest.raises(grpc.RpcError):
        list(client.pfs.get_file_tar(file=pfs.File(commit=commit, path="/")))
    with client.pfs.commit(branch=pfs.Branch.from_uri("data@master")) as again:
        again.delete_file(path=which)
        again.put_file_from_bytes(which, {"/large": LARGE, "/small": SMALL}[which])
    for one in (commit, again):
        messages = client.pfs.get_file(file=pfs.File(commit=one, path=which))
        got = b"".join(message.value for message in messages)
        assert got == {"/large": LARGE, "/small": SMALL}[which]


def test_a_pack_that_is_gone(client: Client, store: Store, commit: pfs.Commit) -> None:
    for pack in store.objects.packs.iterdir():
        pack.unlink()
    store.objects.close()
    with pytest.raises(grpc.RpcError) as told:
        list(client.pfs.get_file(file=pfs.File(commit=commit, path="/small")))
    assert told.value.code() is grpc.StatusCode.DATA_LOSS
    assert "is gone: there is no packs/" in told.value.details()


def check(client: Client, repair: bool = False) -> list[kaos_v1.Finding]:
    method = client._channel.unary_stream(
        kaos_v1.method("Check"),
        request_serializer=bytes,
        response_deserializer=kaos_v1.CheckResponse.FromString,
    )
    told = list(method(kaos_v1.CheckRequest(repair=repair)))
    assert told[0].progress is not None
    return [response.finding for response in told if response.finding is not None]


@pytest.mark.parametrize("which", ["/large", "/small"])
def test_check(client: Client, store: Store, commit: pfs.Commit, which: str) -> None:
    assert check(client) == []
    hash_ = hurt(store, which)
    (found,) = check(client, repair=True)
    assert (found.project, found.repo, found.commit) == ("default", "data", commit.id)
    assert (found.path, found.object, found.repaired) == (which, hash_.hex(), False)


def test_fsck(client: Client, store: Store, commit: pfs.Commit) -> None:
    assert list(client.pfs.fsck()) == []
    hash_ = hurt(store, "/large")
    (told,) = client.pfs.fsck()
    assert f"/large in repo default/data at commit {commit.id}: object {hash_.hex()}" in told.error


def test_which_files_of_a_commit_are_damaged(client: Client, store: Store, commit: pfs.Commit) -> None:
    method = client._channel.unary_unary(
        kaos_v1.method("Damaged"),
        request_serializer=bytes,
        response_deserializer=kaos_v1.DamagedResponse.FromString,
    )

    def damaged(path: str) -> list[str]:
        request = kaos_v1.DamagedRequest(project="default", repo="data", commit="master", path=path)
        return list(method(request).paths)

    hurt(store, "/large")
    assert damaged("/") == [], "nobody has looked yet"
    check(client)
    assert damaged("/") == ["/large"]
    assert damaged("/good") == []
