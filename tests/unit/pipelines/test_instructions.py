"""Instructions as they are written, and Dockerfiles with more in them."""

from __future__ import annotations

import pytest
from kaos_pipelines.build.instructions import amended, copies_context, written

DOCKERFILE = """\
# syntax=docker/dockerfile:1
FROM base AS tools
RUN --mount=type=cache,target=/c \\
  make tools
RUN <<EOF
RUN is a word of this text
FROM here on
EOF
FROM scratch AS files
COPY a b
from \\
  base
  run ["true"]
RUN cat <<< EOF
"""


def test_lines_of_a_here_document_are_no_instructions() -> None:
    assert [(one.line, one.keyword) for one in written(DOCKERFILE)] == [
        (2, "FROM"),
        (3, "RUN"),
        (5, "RUN"),
        (9, "FROM"),
        (10, "COPY"),
        (11, "FROM"),
        (13, "RUN"),
        (14, "RUN"),
    ]


def test_what_is_added_stands_in_front_of_the_steps_that_run() -> None:
    expected = """\
# syntax=docker/dockerfile:1
FROM base AS tools
ARG A=1
ARG B=2
RUN --mount=x --mount=type=cache,target=/c \\
  make tools
RUN --mount=x <<EOF
RUN is a word of this text
FROM here on
EOF
FROM scratch AS files
COPY a b
from \\
  base
ARG A=1
ARG B=2
  run --mount=x ["true"]
RUN --mount=x cat <<< EOF
"""
    assert amended(DOCKERFILE, ["ARG A=1", "ARG B=2"], "--mount=x") == expected
    assert amended(DOCKERFILE, [], "") == DOCKERFILE


@pytest.mark.parametrize(
    ("dockerfile", "surely"),
    [
        ("FROM a\nWORKDIR /app\nCOPY . ./\n", True),
        ("# syntax=docker/dockerfile:1\nFROM a\nadd ./ .\nENV A=1\nUSER 7\nCMD x\n", True),
        ("FROM a\nCOPY . .\nRUN chmod -x train\n", False),
        ("FROM a\nCOPY . .\nWORKDIR /other\n", False),
        ("FROM a\nCOPY . .\nFROM b\n", False),
        ("FROM a\nCOPY --chmod=644 . .\n", False),
        ("FROM a\nCOPY --from=b . .\n", False),
        ("FROM a\nCOPY src .\n", False),
        ("FROM a\nCOPY . $HERE\n", False),
        ("# first\n# syntax=example.org/mine\nFROM a\nCOPY . .\n", False),
        ("", False),
    ],
)
def test_what_surely_has_the_context_in_its_workdir(dockerfile: str, surely: bool) -> None:
    assert copies_context(dockerfile, written(dockerfile)) is surely
