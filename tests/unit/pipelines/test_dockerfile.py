"""Dockerfile text → plan: what is understood, and that the rest is refused by line."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from kaos_pipelines.build.commands import FileCommand, Note
from kaos_pipelines.build.dockerfile import parse
from kaos_pipelines.build.errors import BuildError, Refused
from kaos_pipelines.build.pip import PipCommand
from kaos_pipelines.build.plan import Copy, MakeDir, Plan, compile_plan, python_version
from kaos_pipelines.build.words import Word, expand, shell, split


def plan(text: str) -> Plan:
    return compile_plan(parse(text))


def actions(body: str) -> list[object]:
    return [action for step in plan(f"FROM python:3.11\n{body}").steps for action in step.actions]


def refusal(body: str) -> BuildError:
    with pytest.raises(BuildError) as caught:
        plan(f"FROM python:3.11\n{body}")
    return caught.value


def test_line_numbers_continuations_comments_and_line_ends() -> None:
    text = (
        "# syntax=docker/dockerfile:1\r\nfrom python:3.11\r\n\r\n"
        "ENV A=1 \\\r\n  # no\r\n\r\n  B=2\r\nrun pip install x\\\r\n  y\r\n"
    )
    found = parse(text)
    assert [(i.keyword, i.line) for i in found] == [("FROM", 2), ("ENV", 4), ("RUN", 8)]
    assert plan(text).env == {"A": "1", "B": "2"}
    assert found[2].text == "RUN pip install x y"


@pytest.mark.parametrize(
    ("reference", "version"),
    [
        ("python", ""),
        ("python:3", ""),
        ("python:latest", ""),
        ("python:slim", ""),
        ("python:3.11", "3.11"),
        ("python:3.11.7-slim-bookworm", "3.11.7"),
        ("python:3.12-alpine3.19", "3.12"),
        ("docker.io/library/python:3.11 AS base", "3.11"),
        ("python:3.11@sha256:abc", "3.11"),
    ],
)
def test_base_images(reference: str, version: str) -> None:
    assert python_version(reference) == version


@pytest.mark.parametrize(
    "reference",
    [
        "ubuntu:22.04",
        "pytorch/pytorch",
        "python:2.7",
        "python:3.11slim",
        "python:3.11-windowsservercore",
        "a b",
        "scratch",
    ],
)
def test_other_base_images_are_refused(reference: str) -> None:
    with pytest.raises(Refused):
        python_version(reference)


def test_variables() -> None:
    result = plan(
        "ARG V=3.12\nARG UNUSED=1\nFROM python:${V}-slim\nARG V\nARG W=w\n"
        "ENV A=$W B=${A:-none} C='$W' D=\"$W x\"\n"
        "ENV E the rest $W\nENV W=env\nWORKDIR /srv/$W\nWORKDIR sub/../deep\nLABEL l=${V} m=${NOPE:+x}"
    )
    assert result.python == "3.12"
    assert result.env == {"A": "w", "B": "none", "C": "$W", "D": "w x", "E": "the rest w", "W": "env"}
    assert result.workdir == "/srv/env/deep"
    assert result.labels == {"l": "3.12", "m": ""}


def test_workdir_stops_at_the_root() -> None:
    assert plan("FROM python\nWORKDIR ../../../etc").workdir == "/etc"
    assert MakeDir("/etc") in actions("WORKDIR /a/../../etc")


def test_copy() -> None:
    assert actions("WORKDIR /app\nCOPY --chown=1:1 --chmod=755 a b* dest/")[1:] == [
        Copy((Word("a"), Word("b*", "b*")), "/app/dest/", 0o755)
    ]
    assert actions('COPY ["a b", "/x"]') == [Copy((Word("a b"),), "/x", None)]
    assert actions("ADD . .") == [Copy((Word("."),), "/", None)]


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ("COPY --from=x a b", "another image"),
        ("COPY --exclude=x a b", "not understood"),
        ("COPY --chmod=u+x a b", "octal"),
        ("COPY a", "source and a destination"),
        ("ADD https://example.com/x /x", "not URLs"),
        ("ADD git@github.com:a/b /x", "not URLs"),
        ("ADD x.tar.gz /x", "COPY"),
        ("COPY <<EOF /x\nhello\nEOF", "here-documents"),
        ("RUN <<EOF\npip install x\nEOF", "here-documents"),
        ("FROM python:3.12", "stages"),
        ("ONBUILD RUN x", "Docker"),
        ("NONSENSE x", "no such instruction"),
        ("RUN", "says nothing"),
        ("ENV A", "no value"),
        ("ENV A=1 B", "not name=value"),
        ("ARG a-b=1", "no name"),
        ("WORKDIR ''", "empty"),
        ("RUN --mount=type=secret,id=x pip install y", "Docker"),
        ("RUN apt-get update && apt-get install -y gcc", "system packages"),
        ("RUN pip install x && apk add gcc", "system packages"),
        ("RUN curl -O https://x", "network"),
        ("RUN git clone x", "network"),
        ("RUN python setup.py install", "run programs"),
        ("RUN sh -c 'pip install x'", "run programs"),
        ("RUN ./configure", "cannot be carried out"),
        ("RUN pip install $(cat x)", "other commands"),
        ("RUN pip install `cat x`", "other commands"),
        ("RUN pip install x | tee log", "real shell"),
        ("RUN pip install x || true", "real shell"),
        ("RUN (pip install x)", "real shell"),
        ("RUN pip install 'x", "never closed"),
        ("RUN if true; then pip install x; fi", "takes tests"),
        ("RUN pip install x > log", "build log"),
        ("RUN pip install x>=1", "needs quotes"),
        ("RUN pip download x", "pip download"),
        ("RUN pip install", "nothing to install"),
        ("RUN pip install -e .", "-e"),
        ("RUN pip install --target=/usr/lib x", "--target"),
        ("RUN pip install -t /usr/lib x", "-t"),
        ("RUN pip install --prefix /usr x", "--prefix"),
        ("RUN pip install --log /etc/x y", "--log"),
        ("RUN pip install file:///etc/passwd", "file of this machine"),
        ("RUN pip install 'x @ file:///etc'", "file of this machine"),
        ("RUN pip install -r https://x/r.txt", "not a file"),
        ("RUN sudo pip install x", "image"),
        ("RUN echo ${A%%x}", "more than"),
    ],
)
def test_refusals_name_line_and_reason(body: str, reason: str) -> None:
    error = refusal(body)
    assert error.line == 2
    assert str(error).startswith("Dockerfile:2: ")
    assert reason in str(error)


def test_from_comes_first() -> None:
    for text in ("RUN pip install x\nFROM python", "ARG A=1", "", "# only\n"):
        with pytest.raises(BuildError):
            plan(text)


def test_run() -> None:
    found = actions(
        "ARG X=1\nENV Y=2\nWORKDIR /app\n"
        "RUN set -ex; cd sub && export Z=3 && P=4 python3.11 -m pip install -q a==$Z b[x] 'c>2' "
        ">/dev/null 2>&1 \\\n"
        " && mkdir -p d && useradd -m me && chown me d && pip --version"
    )
    pip = found[1]
    assert isinstance(pip, PipCommand)
    assert pip.text == "pip install -q a==3 b[x] c>2"
    assert pip.cwd == "/app/sub"
    assert pip.env == {"X": "1", "Y": "2", "Z": "3", "P": "4"}
    assert found[2] == FileCommand("mkdir", (Word("-p"), Word("d")), "/app/sub")
    assert [type(action) for action in found[3:]] == [Note, Note, Note]


def test_exec_form_has_no_shell() -> None:
    (command,) = actions('RUN ["pip", "install", "$X", "a>1"]')
    assert isinstance(command, PipCommand)
    assert command.text == "pip install $X a>1"


def test_pip_arguments() -> None:
    (command,) = actions(
        "RUN pip install --no-cache-dir -rreq.txt --constraint=c.txt -f wheels ./pkg[x] x.whl -U torch"
    )
    assert isinstance(command, PipCommand)
    assert [(a.kind, a.path) for a in command.arguments if a.path] == [
        ("requirement", "req.txt"),
        ("constraint", "c.txt"),
        ("links", "wheels"),
        ("local", "./pkg"),
        ("local", "x.whl"),
    ]
    assert "--no-cache-dir" not in command.text


def test_noted() -> None:
    result = plan(
        'FROM python\nUSER me\nEXPOSE 80\nCMD ["./train"]\nENTRYPOINT x\n'
        'VOLUME /v\nSTOPSIGNAL 9\nSHELL ["/bin/bash"]'
    )
    assert result.user == "me"
    assert result.command == {"cmd": '["./train"]', "entrypoint": "x"}
    assert sum(isinstance(a, Note) for step in result.steps for a in step.actions) == 7


def test_words() -> None:
    env = {"A": "x y", "E": "", "G": "*"}
    assert [w.text for w in split('a "b c" d\\ e $A ${E:-z} ${E-z} ""', env)] == [
        "a",
        "b c",
        "d e",
        "x y",
        "z",
        "",
    ]
    assert [getattr(w, "text", "") for w in shell('$A "$A" a$A. ~ ~/b', env)] == [
        "x", "y", "x y", "ax", "y.", "/root", "/root/b",
    ]  # fmt: skip
    assert list(shell("'*' * \"$G\" a[*]", env)) == [
        Word("*"),
        Word("*", "*"),
        Word("*"),
        Word("a[*]", "a[*]"),
    ]
    assert expand("${A:+${E:-deep}}", env) == "deep"


@given(st.text(alphabet=st.characters(codec="utf-8", exclude_characters="\r"), max_size=200))
def test_no_text_breaks_the_parser(text: str) -> None:
    """Whatever it says, a Dockerfile is understood or refused with a reason."""
    reasons: list[str] = []
    for whole in (text, f"FROM python:3.11\nRUN {text}", f"FROM python\nCOPY {text}\nENV {text}"):
        try:
            plan(whole)
        except BuildError as error:
            reasons.append(error.reason)
    assert all(reasons)


@given(st.lists(st.sampled_from(["..", ".", "a", "", "b"]), max_size=8))
def test_workdir_and_copy_never_leave_the_root(parts: list[str]) -> None:
    path = "/".join(parts) or "."
    result = plan(f"FROM python\nWORKDIR {path}\nCOPY x {path}")
    for value in (
        result.workdir,
        *(a.destination for s in result.steps for a in s.actions if isinstance(a, Copy)),
    ):
        assert value.startswith("/")
        assert ".." not in value.split("/")
