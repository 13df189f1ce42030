"""What a user types, checked before anything is packed or sent: a grid's file, parameters, amounts.

The backend checks all of it again; here it is said with the file's name and without starting anything.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kaos_cli.errors import KaosError
from kaos_formats.arguments import check_arguments
from kaos_formats.build_secrets import check_build_secrets
from kaos_formats.errors import InvalidHyper, InvalidResources
from kaos_formats.grids import EXAMPLE, axes_of, parse_grid
from kaos_formats.quantity import check_cpu, check_gpus, parse_memory

MAX_GRID_BYTES = 8 << 20


def read_grid(path: Path) -> dict[str, Any]:
    """The grid in a JSON file. Raises KaosError (invalid_hyper) naming the file and what is wrong in it."""
    try:
        if path.stat().st_size > MAX_GRID_BYTES:
            raise _wrong(path, f"has more than {MAX_GRID_BYTES:,} bytes", EXAMPLE)
        text = path.read_bytes().decode("utf-8")
    except UnicodeDecodeError as error:
        raise _wrong(path, "is no UTF-8 text", "save it as UTF-8") from error
    except OSError as error:
        raise _wrong(path, f"cannot be read: {error.strerror}", "-h takes the path of a JSON file") from error
    if not text.strip():
        raise _wrong(path, "is empty", EXAMPLE)
    try:
        raw = json.loads(text, object_pairs_hook=_no_duplicates, parse_constant=_no_constant)
    except json.JSONDecodeError as error:
        raise _wrong(
            path, f"is no valid JSON: line {error.lineno}, column {error.colno}: {error.msg}", EXAMPLE
        ) from error
    except RecursionError as error:
        raise _wrong(path, "is nested too deep", EXAMPLE) from error
    except (_DuplicateError, ValueError) as error:
        raise _wrong(path, str(error)) from error
    try:
        parse_grid(raw)
    except InvalidHyper as error:
        raise KaosError(error.code, f"{path}: {error.message}", hint=error.hint, path=str(path)) from error
    return dict(raw)


class _DuplicateError(Exception):
    pass


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for i, name in enumerate(names) if name in names[:i])
        raise _DuplicateError(f"names {twice!r} twice")
    return made


def _no_constant(text: str) -> Any:
    raise ValueError(f"has {text}, which JSON cannot hold")


def parse_settings(given: Sequence[str]) -> dict[str, Any]:
    """``NAME=VALUE`` pairs; a value that is no JSON is a text. Raises KaosError (usage, invalid_hyper)."""
    params: dict[str, Any] = {}
    for one in given:
        name, equals, value = one.partition("=")
        if not name or not equals:
            raise KaosError("usage", f"--set {one!r} is no NAME=VALUE", hint="for example --set lr=0.1")
        if name in params:
            raise KaosError("usage", f"--set names {name!r} twice", hint="give it one value")
        try:
            params[name] = json.loads(value, parse_constant=_no_constant)
        except ValueError:
            params[name] = value
        except RecursionError as error:
            raise KaosError("usage", f"--set {name} is nested too deep", hint="give a scalar") from error
    try:
        axes_of(params)
    except InvalidHyper as error:
        raise KaosError(error.code, f"--set: {error.message}", hint=error.hint) from error
    return params


def _wrong(path: Path, what: str, hint: str = "") -> KaosError:
    return KaosError("invalid_hyper", f"{path} {what}", hint=hint, path=str(path))


def build_arguments(given: Sequence[str], env: Mapping[str, str]) -> dict[str, str]:
    """The build arguments in ``NAME=VALUE``, or ``NAME`` as it is in ``env``. Raises KaosError."""
    found: dict[str, str] = {}
    for text in given:
        name, equals, value = text.partition("=")
        if not equals and name not in env:
            raise KaosError(
                "invalid_resources",
                f"build argument {name!r} has no value here: it is not in the environment",
                hint="--build-arg NAME=VALUE",
            )
        found[name] = value if equals else env[name]
    try:
        check_arguments(found)
    except InvalidResources as error:
        raise KaosError.of(error) from error
    return found


def build_secrets(given: Sequence[str], env: Mapping[str, str]) -> dict[str, str]:
    """The build secrets that ``NAME`` or ``id=NAME[,env=VARIABLE|,src=FILE]`` say. Raises KaosError."""
    found: dict[str, str] = {}
    for text in given:
        fields = dict(part.partition("=")[::2] for part in text.split(",")) if "=" in text else {"id": text}
        name, path = fields.get("id", ""), fields.get("src") or fields.get("source")
        if not name or fields.keys() - {"id", "env", "src", "source", "type"} or (path and "env" in fields):
            raise KaosError(
                "invalid_resources",
                f"--secret {fields.get('id') or '…'} is not NAME, id=NAME,env=VARIABLE or id=NAME,src=FILE",
                hint="a value is never typed: it is the environment's, or that of a file",
            )
        if path:
            found[name] = _content(name, Path(path))
        elif (variable := fields.get("env") or name) in env:
            found[name] = env[variable]
        else:
            raise KaosError(
                "invalid_resources",
                f"secret {name} has no value here: {variable} is not in the environment",
                hint=f"--secret id={name},env=VARIABLE or --secret id={name},src=FILE",
            )
    try:
        check_build_secrets(found)
    except InvalidResources as error:
        raise KaosError.of(error) from error
    return found


def _content(name: str, path: Path) -> str:
    try:
        return path.expanduser().read_text("utf-8")
    except UnicodeDecodeError:
        raise KaosError(
            "invalid_resources",
            f"{path}, of secret {name}, is no UTF-8 text",
            hint="encode it, in base64",
        ) from None
    except OSError as error:
        raise KaosError("invalid_resources", f"{path}, of secret {name}: {error.strerror}") from error


def check_resources(
    parallelism: int | None, cpu: float | None, memory: str | None, gpu: int | None, tries: int | None
) -> None:
    """Raise KaosError (invalid_resources) for an amount that no machine could grant."""
    if tries is not None and tries < 1:
        raise KaosError(
            "invalid_resources", f"tries is {tries}", hint="--tries takes a number from 1 (no second try) up"
        )
    if parallelism is not None and parallelism < 1:
        raise KaosError(
            "invalid_resources", f"parallelism is {parallelism}", hint="-p takes a number from 1 up"
        )
    try:
        if cpu is not None:
            check_cpu(cpu)
        if memory is not None:
            parse_memory(memory)
        if gpu is not None:
            check_gpus(gpu)
    except InvalidResources as error:
        raise KaosError.of(error) from error
