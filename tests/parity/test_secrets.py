"""Secrets: created, named, given to workers, never shown."""

from __future__ import annotations

from collections.abc import Iterator

import grpc
import pytest
from pachyderm_sdk.api import pps

from tests.parity.pachd import UNKNOWN, Pachd, is_set, refused


@pytest.fixture
def secret(pachd: Pachd) -> Iterator[pps.Secret]:
    """One of the test's own, as all projects have the same secrets."""
    made = pps.Secret(name=f"{pachd.project.name}.s")
    pachd.client.pps.create_secret(name=made.name, data={"user": "mona", "pass-word": b"\x00\xff"})
    yield made
    if made.name in listed(pachd):
        pachd.client.pps.delete_secret(secret=made)


def listed(pachd: Pachd) -> set[str]:
    return {info.secret.name for info in pachd.client.pps.list_secret().secret_info}


def test_inspect_and_list_show_no_value(pachd: Pachd, secret: pps.Secret) -> None:
    """§16: name, type and when it was made."""
    info = pachd.client.pps.inspect_secret(secret=secret)
    assert (info.secret, info.type) == (secret, "Opaque")
    assert is_set(info.creation_timestamp)
    assert info in pachd.client.pps.list_secret().secret_info


def test_create_twice(pachd: Pachd, secret: pps.Secret) -> None:
    """§14: the name is taken."""
    with refused(UNKNOWN, "already exists"):
        pachd.client.pps.create_secret(name=secret.name, data={})


def test_delete(pachd: Pachd, secret: pps.Secret) -> None:
    """§14: then it is missing, which is an error for all but a list."""
    pachd.client.pps.delete_secret(secret=secret)
    assert secret.name not in listed(pachd)
    with refused(UNKNOWN, f'secrets "{secret.name}" not found'):
        pachd.client.pps.inspect_secret(secret=secret)
    with refused(UNKNOWN, f'secrets "{secret.name}" not found'):
        pachd.client.pps.delete_secret(secret=secret)


@pytest.mark.parametrize(
    "file",
    [b"", b"{", b"[]", b"{}", b'{"metadata": {"name": "n"}, "data": {"k": "hunter2!"}}', b'{"metadata": []}'],
)
def test_what_is_no_secret(pachd: Pachd, file: bytes) -> None:
    """§16: refused, and without a word of what it holds."""
    stub = pachd.client.pps
    with pytest.raises(grpc.RpcError) as caught:
        super(type(stub), stub).create_secret(file=file)
    assert caught.value.code() == UNKNOWN
    assert "hunter2" not in caught.value.details()


@pytest.mark.workers("a job shows what it was given")
def test_a_pipeline_gets_it(pachd: Pachd, secret: pps.Secret) -> None:
    """§10.3: as a variable and as files; no answer about the pipeline or its job has the value."""
    pachd.repo("a", {"/1": b""})
    mount = f"/secrets/{pachd.project.name}"
    pipeline = pachd.pipeline(
        "p",
        # A server without a mount namespace has the folder in the image's own files, where this starts.
        'echo "$WHO" > $OUT/env; D=$MOUNT; [ -d "$D" ] || D=.$D; cat $D/user $D/pass-word > $OUT/files',
        {"a": "/*"},
        transform={
            "env": {"MOUNT": mount},
            "secrets": [
                pps.SecretMount(name=secret.name, key="user", env_var="WHO"),
                pps.SecretMount(name=secret.name, mount_path=mount),
            ],
        },
    )
    job = pachd.succeeded(pipeline, details=True)
    assert pachd.files(pachd.commit("p")) == {"/env": b"mona\n", "/files": b"mona\x00\xff"}
    assert [one.name for one in job.details.transform.secrets] == [secret.name] * 2
    inspected = pachd.client.pps.inspect_pipeline(pipeline=pipeline, details=True)
    assert "mona" not in job.to_json() + inspected.to_json()


def test_a_pipeline_whose_secret_is_missing(pachd: Pachd, secret: pps.Secret) -> None:
    """§10.2: `missing Kubernetes secret …`."""
    pachd.repo("a")
    mount = pps.SecretMount(name=f"{secret.name}.none", mount_path="/secrets")
    with refused(UNKNOWN, "missing Kubernetes secret"):
        pachd.pipeline("p", "true", {"a": "/*"}, transform={"secrets": [mount]})
