"""Secrets: names and keys to be seen, values only for the workers that a pipeline's transform gives them to.

They are Kubernetes secrets in all but the cluster: one name space for the server, JSON in, no value out.
At rest the values are sealed with AES-256-GCM under the home's key. Reference: pachyderm-api.md section 16.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import os
import re
import sqlite3
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from kaos_backend.engine.errors import FailedPrecondition, Unknown
from kaos_backend.engine.jobs.spec.spec import SecretMount
from kaos_formats.home import ensure_token

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

# What Kubernetes takes for a secret.
_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")
_KEY = re.compile(r"[-._a-zA-Z0-9]{1,253}")
_LIMIT_BYTES = 1 << 20
_NONCE_BYTES = 12


@dataclass(frozen=True, slots=True)
class SecretInfo:
    """What may be shown of a secret. `created_us`: microseconds since 1970."""

    name: str
    type: str
    keys: tuple[str, ...]
    created_us: int


@dataclass(frozen=True, slots=True)
class Secret:
    """A secret as it comes in."""

    name: str
    type: str
    values: Mapping[str, bytes] = field(repr=False)


def parse(file: bytes) -> Secret:
    """The Kubernetes secret in a JSON text.

    Raises Unknown: it is none, or Kubernetes would refuse it; without a word of any value.
    """
    try:
        told = json.loads(file)
        meta = told["metadata"]
        name, labels = meta["name"], meta.get("labels") or {}
        values = {
            key: base64.b64decode(text, validate=True) for key, text in (told.get("data") or {}).items()
        }
        values |= {key: text.encode() for key, text in (told.get("stringData") or {}).items()}
        kind, type = told.get("kind") or "Secret", told.get("type") or "Opaque"
        suite = labels.get("suite") or "pachyderm"
    except (binascii.Error, ValueError, TypeError, KeyError, AttributeError, RecursionError):
        # What went wrong where could be part of a value.
        raise Unknown(
            "failed to unmarshal secret: a Kubernetes secret in JSON is needed, with metadata.name, and in"
            " data the values in base64"
        ) from None
    if kind != "Secret":
        raise Unknown(f"failed to create secret: its kind is {kind!r}, not Secret")
    if suite != "pachyderm":
        raise Unknown(f"invalid suite label set on secret: suite={suite}")
    if not isinstance(name, str) or not isinstance(type, str) or not _NAME.fullmatch(name):
        raise Unknown(
            f"failed to create secret: name {name!r} is invalid: at most 253 lower case letters, digits, '-'"
            " and '.', with a letter or digit at both ends"
        )
    for key in values:
        if not _KEY.fullmatch(key) or key in (".", ".."):
            raise Unknown(
                f'failed to create secret: key {key!r} of secret "{name}" is invalid: at most 253 letters,'
                " digits, '-', '_' and '.'"
            )
    if sum(map(len, values.values())) > _LIMIT_BYTES:
        raise Unknown(f'failed to create secret: secret "{name}" is too large: the limit is 1 MiB')
    return Secret(name, type, values)


class Vault:
    """The rows of secrets, and the key that their values are sealed with.

    Args:
        key_file: made at the first secret, of mode 0600; without it no value can be read any more.
    """

    def __init__(self, key_file: Path) -> None:
        self._key_file = key_file

    def create(self, db: sqlite3.Connection, secret: Secret, now_us: int, *, replace: bool = False) -> None:
        """Raises Unknown when there is one of this name and it shall not `replace` that."""
        if not replace and find(db, secret.name) is not None:
            raise Unknown(
                f'failed to create secret: secrets "{secret.name}" already exists; delete it to replace it'
            )
        plain = {key: base64.b64encode(value).decode() for key, value in secret.values.items()}
        nonce = os.urandom(_NONCE_BYTES)
        sealed = nonce + self._cipher().encrypt(nonce, json.dumps(plain).encode(), secret.name.encode())
        db.execute(
            "INSERT OR REPLACE INTO pps_secrets VALUES (?, ?, ?, ?, ?)",
            (secret.name, secret.type, json.dumps(sorted(plain)), sealed, now_us),
        )

    def open(self, db: sqlite3.Connection, name: str) -> dict[str, bytes]:
        """The values of a secret by key.

        Raises:
            FailedPrecondition: it is gone, or the key that it was sealed with is.
        """
        from cryptography.exceptions import InvalidTag

        row = db.execute("SELECT sealed FROM pps_secrets WHERE name = ?", (name,)).fetchone()
        if row is None:
            raise FailedPrecondition(f'missing Kubernetes secret "{name}": create it, and this goes on')
        sealed: bytes = row["sealed"]
        try:
            plain = self._cipher().decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], name.encode())
        except InvalidTag:
            raise FailedPrecondition(
                f'secret "{name}" cannot be decrypted: {self._key_file} is not the key it was stored with;'
                " put that file back, or delete the secret and create it again"
            ) from None
        return {key: base64.b64decode(text) for key, text in json.loads(plain).items()}

    def _cipher(self) -> AESGCM:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        key = hashlib.sha256(ensure_token(self._key_file).encode()).digest()
        return AESGCM(key)


def find(db: sqlite3.Connection, name: str) -> SecretInfo | None:
    row = db.execute(
        "SELECT name, type, keys, created_us FROM pps_secrets WHERE name = ?", (name,)
    ).fetchone()
    return _info(row) if row else None


def get(db: sqlite3.Connection, name: str) -> SecretInfo:
    """Unknown, as from pachd, when there is none."""
    found = find(db, name)
    if found is None:
        raise Unknown(f'failed to get secret: secrets "{name}" not found')
    return found


def every(db: sqlite3.Connection) -> list[SecretInfo]:
    """All secrets, by name."""
    return [_info(row) for row in db.execute("SELECT name, type, keys, created_us FROM pps_secrets")]


def delete(db: sqlite3.Connection, name: str) -> None:
    """Workers that have its values keep them; Unknown, as from pachd, when there is none."""
    if not db.execute("DELETE FROM pps_secrets WHERE name = ?", (name,)).rowcount:
        raise Unknown(f'failed to delete secret: secrets "{name}" not found')


def delete_all(db: sqlite3.Connection) -> None:
    db.execute("DELETE FROM pps_secrets")


def check_mounts(db: sqlite3.Connection, mounts: Iterable[SecretMount]) -> None:
    """Raise Unknown, with Pachyderm's text, for a transform's secret that is not there."""
    for mount in mounts:
        found = find(db, mount.name)
        if found is None:
            raise Unknown(f'missing Kubernetes secret "{mount.name}": create it before the pipeline')
        if mount.key and mount.key not in found.keys:
            raise Unknown(
                f'secret "{mount.name}" has no key "{mount.key}": it has {", ".join(found.keys) or "none"}'
            )


def _info(row: sqlite3.Row) -> SecretInfo:
    return SecretInfo(row["name"], row["type"], tuple(json.loads(row["keys"])), row["created_us"])
