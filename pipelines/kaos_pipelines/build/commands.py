"""The few commands of a RUN that can be carried out without a container. Pure; no shell is started."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from kaos_pipelines.build import pip
from kaos_pipelines.build.errors import USE_DOCKER, Refused
from kaos_pipelines.build.installers import CONDA, TOOLS, conda_run, parse
from kaos_pipelines.build.words import NAME, Word

FILE_COMMANDS = frozenset(["mkdir", "rmdir", "chmod", "rm", "cp", "mv", "ln", "touch", "echo", "printf"])
ACCOUNTS = frozenset(["useradd", "groupadd", "adduser", "addgroup", "usermod", "chown", "chgrp", "passwd"])
NOTHING = frozenset(("true", ":", "set", "sync", "ldconfig", "umask", "hash"))
SYSTEM_PACKAGES = (
    *("apt-get", "apt", "aptitude", "dpkg", "apk", "yum", "dnf", "microdnf", "zypper", "pacman"),
    *("snap", "brew"),
)
WHY = {
    **dict.fromkeys(SYSTEM_PACKAGES, "it installs system packages, which takes a container"),
    **dict.fromkeys(("curl", "wget", "git"), "it fetches from the network; put the file into the bundle, or"),
    **dict.fromkeys(
        ("python", "sh", "bash", "make", "cmake", "gcc", "npm", "pipenv"),
        "it would run programs while the image is made, and without a container nothing keeps them in bounds",
    ),
    "sudo": "nothing may leave the image",
}
SUPPORTED = "pip install, uv sync, mkdir, chmod, cp, mv, rm, ln, touch, echo … > file"


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


def command(
    words: Sequence[Word], redirection: Redirection, cwd: str, env: Mapping[str, str]
) -> tuple[Command, ...]:
    """What one simple command comes to; nothing, for those without an effect. Raises Refused."""
    words = list(words)
    own = dict(env)
    while words and assignment(words[0].text):
        key, _, value = words.pop(0).text.partition("=")
        own[key] = value
    if not words:
        return ()
    name = posixpath.basename(words[0].text)
    rest = words[1:]
    if name == "exec" and rest:
        return command(rest, redirection, cwd, own)
    if re.fullmatch(r"python[0-9.]*", name) and [word.text for word in rest[:2]] == ["-m", "pip"]:
        name, rest = "pip", rest[2:]
    if re.fullmatch(r"pip[0-9.]+", name):
        name = "pip"
    if name in TOOLS:
        if redirection:
            raise Refused("its output goes to the build log; a > in a requirement needs quotes ('x>=1')")
        if name in CONDA and (ran := conda_run([word.text for word in rest])) is not None:
            return command([Word(text) for text in ran], redirection, cwd, own)
        parsed = parse(name, [word.text for word in rest], cwd, own)
        return (Note(" ".join([name, *(w.text for w in rest)])),) if parsed is None else (parsed,)
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


def assignment(text: str) -> bool:
    """Whether a word is `name=value`."""
    match = NAME.match(text)
    return match is not None and text[match.end() : match.end() + 1] == "="
