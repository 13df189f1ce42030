"""KAOS_HOME and what the command line keeps in it: the token, its settings and its caches.

Every write is atomic, so that a killed command leaves a whole file.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from kaos_cli import contexts
from kaos_cli.contexts import LOCAL, Context
from kaos_cli.errors import KaosError
from kaos_formats import home
from kaos_formats.files import write_atomically
from kaos_formats.names import DEFAULT_WORKSPACE, check_workspace


@dataclass(frozen=True, slots=True)
class Home(home.Home):
    """The folder of the local default, with what the command line keeps in it.

    ``chosen``: the context that this command was told to use; "" is the one in use.
    """

    chosen: str = ""

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

    @property
    def config_file(self) -> Path:
        return self.path / "config.json"

    def settings(self) -> dict[str, Any]:
        """The content of config.json; {} when there is none."""
        try:
            content = json.loads(self.config_file.read_bytes())
            if not isinstance(content, dict):
                raise ValueError("it is no JSON object")
            for name in ("workspace", "context"):
                if not isinstance(content.get(name, ""), str):
                    raise ValueError(f"its {name} is no name")
            contexts.known(content)
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, TypeError, RecursionError) as error:
            raise KaosError(
                "io",
                f"{self.config_file} cannot be read: {error}",
                hint=f"kaos workspace set NAME writes it anew; --context {LOCAL} -w NAME does without it",
            ) from error
        return content

    def context(self) -> Context | None:
        """The backend elsewhere that commands speak to; None is that of this home.

        Raises KaosError (no_such_context).
        """
        if self.chosen == LOCAL:
            return None
        try:
            settings = self.settings()
        except KaosError:
            if not self.chosen and not contexts.any_added(self.path):
                return None
            raise
        name = self.chosen or settings.get("context", LOCAL)
        if name == LOCAL:
            return None
        known = contexts.known(settings)
        if name not in known:
            raise contexts.no_such(name, known)
        return known[name]

    def contexts(self) -> tuple[dict[str, Context], str]:
        """All contexts, and the name of the one in use, whatever this command was told."""
        settings = self.settings()
        return contexts.known(settings), settings.get("context", LOCAL)

    def add_context(self, context: Context, token: str) -> None:
        """Keep a context, in place of one of its name."""
        with self._changing() as settings:
            # Before there is a context that needs it.
            contexts.write_tokens(self.path, contexts.tokens(self.path) | {context.name: token})
            known = contexts.known(settings)
            if (before := known.get(context.name)) is not None and before.url == context.url:
                context = replace(context, workspace=before.workspace)
            settings["contexts"] = contexts.packed(known | {context.name: context})

    def use_context(self, name: str) -> None:
        """Let later commands speak to this one. Raises KaosError (no_such_context)."""
        with self._changing() as settings:
            if name != LOCAL and name not in (known := contexts.known(settings)):
                raise contexts.no_such(name, known)
            settings["context"] = name

    def remove_context(self, name: str) -> bool:
        """Forget a context and its token; whether it was the one in use, in place of which the local one is
        then. Raises KaosError (no_such_context).
        """
        with self._changing() as settings:
            known = contexts.known(settings)
            if name not in known:
                raise contexts.no_such(name, known)
            settings["contexts"] = contexts.packed({k: v for k, v in known.items() if k != name})
            used = settings.get("context") == name
            if used:
                del settings["context"]
        left = contexts.tokens(self.path)
        left.pop(name, None)
        contexts.write_tokens(self.path, left)
        return used

    def set_workspace(self, name: str | None) -> None:
        """Make ``name`` the workspace of later commands; None goes back to the default one."""
        with self._changing(anew=True) as settings:
            context = None if self.chosen == LOCAL else self.chosen or settings.get("context", LOCAL)
            known = contexts.known(settings)
            if context in known:
                known[context] = replace(known[context], workspace=name or "")
                settings["contexts"] = contexts.packed(known)
                return
            settings.pop("workspace", None)
            if name is not None:
                settings["workspace"] = name

    def shown_workspace(self, given: str | None) -> str:
        """As ``workspace``, for where it is only shown: "" when the settings cannot be read."""
        try:
            return self.workspace(given)
        except KaosError:
            return ""

    def workspace(self, given: str | None) -> str:
        """The workspace of a command: the flag or KAOS_WORKSPACE, else the one set, else ``default``."""
        return check_workspace(str(given or self._set_workspace() or DEFAULT_WORKSPACE))

    def listings(self) -> Path:
        """The folder of what was listed last: rows mean what that backend's listing had in them."""
        try:
            context = self.context()
        except KaosError:
            context = None
        return self.cache / ("listings" if context is None else f"listings@{context.name}")

    def _set_workspace(self) -> str:
        context = self.context()
        return str(self.settings().get("workspace", "")) if context is None else context.workspace

    @contextmanager
    def _changing(self, anew: bool = False) -> Iterator[dict[str, Any]]:
        """The settings to be changed in place, by one command at a time. ``anew``: what cannot be read is
        replaced.
        """
        self.create()
        with home.locked(self.path / "config.lock"):
            try:
                settings = self.settings()
            except KaosError:
                if not anew:
                    raise
                # Somebody may want to mend what was in it.
                self.config_file.replace(self.config_file.with_suffix(".json.broken"))
                settings = {}
            yield settings
            write_atomically(self.config_file, (json.dumps(settings, indent=2) + "\n").encode())
