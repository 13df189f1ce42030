"""The build's log: its standard output, without the secrets that a Dockerfile may hold."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from kaos_formats.masking import Masker


class BuildLog:
    """One line at a time, at once; what `mask` leaves out of it is left out of everything that is told."""

    def __init__(self) -> None:
        self.mask = Masker()

    def warn_unused(self, arguments: Iterable[str]) -> None:
        """Tell of build arguments that no ARG declares, in Docker's words."""
        if names := sorted(arguments):
            self.say(f"[Warning] One or more build-args [{' '.join(names)}] were not consumed")

    def say(self, line: str) -> None:
        print(self.mask(line), flush=True)


def told(arguments: Mapping[str, str], log: BuildLog) -> dict[str, dict[str, str]]:
    """What image.json says of build arguments: nothing where there are none."""
    return {"arguments": {name: log.mask(value) for name, value in arguments.items()}} if arguments else {}
