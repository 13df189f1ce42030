"""The build's log: its standard output, without the secrets that a Dockerfile may hold."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from kaos_formats.masking import Masker
from kaos_pipelines.build.pip import PipCommand
from kaos_pipelines.build.plan import Plan, Shell


class BuildLog:
    """One line at a time, at once."""

    def __init__(self) -> None:
        self.mask = Masker()

    def hide_secrets_of(self, plan: Plan, more: Iterable[str] = ()) -> None:
        """From here on, the passwords in what `plan` hands to pip, and in `more`, are masked wherever they
        occur.
        """
        self.mask = Masker([*_texts(plan), *more])

    def warn_unused(self, arguments: Iterable[str]) -> None:
        """Tell of build arguments that no ARG declares, in Docker's words."""
        if names := sorted(arguments):
            self.say(f"[Warning] One or more build-args [{' '.join(names)}] were not consumed")

    def say(self, line: str) -> None:
        print(self.mask(line), flush=True)


def told(arguments: Mapping[str, str], log: BuildLog) -> dict[str, dict[str, str]]:
    """What image.json says of build arguments: nothing where there are none."""
    return {"arguments": {name: log.mask(value) for name, value in arguments.items()}} if arguments else {}


def _texts(plan: Plan) -> Iterator[str]:
    """Where an index or a requirement with a password can stand, variables substituted."""
    yield from plan.env.values()
    for step in plan.steps:
        for action in step.all_actions():
            if isinstance(action, PipCommand):
                yield from action.env.values()
                yield from (argument.text for argument in action.arguments)
            elif isinstance(action, Shell):
                yield from (*action.env.values(), *action.words)
