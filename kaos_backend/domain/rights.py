"""Who asks, and what that one may do."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Literal

from kaos_backend.errors import NotAllowed

Granted = Literal["read", "write", "admin"]
"""``read``: see and fetch. ``write``: deploy, stop, remove. ``admin``: delete workspaces; where it holds for
all of them also tokens, and what is of the whole server."""
Right = Literal["read", "write", "admin", "owner"]
"""``owner``: who owns the home, and has all rights in it."""

_ORDER: tuple[Right, ...] = ("read", "write", "admin", "owner")


@dataclass(frozen=True, slots=True)
class Caller:
    """``workspaces``: the only ones for which the right holds; None is all that there are and will be."""

    name: str
    right: Right
    workspaces: frozenset[str] | None = None
    expires: datetime | None = None

    def sees(self, workspace: str) -> bool:
        """Whether it has any right there."""
        return self.workspaces is None or workspace in self.workspaces

    def check(self, right: Right) -> None:
        """Raises NotAllowed for who has not this right anywhere."""
        if _ORDER.index(self.right) >= _ORDER.index(right):
            return
        if right == "owner":
            raise NotAllowed(
                "that is for the owner of the backend's home alone, on its own machine", right=right
            )
        raise NotAllowed(
            f"token {self.name} has the right {self.right}, and this needs {right}",
            hint="who administers the backend can make another one: kaos token create",
            right=right,
        )

    def check_in(self, right: Right, workspace: str | None) -> None:
        """Raises NotAllowed for who has not this right in a workspace, None: in all. Whether there is one of
        that name is not told.
        """
        self.check(right)
        if workspace is None and self.workspaces is not None:
            raise NotAllowed(
                f"token {self.name} is for some workspaces only, and this is about the whole server",
                right=right,
            )
        if workspace is not None and not self.sees(workspace):
            raise NotAllowed(
                f"token {self.name} is not for workspace {workspace}",
                hint=f"it is for {', '.join(sorted(self.workspaces or ()))}",
                right=right,
            )

    def author(self, claimed: str) -> str:
        """Whose name is put to what is done: a token's own, whatever the client says."""
        return claimed if self.right == "owner" else self.name


OWNER = Caller("", "owner")
