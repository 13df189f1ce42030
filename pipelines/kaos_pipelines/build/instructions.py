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

_HERE_DOCUMENT = re.compile(r"(?<!<)<<-?\s*([\"']?)([A-Za-z_]\w*)\1")
_VARIABLE = re.compile(r"\$(?:\w+|\{[^}]*\})")
_SYNTAX = re.compile(r"(?:#[^\n]*\n)*?#\s*syntax\s*=\s*(\S+)", re.IGNORECASE)
_COPIES_ALL = re.compile(r"(COPY|ADD) \./? \./?")
_TOUCH_NO_FILES = frozenset(
    {
        "ARG",
        "CMD",
        "ENTRYPOINT",
        "ENV",
        "EXPOSE",
        "HEALTHCHECK",
        "LABEL",
        "MAINTAINER",
        "SHELL",
        "STOPSIGNAL",
        "USER",
    }
)
_TAKES_HERE_DOCUMENTS = frozenset({"RUN", "COPY", "ADD"})


@dataclass(frozen=True, slots=True)
class Written:
    """`line` counts from 1, and `end` is the last one, here-documents apart; `text` is the instruction on one
    line, secrets in URLs masked.
    """

    line: int
    text: str
    end: int = 0

    @property
    def keyword(self) -> str:
        return self.text.partition(" ")[0]


def written(dockerfile: str) -> tuple[Written, ...]:
    """All instructions, in order; comments are no instructions."""
    parser = DockerfileParser(fileobj=io.BytesIO(dockerfile.encode()))  # type: ignore[no-untyped-call]
    lines = dockerfile.split("\n")
    found: list[Written] = []
    body_end = 0  # the library knows no here-documents, and takes their lines for instructions
    for item in parser.structure:
        keyword, start, end = item["instruction"], item["startline"] + 1, item["endline"] + 1
        if keyword == "COMMENT" or start <= body_end:
            continue
        found.append(Written(start, mask(f"{keyword} {' '.join(item['value'].split())}"), end))
        if keyword in _TAKES_HERE_DOCUMENTS:
            body_end = _end_of_here_documents(lines, end, _HERE_DOCUMENT.findall(item["value"]))
    return tuple(found)


def _end_of_here_documents(lines: Sequence[str], after: int, delimiters: Iterable[tuple[str, str]]) -> int:
    """The number of the last line of the here-documents that begin after line `after`."""
    end = after
    for _, delimiter in delimiters:
        body = (number for number, line in enumerate(lines[end:], end + 1) if line.strip("\t") == delimiter)
        end = next(body, end)
    return end


def declared(steps: Iterable[Written]) -> set[str]:
    """The names that ARGs declare."""
    lines = [step.text.removeprefix("ARG ") for step in steps if step.keyword == "ARG"]
    return {word.partition("=")[0] for line in lines for word in line.split()}


def copies_context(dockerfile: str, steps: Sequence[Written]) -> bool:
    """Whether the image surely has the context's files in its WORKDIR, as they are.

    Its last instruction that can touch files copies them there.
    """
    syntax = _SYNTAX.match(dockerfile)
    if syntax is not None and not syntax[1].startswith("docker/dockerfile"):
        return False  # what instructions mean is somebody else's
    last = next((step for step in reversed(steps) if step.keyword not in _TOUCH_NO_FILES), None)
    return last is not None and _COPIES_ALL.fullmatch(last.text) is not None


def amended(dockerfile: str, beginning: Sequence[str], run_flags: str = "") -> str:
    """The Dockerfile with more instructions in front of each stage that has a RUN, and flags in each RUN."""
    lines = dockerfile.split("\n")
    runs = False
    for step in reversed(written(dockerfile)):
        if step.keyword == "RUN":
            runs = True
            first = lines[step.line - 1]
            at = len(first) - len(first.lstrip()) + len("RUN")
            lines[step.line - 1] = f"{first[:at]}{run_flags and ' '}{run_flags}{first[at:]}"
        elif step.keyword == "FROM":
            lines[step.end : step.end] = beginning if runs else ()
            runs = False
    return "\n".join(lines)


def _substituted(text: str) -> re.Pattern[str]:
    """What an instruction may look like with values in place of its variables."""
    return re.compile(".*".join(map(re.escape, _VARIABLE.split(text))), re.DOTALL)


def ended(code: str, last: Iterable[str]) -> str:
    """How a command ended that failed. `last`: what it said last, oldest first."""
    said = [line.strip() for line in last if line.strip()]
    # pip and apt end with advice; what went wrong stands above, marked.
    marked = [line for line in said if re.match(r"(?i)(e|error|fatal)\b", line)]
    return ": ".join([f"exit code {code}", *(marked or said)[-1:]])


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
        alike = [s for s in self._steps if s.text.startswith(text) or text.startswith(s.text)]
        # BuildKit shows what it has substituted.
        alike += [s for s in self._steps if "$" in s.text and _substituted(s.text).fullmatch(text)]
        step = next(iter(alike), None)
        reason = " ".join(error.split())
        if code is not None:
            reason = ended(code, last)
        line, shown = (step.line, step.text) if step is not None else (None, text)
        return BuildError(self._log.mask(reason), line, self._log.mask(shown))
