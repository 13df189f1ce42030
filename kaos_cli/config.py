"""KAOS_HOME and what the command line keeps in it: the token, its settings and its caches.

Every write is atomic, so that a killed command leaves a whole file.
"""

from __future__ import annotations

import json
from typing import Any

from kaos_cli.errors import KaosError
from kaos_formats import home
from kaos_formats.files import write_atomically
from kaos_formats.names import DEFAULT_WORKSPACE, check_workspace


class Home(home.Home):
    """The folder of the local default, with what the command line keeps in it."""

    def create(self) -> None:
        """Make the folder, readable by its owner alone; raises KaosError where that is impossible."""
        try:
            home.make_private(self.path)
        except OSError as error:
            raise KaosError(
                "io",
                f"cannot create {self.path}: {error.strerror}",
                hint="set KAOS_HOME to a folder that you can write to",
            ) from error

    def token(self) -> str:
        """The secret shared with backend and engine; made here if this is the first who needs it."""
        self.create()
        return home.ensure_token(self.token_file)

    def settings(self) -> dict[str, Any]:
        """The content of config.json; {} when there is none."""
        path = self.path / "config.json"
        try:
            content = json.loads(path.read_bytes())
            if not isinstance(content, dict) or not isinstance(content.get("workspace", ""), str):
                raise ValueError("it is no JSON object with the name of a workspace")
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, RecursionError) as error:
            raise KaosError(
                "io",
                f"{path} cannot be read: {error}",
                hint="kaos workspace set NAME writes it anew; -w NAME does without it",
            ) from error
        return content

    def set_workspace(self, name: str | None) -> None:
        """Make ``name`` the workspace of later commands; None goes back to the default one."""
        try:
            settings = self.settings()
        except KaosError:
            settings = {}
        settings.pop("workspace", None)
        if name is not None:
            settings["workspace"] = name
        self.create()
        write_atomically(self.path / "config.json", (json.dumps(settings, indent=2) + "\n").encode())

    def shown_workspace(self, given: str | None) -> str:
        """As ``workspace``, for where it is only shown: "" when the settings cannot be read."""
        try:
            return self.workspace(given)
        except KaosError:
            return ""

    def workspace(self, given: str | None) -> str:
        """The workspace of a command: the flag or KAOS_WORKSPACE, else the one set, else ``default``."""
        name = given or self.settings().get("workspace") or DEFAULT_WORKSPACE
        return check_workspace(str(name))
