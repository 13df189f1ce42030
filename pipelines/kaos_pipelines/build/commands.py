"""RUN → the few commands that can be carried out without a container. Pure; nothing is handed to a shell."""

from __future__ import annotations

import posixpath
import re
from collections import ChainMap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from kaos_pipelines.build import pip
from kaos_pipelines.build.errors import USE_DOCKER, Refused
from kaos_pipelines.build.words import NAME, Operator, Word, shell

FILE_COMMANDS = frozenset(["mkdir", "rmdir", "chmod", "rm", "cp", "mv", "ln", "touch", "echo", "printf"])
ACCOUNTS = frozenset(["useradd", "groupadd", "adduser", "addgroup", "usermod", "chown", "chgrp", "passwd"])
NOTHING = frozenset(("true", ":", "set", "sync", "ldconfig", "umask", "hash"))
WHY = {
    **dict.fromkeys(
        (
            "apt-get",
            "apt",
            "aptitude",
            "dpkg",
            "apk",
            "yum",
            "dnf",
            "microdnf",
            "zypper",
            "pacman",
            "snap",
            "brew",
        ),
        "it installs system packages, which takes a container",
    ),
    **dict.fromkeys(("conda", "mamba", "micromamba"), "environments are made with pip here"),
    **dict.fromkeys(("curl", "wget", "git"), "it fetches from the network; put the file into the bundle, or"),
    **dict.fromkeys(
        ("python", "sh", "bash", "make", "cmake", "gcc", "npm", "uv", "poetry", "pipenv"),
        "it would run programs while the image is made, and without a container nothing keeps them in bounds",
    ),
    "sudo": "nothing may leave the image",
}
SUPPORTED = "pip install, mkdir, chmod, cp, mv, rm, ln, touch, echo … > file"


@dataclass(frozen=True, slots=True)
class FileCommand:
    """A command on files of the image. `target`/`append` are a redirection of its output."""

    name: str
    words: tuple[Word, ...]
    cwd: str
    target: Word | None = None
    append: bool = False

    @property
    def text(self) -> str:
        return " ".join([self.name, *(word.text for word in self.words)])


@dataclass(frozen=True, slots=True)
class Note:
    """Something that is recorded and has no effect without a container."""

    text: str


Command = FileCommand | pip.PipCommand | Note
Redirection = tuple[Word, bool] | None
"""(file, append) of a command's standard output."""


def parse_run(
    value: str, exec_form: Sequence[str] | None, cwd: str, env: Mapping[str, str], builtin: Mapping[str, str]
) -> tuple[Command, ...]:
    """The commands of one RUN. `env` is ENV and ARG; `builtin` what the base image sets, for expansion only.

    Raises Refused naming the command and the reason.
    """
    if exec_form is not None:
        return _command([Word(word) for word in exec_form], None, cwd, env)
    commands: list[Command] = []
    local = dict(env)
    for words, redirection in _simple_commands(shell(value, ChainMap(local, dict(builtin)))):
        name = words[0].text
        if name == "cd":
            cwd = _cd(words, cwd)
        elif name == "export" or all(_assignment(word.text) for word in words):
            pairs = (word.text.partition("=") for word in words if _assignment(word.text))
            local |= {key: val for key, _, val in pairs}
        else:
            commands += _command(words, redirection, cwd, local)
    return tuple(commands)


def _simple_commands(tokens: Iterator[Word | Operator]) -> Iterator[tuple[list[Word], Redirection]]:
    words: list[Word] = []
    redirection: Redirection = None
    for token in tokens:
        if isinstance(token, Word):
            words.append(token)
        elif token.text in ("&&", ";", "\n"):
            if words:
                yield words, redirection
            words, redirection = [], None
        elif token.text.endswith((">", ">>", ">&")):
            target = next(tokens, None)
            if not isinstance(target, Word):
                raise Refused(f"{token.text} leads nowhere")
            if not token.text.startswith("2") and token.text != ">&" and target.text != "/dev/null":
                redirection = (target, token.text == ">>")
        else:
            raise Refused(f"the shell's {token.text} takes a real shell: {USE_DOCKER}")
    if words:
        yield words, redirection


def _command(
    words: Sequence[Word], redirection: Redirection, cwd: str, env: Mapping[str, str]
) -> tuple[Command, ...]:
    words = list(words)
    own = dict(env)
    while words and _assignment(words[0].text):
        key, _, value = words.pop(0).text.partition("=")
        own[key] = value
    if not words:
        return ()
    name = posixpath.basename(words[0].text)
    rest = words[1:]
    if name == "exec" and rest:
        return _command(rest, redirection, cwd, own)
    if re.fullmatch(r"python[0-9.]*", name) and [word.text for word in rest[:2]] == ["-m", "pip"]:
        name, rest = "pip", rest[2:]
    if re.fullmatch(r"pip[0-9.]*", name):
        if redirection:
            raise Refused("its output goes to the build log; a > in a requirement needs quotes ('x>=1')")
        command = pip.parse([word.text for word in rest], cwd, own)
        return (Note(" ".join(["pip", *(w.text for w in rest)])),) if command is None else (command,)
    if name in ACCOUNTS:
        return (Note(f"{name} (there is one user without a container)"),)
    if name in NOTHING:
        return ()
    if name in FILE_COMMANDS:
        target, append = redirection or (None, False)
        if target is not None and name not in ("echo", "printf"):
            raise Refused(f"the output of {name} cannot be kept")
        return (FileCommand(name, tuple(rest), cwd, target, append),)
    reason = WHY.get(re.sub(r"^(python|pypy)[0-9.]*$", "python", name))
    if reason is None:
        raise Refused(f"{name} cannot be carried out without a container ({SUPPORTED} can): {USE_DOCKER}")
    raise Refused(f"{reason}{' ' if reason.endswith('or') else ': '}{USE_DOCKER}")


def _assignment(text: str) -> bool:
    match = NAME.match(text)
    return match is not None and text[match.end() : match.end() + 1] == "="


def _cd(words: Sequence[Word], cwd: str) -> str:
    if len(words) != 2:
        raise Refused("cd takes one folder here")
    return posixpath.normpath(posixpath.join(cwd, words[1].text))
