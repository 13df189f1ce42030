"""Instructions → what to do for each, with all variables substituted. Pure."""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from kaos_pipelines.build import commands
from kaos_pipelines.build.commands import WHY, Note
from kaos_pipelines.build.dockerfile import Instruction
from kaos_pipelines.build.errors import USE_DOCKER, BuildError, Refused
from kaos_pipelines.build.pip import PipCommand
from kaos_pipelines.build.script import Attempt, If, Part, parse_run
from kaos_pipelines.build.words import NAME, Word, expand, split

# What Docker's python images set, as far as Dockerfiles refer to it.
BASE_PATH = "/usr/local/bin:/usr/local/sbin:/usr/sbin:/usr/bin:/sbin:/bin"
BUILTIN = {"PATH": BASE_PATH, "HOME": "/root", "LANG": "C.UTF-8"}
REPOSITORY = re.compile(r"(docker\.io/)?(library/)?python")
CONDA = re.compile(
    r"(docker\.io/)?(continuumio/(mini|ana)conda3?|mambaorg/micromamba|condaforge/(miniforge3|mambaforge))"
)
UV_PYTHON = re.compile(r"ghcr\.io/astral-sh/uv:(?:[\d.]+-)?python(3\.\d+)(?:-[-.\w]*)?")
UV = re.compile(r"ghcr\.io/astral-sh/uv(:.*)?")
VARIANT = r"(latest|slim|alpine|bookworm|bullseye|buster|trixie)[-.\w]*"
VERSION = re.compile(rf"(\d+(?:\.\d+){{0,2}})?(?:(?:(?<=\d)-|(?<!\d)){VARIANT})?")
NOTED = frozenset(
    [
        "CMD",
        "ENTRYPOINT",
        "EXPOSE",
        "HEALTHCHECK",
        "LABEL",
        "MAINTAINER",
        "SHELL",
        "STOPSIGNAL",
        "USER",
        "VOLUME",
    ]
)
SYSTEM_PACKAGES = re.compile(rf"(?:sudo )?({'|'.join(commands.SYSTEM_PACKAGES)}) [^;|&\n]*(&&|$)")
ARCHIVE = re.compile(r"\.(tar|tgz|tbz2?|txz|tar\.(gz|bz2|xz|zst))$", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Copy:
    """COPY or ADD of context files; `destination` is absolute and ends in "/" if it must be a folder."""

    sources: tuple[Word, ...]
    destination: str
    mode: int | None


@dataclass(frozen=True, slots=True)
class MakeDir:
    """WORKDIR."""

    path: str


@dataclass(frozen=True, slots=True)
class Shell:
    """RUN by a real shell. `caches`: folders that it may fill and that are no part of the image; `binds`:
    files of the context that it sees, read-only, at a path.
    """

    words: tuple[str, ...]
    cwd: str
    env: Mapping[str, str]
    network: bool = True
    caches: tuple[str, ...] = ()
    binds: tuple[tuple[Word, str], ...] = ()


Action = Part | Copy | MakeDir | Shell


@dataclass(frozen=True, slots=True)
class Step:
    """One instruction and what it comes down to (nothing, for those that only set something)."""

    instruction: Instruction
    actions: tuple[Action, ...] = ()

    def all_actions(self) -> Iterator[Action]:
        """Also those of branches that may not be taken."""
        todo = list(reversed(self.actions))
        while todo:
            action = todo.pop()
            if isinstance(action, If):
                todo += reversed((*action.then, *action.otherwise))
            elif isinstance(action, Attempt):
                todo += reversed(action.commands)
            else:
                yield action


@dataclass(frozen=True, slots=True)
class Plan:
    """A whole Dockerfile. `python` is the version asked for ("3.11"), "" for any Python 3."""

    python: str
    steps: tuple[Step, ...]
    workdir: str
    env: Mapping[str, str]
    labels: Mapping[str, str]
    user: str
    command: Mapping[str, str]  # CMD and ENTRYPOINT as written
    unused: tuple[str, ...] = ()  # build arguments that no ARG declares

    def texts(self) -> Iterator[str]:
        """Where an index or a requirement with a password can stand, variables substituted."""
        yield from self.env.values()
        for step in self.steps:
            for action in step.all_actions():
                if isinstance(action, PipCommand):
                    yield from action.env.values()
                    yield from (argument.text for argument in action.arguments)
                elif isinstance(action, Shell):
                    yield from (*action.env.values(), *action.words)


@dataclass(slots=True)
class _State:
    workdir: str = "/"
    env: dict[str, str] = field(default_factory=dict)
    args: dict[str, str] = field(default_factory=dict)
    global_args: dict[str, str] = field(default_factory=dict)
    labels: dict[str, str] = field(default_factory=dict)
    user: str = ""
    command: dict[str, str] = field(default_factory=dict)
    given: Mapping[str, str] = field(default_factory=dict)
    declared: set[str] = field(default_factory=set)
    shell: tuple[str, ...] | None = None
    """What carries out a RUN; None where there is none, and its commands are emulated."""

    @property
    def variables(self) -> dict[str, str]:
        return {**BUILTIN, **self.args, **self.env}  # ENV wins over ARG, as in Docker


def compile_plan(
    instructions: Sequence[Instruction],
    arguments: Mapping[str, str] | None = None,
    *,
    shell: bool = False,
) -> Plan:
    """The plan of a Dockerfile, with build `arguments`; `shell`: a real one carries out every RUN.

    Raises BuildError with the line of the first instruction that is refused.
    """
    state = _State(given=arguments or {}, shell=("/bin/sh", "-c") if shell else None)
    python: str | None = None
    steps: list[Step] = []
    for instruction in instructions:
        try:
            if instruction.keyword == "FROM":
                if python is not None:
                    raise Refused(f"builds in several stages (a second FROM) need a container: {USE_DOCKER}")
                python = python_version(expand(instruction.value, state.args))
                state.global_args, state.args = state.args, {}
                steps.append(Step(instruction))
            elif python is None and instruction.keyword != "ARG":
                raise Refused("FROM must come first, with ARG alone before it")
            else:
                steps.append(Step(instruction, _actions(instruction, state, python is None)))
        except Refused as refused:
            raise BuildError(str(refused), instruction.line, instruction.text) from refused
    if python is None:
        raise BuildError("the Dockerfile has no FROM; start it with FROM python:3.11-slim or another version")
    unused = tuple(set(state.given) - state.declared)
    return Plan(
        python, tuple(steps), state.workdir, state.env, state.labels, state.user, state.command, unused
    )  # fmt: skip


def python_version(reference: str) -> str:
    """The Python version that a FROM line asks for. Raises Refused for other images."""
    words = reference.split()
    if len(words) not in (1, 3) or (len(words) == 3 and words[1].upper() != "AS"):
        raise Refused("FROM takes one image and perhaps AS name")
    bare = words[0].partition("@")[0]
    repository, _, tag = bare.partition(":")
    if CONDA.fullmatch(repository):
        return ""  # environment.yml says which
    if with_uv := UV_PYTHON.fullmatch(bare):
        return with_uv[1]
    if not REPOSITORY.fullmatch(repository):
        raise Refused(
            "without a container only images of Python, uv and conda can be stood in for "
            f"(python:3.11, python:3.12-slim …): {USE_DOCKER}"
        )
    match = VERSION.fullmatch(tag)
    if not match or "windows" in tag:
        raise Refused(f"the tag {tag} names no Python version; write python:3.11 or the like")
    version = match.group(1) or ""
    if version.split(".")[0] not in ("", "3"):
        raise Refused("only Python 3 is supported")
    return "" if version == "3" else version


def _actions(instruction: Instruction, state: _State, before_from: bool) -> tuple[Action, ...]:
    keyword, value, variables = instruction.keyword, instruction.value, state.variables
    if keyword == "ARG":
        for name, default in _declarations(value, variables):
            known = state.args if before_from else state.global_args
            found = default if default is not None else known.get(name, "")
            state.args[name] = state.given.get(name, found)
            state.declared.add(name)
    elif keyword == "ENV":
        state.env |= _pairs(value, variables)
    elif keyword == "LABEL":
        state.labels |= _pairs(value, variables)
    elif keyword == "WORKDIR":
        state.workdir = _absolute(state.workdir, expand(value, variables))
        return (MakeDir(state.workdir),)
    elif keyword in ("COPY", "ADD"):
        return (_copy(instruction, state),)
    elif keyword == "RUN":
        unknown = [flag for flag in instruction.flags if flag not in ("mount", "network", "security")]
        if unknown:
            raise Refused(f"RUN --{unknown[0]} needs a container: {USE_DOCKER}")
        env = {**state.args, **state.env}
        if state.shell is not None:
            return (_shell(instruction, state, env),)
        if not all("type=cache" in mount for mount in instruction.mounts):
            raise Refused(f"RUN --mount needs a container: {USE_DOCKER}")
        return parse_run(value, instruction.exec_form, state.workdir, env, BUILTIN)
    elif keyword in NOTED:
        if keyword == "USER":
            state.user = expand(value, variables)
        if keyword in ("CMD", "ENTRYPOINT"):
            state.command[keyword.lower()] = value
        if keyword == "SHELL" and state.shell is not None:
            if not instruction.exec_form:
                raise Refused('it takes the form ["program", "-c"]')
            state.shell = instruction.exec_form
            return ()
        return (Note(f"{keyword} has no effect without a container"),)
    else:
        raise Refused(f"{keyword} needs a container: {USE_DOCKER}")
    return ()


def _shell(instruction: Instruction, state: _State, env: Mapping[str, str]) -> Shell:
    words = instruction.exec_form or (*(state.shell or ()), instruction.value)
    # What is bound to fail there is refused before anything is installed.
    if (first := SYSTEM_PACKAGES.match(instruction.value)) is not None:
        raise Refused(f"{WHY[first[1]]}: {USE_DOCKER}")
    caches: list[str] = []
    binds: list[tuple[Word, str]] = []
    for mount in instruction.mounts:
        options = {name: value for name, _, value in (part.partition("=") for part in mount.split(","))}
        target = options.get("target") or options.get("dst") or options.get("destination") or ""
        path = _absolute(state.workdir, expand(target, state.variables))
        match options.get("type", "bind"):
            case "cache" | "tmpfs":
                caches.append(path)
            case "bind" if "from" not in options:
                source = options.get("source") or options.get("src") or "."
                binds.append((Word(expand(source, state.variables)), path))
            case kind:
                what = f"{kind},from" if kind == "bind" else kind
                raise Refused(f"RUN --mount=type={what} needs a container: {USE_DOCKER}")
    network = instruction.flags.get("network", "default") != "none"
    return Shell(words, state.workdir, env, network, tuple(caches), tuple(binds))


def _declarations(value: str, variables: Mapping[str, str]) -> list[tuple[str, str | None]]:
    found: list[tuple[str, str | None]] = []
    for word in split(value, variables):
        name, equals, default = word.text.partition("=")
        if not NAME.fullmatch(name):
            raise Refused(f"{name or word.text!r} is no name of a variable")
        found.append((name, default if equals else None))
    return found


def _pairs(value: str, variables: Mapping[str, str]) -> dict[str, str]:
    first = value.split(None, 1)
    if "=" not in first[0]:  # the old form: one name, the rest is the value
        if len(first) < 2:
            raise Refused(f"{first[0]} has no value; write {first[0]}=value")
        return {first[0]: expand(first[1], variables)}
    pairs = {}
    for word in split(value, variables):
        name, equals, text = word.text.partition("=")
        if not equals or not name:
            raise Refused(f"{word.text!r} is not name=value")
        pairs[name] = text
    return pairs


def _copy(instruction: Instruction, state: _State) -> Copy | Note:
    flags = dict(instruction.flags)
    for name in ("chown", "link", "parents"):
        if name == "parents" and name in flags:
            raise Refused("--parents is not understood; name the destination of each folder")
        flags.pop(name, None)
    if UV.fullmatch(flags.get("from", "")):
        return Note("uv of this machine, or the one that pip installs, stands in for that image's")
    if "from" in flags:
        raise Refused(f"--from takes files of another image, which needs a container: {USE_DOCKER}")
    mode = _mode(flags.pop("chmod", None))
    if flags:
        raise Refused(f"--{next(iter(flags))} is not understood")
    if instruction.exec_form is not None:
        words = [Word(expand(text, state.variables)) for text in instruction.exec_form]
    else:
        words = split(instruction.value, state.variables)
    if len(words) < 2:
        raise Refused("it takes at least one source and a destination")
    *sources, destination = words
    for source in sources:
        if re.match(r"([a-z][a-z0-9+.-]*:)?//|git@", source.text):
            raise Refused("sources are files of the build context, not URLs; put the file into the bundle")
        if instruction.keyword == "ADD" and ARCHIVE.search(source.text):
            raise Refused(f"ADD would unpack {source.text}; unpack it in the bundle, or use COPY")
    target = _absolute(state.workdir, destination.text)
    is_folder = destination.text.endswith(("/", "/.")) or destination.text in (".", "..")
    return Copy(tuple(sources), target.rstrip("/") + "/" if is_folder or len(sources) > 1 else target, mode)


def _mode(text: str | None) -> int | None:
    if text is None:
        return None
    if not re.fullmatch(r"[0-7]{3,4}", text):
        raise Refused(f"--chmod={text} is no octal mode such as 755")
    return int(text, 8)


def _absolute(workdir: str, path: str) -> str:
    """Docker's reading of a path: relative to WORKDIR; ".." stops at the image's root."""
    if not path:
        raise Refused("the path is empty")
    return "/" + posixpath.normpath(posixpath.join(workdir, path)).lstrip("/")
