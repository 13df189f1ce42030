"""What the services are asked, which is what the HTTP API takes: the one definition of each request body."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, ConfigDict


class Request(BaseModel):
    """A frozen value that refuses fields which it does not know."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class WorkspaceCreate(Request):
    name: str
    description: str = ""


class Resources(Request):
    """What each trial is granted; None leaves it as it is. ``memory`` is a Kubernetes quantity."""

    cpu: float | None = None
    memory: str | None = None
    gpu: int | None = None


class Deploy(Request):
    """What to deploy; None leaves a part as it is. ``hyper`` is the grid as the user's JSON has it."""

    source: str | None = None
    data: str | None = None
    hyper: Any = None
    parallelism: int | None = None
    resources: Resources | None = None
    author: str = ""
    retry: bool = False

    @property
    def settings_given(self) -> bool:
        return self.parallelism is not None or self.resources not in (None, Resources())


class Check(Request):
    """``repair``: what is damaged is restored where there is another copy of it on the machine."""

    repair: bool = False
