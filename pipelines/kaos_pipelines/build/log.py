"""The build's log: its standard output, without the secrets that a Dockerfile may hold."""

from __future__ import annotations

from collections.abc import Iterator

from kaos_formats.masking import Masker
from kaos_pipelines.build.pip import PipCommand
from kaos_pipelines.build.plan import Plan


class BuildLog:
    """One line at a time, at once."""

    def __init__(self) -> None:
        self.mask = Masker()

    def hide_secrets_of(self, plan: Plan) -> None:
        """From here on, the passwords in what `plan` hands to pip are masked wherever they occur."""
        self.mask = Masker(_texts(plan))

    def say(self, line: str) -> None:
        print(self.mask(line), flush=True)


def _texts(plan: Plan) -> Iterator[str]:
    """Where an index or a requirement with a password can stand, variables substituted."""
    yield from plan.env.values()
    for step in plan.steps:
        for action in step.all_actions():
            if isinstance(action, PipCommand):
                yield from action.env.values()
                yield from (argument.text for argument in action.arguments)
