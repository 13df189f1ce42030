"""KAOS_HOME and what the command line keeps in it: the token, its settings and its caches.

Paths and environment are passed in; every write is atomic, so that a killed command leaves a whole file.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kaos_cli.errors import KaosError
from kaos_formats.names import DEFAULT_WORKSPACE, check_workspace


@dataclass(frozen=True, slots=True)
class Home:
    """The folder of the local default. Nothing is created before something is written."""

    path: Path

    @classmethod
    def of(cls, env: Mapping[str, str]) -> Home:
        """``$KAOS_HOME``, else ``~/.kaos``; always absolute, as the backend runs in another directory."""
        given = env.get("KAOS_HOME")
        return cls(Path(given).expanduser().absolute() if given else Path.home() / ".kaos")

    @property
    def cache(self) -> Path:
        return self.path / "cache"

    def create(self) -> None:
        """Make the folder, readable by its owner alone; raises KaosError where that is impossible."""
        try:
            self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise KaosError(
                "io",
                f"cannot create {self.path}: {error.strerror}",
                hint="set KAOS_HOME to a folder that you can write to",
            ) from error

    def token(self) -> str:
        """The secret shared with backend and engine; made here if this is the first who needs it."""
        path = self.path / "token"
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            if text := path.read_text().strip():
                return text
            path.unlink()
        self.create()
        # A hard link appears with its content or not at all: no reader ever sees half a token.
        temporary = self.path / f"token.{os.getpid()}.{os.urandom(4).hex()}"
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(fd, "w") as file:
                file.write(os.urandom(32).hex() + "\n")
                file.flush()
                os.fsync(file.fileno())
            with contextlib.suppress(FileExistsError):
                os.link(temporary, path)
        finally:
            temporary.unlink()
        return path.read_text().strip()

    def settings(self) -> dict[str, Any]:
        """The content of config.json; {} when there is none."""
        path = self.path / "config.json"
        try:
            content = json.loads(path.read_bytes())
        except FileNotFoundError:
            return {}
        except ValueError as error:
            raise KaosError(
                "io", f"{path} is no valid JSON: {error}", hint=f"mend or delete {path}"
            ) from error
        return content if isinstance(content, dict) else {}

    def set_workspace(self, name: str | None) -> None:
        """Make ``name`` the workspace of later commands; None goes back to the default one."""
        settings = self.settings()
        settings.pop("workspace", None)
        if name is not None:
            settings["workspace"] = name
        self.create()
        write_atomic(self.path / "config.json", (json.dumps(settings, indent=2) + "\n").encode())

    def workspace(self, given: str | None) -> str:
        """The workspace of a command: the flag or KAOS_WORKSPACE, else the one set, else ``default``."""
        name = given or self.settings().get("workspace") or DEFAULT_WORKSPACE
        return check_workspace(str(name))


def write_atomic(path: Path, content: bytes) -> None:
    """Put ``content`` at ``path`` so that readers see the old file or the new one, never a part."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.{os.urandom(4).hex()}")
    try:
        temporary.write_bytes(content)
        temporary.replace(path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
