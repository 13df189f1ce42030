"""The instructions of a Dockerfile as they are written, for messages. Understands and refuses nothing."""

from __future__ import annotations

import io
from dataclasses import dataclass

from dockerfile_parse.parser import DockerfileParser

from kaos_formats.masking import mask


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
