"""Which command lines fill an environment, beside pip's: those of uv, Poetry and conda. Pure.

uv and Poetry are themselves carried out then; what conda is asked for, pip installs (`kaos_formats.conda`).
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

from kaos_pipelines.build import pip
from kaos_pipelines.build.errors import Refused
from kaos_pipelines.build.pip import Argument, PipCommand

CONDA = frozenset(("conda", "mamba", "micromamba"))
TOOLS = frozenset(("pip", "uv", "poetry")) | CONDA
# What a project's locked dependencies depend on.
LOCKS = ("pyproject.toml", "uv.lock", "uv.toml", "poetry.lock", "poetry.toml", ".python-version")
# And what else an editable installation of it does.
METADATA = ("setup.py", "setup.cfg", "MANIFEST.in")
_NOTED = frozenset(
    ("activate", "clean", "config", "deactivate", "info", "init", "list", "shell", "tos", "update")
)
_UV_VALUED = frozenset(
    [
        *("--link-mode", "--index-strategy", "--resolution", "--prerelease", "--exclude-newer", "--index"),
        *("--default-index", "--torch-backend", "--color", "--config-file", "--concurrent-downloads"),
    ]
)
_UV_SWITCHES = frozenset(
    [
        *("--no-cache", "-n", "--compile-bytecode", "--no-sources", "--strict", "--reinstall", "--exact"),
        *("--no-build", "--offline", "--refresh", "--no-progress", "--no-config", "--native-tls"),
        *("--require-hashes", "--no-verify-hashes", "--verify-hashes", "--inexact"),
    ]
)
_POETRY_ELSEWHERE = frozenset(("--dry-run", "--sync", "--remove-untracked"))


def parse(
    tool: str, words: Sequence[str], cwd: str, env: Mapping[str, str], *, strict: bool = True
) -> PipCommand | None:
    """What `tool` is asked to do to the environment; None for nothing. Raises Refused.

    `strict`: refuse what changes something else, or takes a sandbox.
    """
    if tool == "uv":
        return _uv(words, cwd, env, strict)
    if tool == "poetry":
        return _poetry(words, cwd, env, strict)
    if tool in CONDA:
        return _conda(words, cwd, env)
    return pip.parse(words, cwd, env, strict=strict)


def lock_files(text_of: Callable[[str], str | None]) -> Iterator[str]:
    """The files and folders, relative to a project's, that its locked dependencies are read from."""
    yield from LOCKS
    for name in ("uv.lock", "poetry.lock"):
        text = text_of(name) or ""
        found = re.findall(r'source = \{ (?:editable|directory|path|virtual|registry) = "([^"]+)"', text)
        found += re.findall(r'type = "(?:directory|file)"\s+url = "([^"]+)"', text)
        yield from (path for path in dict.fromkeys(found) if path != "." and "://" not in path)


def _uv(words: Sequence[str], cwd: str, env: Mapping[str, str], strict: bool) -> PipCommand | None:
    match list(words):
        case ["pip", ("install" | "uninstall" | "sync") as verb, *rest]:
            if strict and verb == "sync":
                raise Refused("uv pip sync takes bubblewrap here; use uv pip install -r")
            if strict:
                return pip.parse([verb, *(word for word in rest if word not in _UV_SWITCHES)], cwd, env)
            if verb == "sync":
                rest = [part for word in rest for part in (("-r", word) if word[:1] != "-" else (word,))]
            arguments = tuple(pip.arguments(rest, strict=False, valued=_UV_VALUED, switches=_UV_SWITCHES))
            if verb == "sync":
                arguments = tuple(replace(one, text=one.path or one.text, prefix="") for one in arguments)
            return PipCommand(f"uv pip {verb}", arguments, cwd, dict(env))
        case ["sync", *rest]:
            return _project("uv sync", rest, cwd, env, strict, without=("--no-install-project",))
    if strict:
        raise Refused("of uv, sync and pip install are understood here")
    return None


def _poetry(words: Sequence[str], cwd: str, env: Mapping[str, str], strict: bool) -> PipCommand | None:
    rest = [word for word in words if word not in ("-n", "--no-interaction", "-q", "-v", "-vv", "-vvv")]
    match rest:
        case ["install" | "sync", *options]:
            options = [word for word in options if word not in _POETRY_ELSEWHERE]
            return _project("poetry install", options, cwd, env, strict, without=("--no-root",))
        case ["config" | "--version" | "check" | "show" | "env", *_]:
            return None
    if strict:
        raise Refused("of poetry, install is understood here")
    return None


def _project(
    verb: str, options: list[str], cwd: str, env: Mapping[str, str], strict: bool, without: tuple[str, ...]
) -> PipCommand:
    """The installation of what a project's lock file says, and of the project itself unless `without`."""
    folder = cwd
    for option in ("--project", "--directory", "-C", "-P"):
        if option in options[:-1]:
            folder = posixpath.join(cwd, options[options.index(option) + 1])
    alone = any(word in options for word in without)
    if strict and not alone:
        raise Refused(
            f"{verb} would tie the environment to a folder that every worker has its own copy of; "
            f"add {without[0]} and set PYTHONPATH to it, or install bubblewrap"
        )
    kind = "lock" if alone else "tree" if "--no-editable" in options else "project"
    arguments = [Argument(word) for word in options]
    return PipCommand(verb, (*arguments, Argument("", folder, kind)), cwd, dict(env))


def _conda(words: Sequence[str], cwd: str, env: Mapping[str, str]) -> PipCommand | None:
    match [word for word in words if word not in ("-y", "--yes", "-q", "--quiet")]:
        case ["env", "create" | "update", *rest] | ["create" | "install" | "update", *rest] if file := _value(
            rest, ("-f", "--file")
        ):
            return PipCommand("install", (Argument(file, file, "conda"),), cwd, dict(env))
        case ["env", "create" | "update", *_]:
            file = "environment.yml"
            return PipCommand("install", (Argument(file, file, "conda"),), cwd, dict(env))
        case ["create" | "install", *rest]:
            specs = _specs(rest)
            return PipCommand("install", (Argument("\n".join(specs), None, "conda"),), cwd, dict(env))
        case [word, *_] if word in _NOTED or word.startswith("-"):
            return None
    raise Refused("of conda, env create, install and run are understood here")


def conda_run(words: Sequence[str]) -> list[str] | None:
    """The command of `conda run -n name command …`; None for anything else."""
    if list(words[:1]) != ["run"]:
        return None
    rest = list(words[1:])
    while rest and rest[0].startswith("-"):
        option = rest.pop(0)
        if option in ("-n", "--name", "-p", "--prefix", "--cwd") and rest:
            rest.pop(0)
    return rest


def _value(words: Sequence[str], options: Sequence[str]) -> str | None:
    for number, word in enumerate(words):
        if word in options and number + 1 < len(words):
            return words[number + 1]
        if word.startswith("--file="):
            return word.removeprefix("--file=")
    return None


def _specs(words: Sequence[str]) -> list[str]:
    specs: list[str] = []
    queue = list(words)
    while queue:
        word = queue.pop(0)
        if word in ("-c", "--channel", "-n", "--name", "-p", "--prefix"):
            queue[:1] = []
        elif not word.startswith("-"):
            specs.append(word)
    if not specs:
        raise Refused("conda install names nothing to install")
    return specs
