"""What the workers of a transform are given of the secrets that it names."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from kaos_backend.engine.errors import FailedPrecondition
from kaos_backend.engine.jobs.db.secrets import Vault
from kaos_backend.engine.jobs.spec.spec import SecretMount


@dataclass(frozen=True, slots=True)
class Given:
    """Variables, and folders of files by their path in the worker."""

    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    files: Mapping[str, Mapping[str, bytes]] = field(default_factory=dict, repr=False)


def given(vault: Vault, db: sqlite3.Connection, mounts: Iterable[SecretMount]) -> Given:
    """The secrets of a transform as they are now.

    Raises:
        FailedPrecondition: naming the secret that is gone, or cannot be what the transform makes of it.
    """
    env: dict[str, str] = {}
    files: dict[str, Mapping[str, bytes]] = {}
    for mount in mounts:
        values = vault.open(db, mount.name)
        if mount.mount_path:
            files[mount.mount_path] = values
        if mount.env_var:
            env[mount.env_var] = _text(mount, values)
    return Given(env, files)


def _text(mount: SecretMount, values: Mapping[str, bytes]) -> str:
    if mount.key not in values:
        raise FailedPrecondition(
            f'secret "{mount.name}" has no key "{mount.key}": create it anew with that key'
        )
    try:
        text = values[mount.key].decode()
    except UnicodeDecodeError:
        text = "\0"
    if "\0" in text:
        raise FailedPrecondition(
            f'key "{mount.key}" of secret "{mount.name}" is no text that a variable can hold: use mount_path'
        )
    return text
