"""Files of KAOS_HOME that processes share: written atomically, private to the user."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import tempfile
from pathlib import Path
from typing import Any

TOKEN_BYTES = 32


def make_private(folder: Path) -> None:
    """Makes ``folder`` (and its parents) if missing; only the user may enter a new one."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)


def write_atomically(path: Path, text: str) -> None:
    """Replaces ``path`` by a file with mode 0600 and this content; a reader sees the old or the new one."""
    fd, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    try:
        with os.fdopen(fd, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def read_json(path: Path) -> dict[str, Any]:
    """The object in ``path``; {} if it is missing or no JSON object."""
    try:
        value = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


def ensure_token(path: Path) -> str:
    """The secret in ``path``, made now if there is none. Whoever comes first wins; all get the same."""
    with contextlib.suppress(FileNotFoundError):
        return _read_token(path)
    fd, temporary = tempfile.mkstemp(prefix=".token.", dir=path.parent)
    try:
        with os.fdopen(fd, "w", encoding="ascii") as file:
            file.write(secrets.token_hex(TOKEN_BYTES) + "\n")
            file.flush()
            os.fsync(file.fileno())
        with contextlib.suppress(FileExistsError):
            # A link appears complete or not at all, unlike a file made in place.
            os.link(temporary, path)
    finally:
        Path(temporary).unlink(missing_ok=True)
    return _read_token(path)


def try_lock(path: Path) -> int | None:
    """A file descriptor that holds the lock of ``path`` for as long as it is open; None if it is held
    elsewhere.
    """
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(fd)
        return None
    except BaseException:
        os.close(fd)
        raise
    return fd


def is_locked(path: Path) -> bool:
    """Whether a process holds the lock of ``path`` right now."""
    if not path.exists():
        return False
    fd = try_lock(path)
    if fd is None:
        return True
    os.close(fd)
    return False


def process_lives(pid: object) -> bool:
    """Whether there is a process of this id."""
    if not isinstance(pid, int) or pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _read_token(path: Path) -> str:
    return path.read_text("ascii").strip()
