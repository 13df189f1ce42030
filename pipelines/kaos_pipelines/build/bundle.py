"""A source bundle as a builder sees it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from kaos_formats.errors import InvalidBundle
from kaos_formats.shape import find_shape
from kaos_pipelines.build.context import Context, load_context, read_modes
from kaos_pipelines.build.errors import BuildError


@dataclass(frozen=True, slots=True)
class Bundle:
    """`dockerfile` is its text, `context` what its instructions can copy."""

    id: str
    dockerfile: str
    context: Context


def load_bundle(source: Path) -> Bundle:
    """The bundle in folder `source`, whose name is its id; its modes are in the sibling `<id>.tree`.

    Raises BuildError for what is no source bundle.
    """
    tree = source.with_name(source.name + ".tree")
    paths = [path.relative_to(source).as_posix() for path in source.rglob("*") if path.is_file()]
    try:
        shape = find_shape(paths)
    except InvalidBundle as error:
        raise BuildError(str(error)) from error
    context_root = source / shape.context
    ignore = context_root / ".dockerignore"
    own_ignore = source / f"{shape.dockerfile}.dockerignore"
    ignore_text = _read(own_ignore) if own_ignore.is_file() else _read(ignore) if ignore.is_file() else ""
    context = load_context(context_root, read_modes(tree, shape.context), ignore_text)
    return Bundle(source.name, _read(source / shape.dockerfile), context)


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except UnicodeDecodeError as error:
        raise BuildError(f"{path.name} is not UTF-8 text: {error}") from error
