"""Dockerfile text → instructions with line numbers, on top of `dockerfile-parse`. Pure."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from dockerfile_parse.parser import DockerfileParser

from kaos_formats.masking import mask
from kaos_pipelines.build.errors import USE_DOCKER, BuildError

KEYWORDS = frozenset(
    [
        "ADD",
        "ARG",
        "CMD",
        "COPY",
        "ENTRYPOINT",
        "ENV",
        "EXPOSE",
        "FROM",
        "HEALTHCHECK",
        "LABEL",
        "MAINTAINER",
        "ONBUILD",
        "RUN",
        "SHELL",
        "STOPSIGNAL",
        "USER",
        "VOLUME",
        "WORKDIR",
    ]
)
FLAGGED = frozenset({"ADD", "COPY", "FROM", "RUN"})
FLAG = re.compile(r"--([a-z]+)(?:=(\S*))?(?:\s+|$)")


@dataclass(frozen=True, slots=True)
class Instruction:
    """One instruction. `exec_form` is the JSON array form's words, None for the shell form."""

    keyword: str
    value: str  # without flags
    line: int  # 1-based, of the first line
    flags: Mapping[str, str] = field(default_factory=dict)
    mounts: tuple[str, ...] = ()  # the values of --mount, of which there can be several
    exec_form: tuple[str, ...] | None = None

    @property
    def text(self) -> str:
        """The instruction on one line, for messages: secrets in URLs are masked."""
        written = [(name, value) for name, value in self.flags.items() if name != "mount"]
        written += [("mount", value) for value in self.mounts]
        flags = "".join(f"--{name}={value} " if value else f"--{name} " for name, value in written)
        return mask(f"{self.keyword} {flags}{' '.join(self.value.split())}")


def parse(text: str) -> tuple[Instruction, ...]:
    """All instructions of a Dockerfile, in order; comments are dropped. Raises BuildError."""
    normal = _normalise(text)
    parser = DockerfileParser(fileobj=io.BytesIO(normal.encode()))  # type: ignore[no-untyped-call]
    found = tuple(
        _instruction(item["instruction"], item["value"], item["startline"] + 1)
        for item in parser.structure
        if item["instruction"] != "COMMENT"
    )
    seen = {instruction.line for instruction in found}
    for number, line in enumerate(normal.split("\n"), 1):  # the library passes over single words
        if re.fullmatch(r"\s*[A-Za-z]+\s*", line) and number not in seen and not _continues(normal, number):
            raise BuildError("the instruction says nothing", number, line.strip())
    if not found:
        raise BuildError("the Dockerfile is empty")
    return found


def _normalise(text: str) -> str:
    """Unix line ends, and no blank lines inside an instruction (Docker skips them, the library ends it
    there).
    """
    lines = text.removeprefix("\ufeff").replace("\r\n", "\n").rstrip().split("\n")
    for number, line in enumerate(lines):
        if re.match(r"\s*#\s*escape\s*=\s*`", line, re.IGNORECASE) and number < 3:
            raise BuildError("only the backslash is understood as escape character", number + 1, line.strip())
    continued = False
    for number, line in enumerate(lines):
        if continued and not line.strip():
            lines[number] = "#"
        elif not line.lstrip().startswith("#"):
            continued = line.rstrip().endswith("\\")
    lines[-1] = lines[-1].rstrip("\\")
    return "\n".join(lines) + "\n"


def _continues(text: str, number: int) -> bool:
    before = [line for line in text.split("\n")[: number - 1] if not line.lstrip().startswith("#")]
    return bool(before) and before[-1].rstrip().endswith("\\")


def _instruction(keyword: str, value: str, line: int) -> Instruction:
    value = value.strip()
    if keyword not in KEYWORDS:
        raise BuildError("there is no such instruction", line, f"{keyword} {value}".strip())
    if keyword in ("RUN", "COPY", "ADD") and re.search(r"<<-?\s*['\"]?[A-Za-z_]", value):
        text = f"{keyword} {value}"
        why = f"here-documents need a container: {USE_DOCKER}, or put the text into a file of the bundle"
        raise BuildError(why, line, text)
    if not value:
        raise BuildError("the instruction says nothing", line, keyword)
    flags: dict[str, str] = {}
    mounts: list[str] = []
    if keyword in FLAGGED:
        while match := FLAG.match(value):
            flags[match.group(1)] = match.group(2) or ""
            if match.group(1) == "mount":
                mounts.append(match.group(2) or "")
            value = value[match.end() :]
    return Instruction(keyword, value, line, flags, tuple(mounts), _exec_form(value))


def _exec_form(value: str) -> tuple[str, ...] | None:
    if not value.startswith("["):
        return None
    try:
        words = json.loads(value)
    except ValueError:
        return None  # as Docker does: then it is the shell form
    if isinstance(words, list) and all(isinstance(word, str) for word in words):
        return tuple(words)
    return None
