"""Secrets at rest."""

from __future__ import annotations

import base64
import json
from pathlib import Path

import pytest

from kaos_backend.engine.errors import FailedPrecondition, Unknown
from kaos_backend.engine.jobs.db import secrets
from kaos_backend.engine.jobs.db.rows import MIGRATIONS
from kaos_backend.engine.jobs.db.secrets import Vault, parse
from kaos_backend.engine.jobs.run.secrets import given
from kaos_backend.engine.jobs.spec.spec import SecretMount, Transform
from kaos_backend.engine.jobs.spec.validate import check_secrets
from kaos_backend.engine.store.store import Store

VALUE = b"correct horse battery staple"


def file(name: str = "s", **data: bytes) -> bytes:
    values = {key: base64.b64encode(value).decode() for key, value in data.items()}
    return json.dumps({"metadata": {"name": name}, "data": values}).encode()


@pytest.fixture
def home(tmp_path: Path) -> Path:
    """A store with one secret in it, closed."""
    store = Store.open(tmp_path, migrations=MIGRATIONS)
    with store.write() as txn:
        Vault(tmp_path / "secrets.key").create(txn.db, parse(file(k=VALUE)), txn.now_us)
    store.close()
    return tmp_path


def test_no_file_holds_a_value(home: Path) -> None:
    for path in home.rglob("*"):
        if path.is_file():
            assert VALUE not in path.read_bytes()
            assert base64.b64encode(VALUE) not in path.read_bytes()
    assert (home / "secrets.key").stat().st_mode & 0o777 == 0o600


def test_one_takes_the_place_of_another_at_once_and_only_if_that_is_asked_for(home: Path) -> None:
    store = Store.open(home, migrations=MIGRATIONS)
    vault, other = Vault(home / "secrets.key"), parse(file(k=b"other", more=b"x"))
    with pytest.raises(Unknown, match="already exists"), store.write() as txn:
        vault.create(txn.db, other, txn.now_us)
    with store.write() as txn:
        vault.create(txn.db, other, txn.now_us, replace=True)
    with store.read() as db:
        assert vault.open(db, "s") == {"k": b"other", "more": b"x"}
        assert [one.keys for one in secrets.every(db)] == [("k", "more")]
    store.close()


def test_it_outlives_the_engine(home: Path) -> None:
    store = Store.open(home, migrations=MIGRATIONS)
    with store.read() as db:
        assert Vault(home / "secrets.key").open(db, "s") == {"k": VALUE}
    store.close()


def test_another_key(home: Path) -> None:
    """A home whose key was lost says so, and takes new secrets."""
    (home / "secrets.key").unlink()
    vault = Vault(home / "secrets.key")
    store = Store.open(home, migrations=MIGRATIONS)
    with store.write() as txn:
        with pytest.raises(FailedPrecondition, match="cannot be decrypted"):
            vault.open(txn.db, "s")
        secrets.delete(txn.db, "s")
        vault.create(txn.db, parse(file(k=b"new")), txn.now_us)
        assert vault.open(txn.db, "s") == {"k": b"new"}
    store.close()


def test_a_value_belongs_to_its_name(home: Path) -> None:
    """Whoever can write the database cannot pass one secret off as another."""
    vault = Vault(home / "secrets.key")
    store = Store.open(home, migrations=MIGRATIONS)
    with store.write() as txn:
        txn.db.execute("UPDATE pps_secrets SET name = 't'")
        with pytest.raises(FailedPrecondition, match="cannot be decrypted"):
            vault.open(txn.db, "t")
    store.close()


def test_a_variable_holds_text_only(tmp_path: Path) -> None:
    vault = Vault(tmp_path / "secrets.key")
    store = Store.open(tmp_path, migrations=MIGRATIONS)
    mounts = [SecretMount(name="s", key="k", env_var="V")]
    with store.write() as txn:
        with pytest.raises(FailedPrecondition, match="missing Kubernetes secret"):
            given(vault, txn.db, mounts)
        vault.create(txn.db, parse(file(k=b"\xff")), txn.now_us)
        with pytest.raises(FailedPrecondition, match="no text"):
            given(vault, txn.db, mounts)
    store.close()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (file("Upper"), "name"),
        (file("-x"), "name"),
        (file(**{"a/b": b""}), "key"),
        (file(**{"..": b""}), "key"),
        (file(k=bytes((1 << 20) + 1)), "too large"),
        (json.dumps({"kind": "Pod", "metadata": {"name": "x"}}).encode(), "kind"),
        (json.dumps({"metadata": {"name": "x", "labels": {"suite": "other"}}}).encode(), "suite"),
        (json.dumps({"metadata": {"name": "x"}, "data": {"k": "no base64!"}}).encode(), "base64"),
    ],
)
def test_what_is_refused(text: bytes, said: str) -> None:
    with pytest.raises(Unknown, match=said):
        parse(text)


@pytest.mark.parametrize(
    "mount",
    [
        SecretMount(key="k", env_var="V"),
        SecretMount(name="s"),
        SecretMount(name="s", env_var="V"),
        SecretMount(name="s", key="k", env_var="A=B"),
        SecretMount(name="s", mount_path="relative"),
        SecretMount(name="s", mount_path="/"),
        SecretMount(name="s", mount_path="/pfs/out"),
        SecretMount(name="s", mount_path="/secrets/../pfs"),
    ],
)
def test_mounts_that_nobody_could_give(mount: SecretMount) -> None:
    with pytest.raises(Unknown, match="secret"):
        check_secrets(Transform(secrets=(mount,)).secrets)


def test_two_secrets_in_one_place() -> None:
    with pytest.raises(Unknown, match="already"):
        check_secrets([SecretMount(name=name, mount_path="/secrets/") for name in ("a", "b")])
