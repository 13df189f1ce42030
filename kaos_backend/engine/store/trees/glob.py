"""Which files and directories of a tree a glob pattern matches."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from functools import lru_cache
from typing import NamedTuple

from kaos_backend.engine.store.model import FileEntry
from kaos_backend.engine.store.trees.match import Matcher, matcher
from kaos_backend.engine.store.trees.nodes import DirRef, FileRef, Load, Node
from kaos_backend.engine.store.trees.pattern import clean, elements, is_literal
from kaos_backend.engine.store.trees.tree import children, dir_entry, file_entry, find_dir, look_up, walk_node


class Glob(NamedTuple):
    """A compiled pattern.

    Attributes:
        pattern: the cleaned pattern (leading slash, no trailing one).
        match: matches whole paths without trailing slash, and ``/`` for the root.
        prefix: names of the directories that every match lies below.
        segments: a matcher per path element after the prefix, as far as the pattern can be matched element by
            element.
        deep: what follows the segments matches over any number of elements.
    """

    pattern: str
    match: Matcher
    prefix: tuple[str, ...]
    segments: tuple[Matcher, ...]
    deep: bool


@lru_cache(maxsize=512)
def compile_glob(pattern: str) -> Glob:
    """Compile a pattern.

    Raises:
        InvalidArgument: brackets, braces or parentheses do not close, or the pattern is too long or too deep.
    """
    pattern = clean(pattern)
    match = matcher(pattern)
    parts = elements(pattern[1:])
    if parts is None:
        return Glob(pattern, match, (), (), deep=True)
    prefix: list[str] = []
    for part in parts[:-1]:
        if not is_literal(part):
            break
        prefix.append(part)
    rest = parts[len(prefix) :]
    plain = list(itertools.takewhile(lambda part: "**" not in part, rest))
    segments = tuple(matcher(part, pattern) for part in plain)
    return Glob(pattern, match, tuple(prefix), segments, deep=len(plain) < len(rest))


def match_glob(pattern: str, path: str) -> tuple[str, ...] | None:
    """The captures of a file or directory path (trailing slash or not) that matches as a whole, else None.

    Only the pattern ``/`` matches the root.
    """
    glob = compile_glob(pattern)
    if path == "/" and glob.pattern != "/":
        return None
    return glob.match(path if path == "/" else path.rstrip("/"))


def glob_tree(load: Load, root: bytes | None, pattern: str) -> Iterator[FileEntry]:
    """The files and directories of a tree that match, in the order of their paths.

    Only the pattern ``/`` matches the root.
    """
    glob = compile_glob(pattern)
    if is_literal(glob.pattern):
        yield from look_up(load, root, glob.pattern)
        return
    node = find_dir(load, root, list(glob.prefix))
    if node is None:
        return
    prefix = "/" + "".join(f"{name}/" for name in glob.prefix)
    if not glob.segments:
        yield from _walk(load, node, prefix, glob.match)
        return
    for above, ref in _descend(load, node, prefix, glob.segments):
        if not glob.deep:
            yield dir_entry(above, ref) if isinstance(ref, DirRef) else file_entry(above, ref)
        elif isinstance(ref, DirRef):
            yield from _walk(load, load(ref.key), f"{above}{ref.name}/", glob.match)


def _walk(load: Load, node: Node, prefix: str, match: Matcher) -> Iterator[FileEntry]:
    """What lies below a directory at any depth, by its whole path."""
    for entry in walk_node(load, node, prefix):
        if match(entry.path.rstrip("/")) is not None:
            yield entry


def _descend(
    load: Load, node: Node, prefix: str, segments: tuple[Matcher, ...]
) -> Iterator[tuple[str, DirRef | FileRef]]:
    """What lies so deep below a directory, each element of its path by a matcher of its own."""
    last = len(segments) - 1
    stack = [(prefix, children(node))]
    while stack:
        prefix, refs = stack[-1]
        depth = len(stack) - 1
        for ref in refs:
            if segments[depth](ref.name) is None:
                continue
            if depth == last:
                yield prefix, ref
            elif isinstance(ref, DirRef):
                stack.append((f"{prefix}{ref.name}/", children(load(ref.key))))
                break
        else:
            stack.pop()
