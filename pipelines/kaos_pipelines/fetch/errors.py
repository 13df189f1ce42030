"""How a line of a manifest fails."""

from __future__ import annotations

from collections.abc import Mapping

from kaos_formats.manifest import ranges

# Of a job's reason as many characters are kept (kaos_formats.lastwords).
_WIDTH = 280


class FetchError(Exception):
    """Why a line cannot be fetched, however often it is tried."""


class Gone(FetchError):
    """There is nothing behind the URL."""


class Transient(FetchError):
    """Why a try failed that may succeed the next time. `wait_s`: seconds that the server asks to wait."""

    def __init__(self, reason: str, wait_s: float = 0.0) -> None:
        super().__init__(reason)
        self.wait_s = wait_s


class Changed(Transient):
    """The content is another one than that of which a part has come."""


class Stopped(FetchError):
    """Why no other line can go on either."""


class FetchFailed(Exception):
    """A fetch that ends here: what is wrong with which lines (number → reason)."""

    def __init__(self, problems: Mapping[int, str], lines: int) -> None:
        self.problems = dict(sorted(problems.items()))
        super().__init__(_summary(self.problems, lines))


def _summary(problems: Mapping[int, str], lines: int) -> str:
    """All numbers if they fit, and the reason of the first."""
    first = next(iter(problems))
    numbers = ranges(problems)
    head = f"{len(problems)} of {lines} line(s) of the manifest cannot be fetched: "
    if len(numbers) > _WIDTH - len(head):
        numbers = numbers[: _WIDTH - len(head) - 20].rpartition(",")[0] + ", … (see the log)"
    why = problems[first] if len(problems) == 1 else f"line {first}: {problems[first]}"
    return f"{head}{numbers}; {why}"
