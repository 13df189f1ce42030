"""The instructions of a Dockerfile as they are written, for messages. Understands and refuses nothing."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from dockerfile_parse.parser import DockerfileParser

from kaos_formats.masking import mask
from kaos_pipelines.build.errors import BuildError
from kaos_pipelines.build.log import BuildLog


@dataclass(frozen=True, slots=True)
class Written:
    """`line` counts from 1; `text` is the instruction on one line, secrets in URLs masked."""

    line: int
    text: str


def written(dockerfile: str) -> tuple[Written, ...]:
    """All instructions, in order; comments are no instructions."""
    parser = DockerfileParser(fileobj=io.BytesIO(dockerfile.encode()))  # type: ignore[no-untyped-call]
    found = (item for item in parser.structure if item["instruction"] != "COMMENT")
    return tuple(
        Written(item["startline"] + 1, mask(f"{item['instruction']} {' '.join(item['value'].split())}"))
        for item in found
    )


class Failures:
    """What a person is told of a step that failed: its line, the exit code, and the line that says why."""

    LINES = 20
    """As many of a step's last lines are looked through."""

    def __init__(self, steps: Sequence[Written], log: BuildLog) -> None:
        self._steps = steps
        self._log = log

    def at(self, instruction: str, error: str, code: str | None, last: Iterable[str]) -> BuildError:
        """The error of a step.

        `error`: in the builder's words; `code`: its command's exit code; `last`: what that said last.
        """
        text = " ".join(mask(instruction).split())
        alike = (s for s in self._steps if s.text.startswith(text) or text.startswith(s.text))
        step = next(alike, None)
        reason = " ".join(error.split())
        if code is not None:
            said = [line.strip() for line in last if line.strip()]
            # pip and apt end with advice; what went wrong stands above, marked.
            marked = [line for line in said if re.match(r"(?i)(e|error|fatal)\b", line)]
            reason = ": ".join([f"exit code {code}", *(marked or said)[-1:]])
        line, shown = (step.line, step.text) if step is not None else (None, text)
        return BuildError(self._log.mask(reason), line, self._log.mask(shown))
