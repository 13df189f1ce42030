"""Pachyderm's globs (those of ohmyglob with ``/`` as separator), turned into regular expressions.

`*` and `?` stop at a slash, `**` does not; `[…]` with ``!`` or ``^`` and POSIX classes; `{a,b}` alternatives;
`(a|b)` and `@(…)` exactly one, `*(…)` any number, `+(…)` one or more, `?(…)` at most one, `!(…)` anything
but. Parentheses capture, numbered from left to right.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Literal, NamedTuple

from kaos_backend.engine.errors import InvalidArgument
from kaos_backend.engine.store.model import FileEntry
from kaos_backend.engine.store.trees.tree import (
    DirRef,
    Load,
    Node,
    children,
    dir_entry,
    file_entry,
    find_dir,
    look_up,
    walk_node,
)

_SPECIAL = frozenset("*?[{\\(")
_POSIX = {
    "alnum": "a-zA-Z0-9",
    "alpha": "a-zA-Z",
    "ascii": r"\x00-\x7f",
    "blank": r" \t",
    "cntrl": r"\x00-\x1f\x7f",
    "digit": "0-9",
    "graph": "!-~",
    "lower": "a-z",
    "print": " -~",
    "punct": r"!-/:-@\[-`{-~",
    "space": r"\s",
    "upper": "A-Z",
    "word": r"\w",
    "xdigit": "0-9a-fA-F",
}


class _Token(NamedTuple):
    """A part of a pattern: a piece of regular expression, or alternatives (captured unless braces)."""

    regex: str
    mark: Literal["", "{", "@", "*", "+", "?", "!"] = ""
    choices: tuple[tuple[_Token, ...], ...] = ()


class Glob(NamedTuple):
    """A compiled pattern.

    Attributes:
        pattern: the cleaned pattern (leading slash, no trailing one).
        regex: matches whole paths without trailing slash, and ``/`` for the root; groups are the captures.
        prefix: names of the directories that every match lies below.
        segments: one expression per path element after the prefix, when the pattern can be matched element by
            element; None when it can not.
    """

    pattern: str
    regex: re.Pattern[str]
    prefix: tuple[str, ...]
    segments: tuple[re.Pattern[str], ...] | None


def clean(pattern: str) -> str:
    """A leading slash, no trailing one (but for the root), no double ones."""
    cleaned = re.sub("/{2,}", "/", "/" + pattern)
    return cleaned if cleaned == "/" else cleaned.rstrip("/")


@lru_cache(maxsize=512)
def compile_glob(pattern: str) -> Glob:
    """Compile a pattern.

    Raises:
        InvalidArgument: brackets, braces or parentheses do not close.
    """
    pattern = clean(pattern)
    regex = _regex(pattern, pattern)
    elements = _elements(pattern[1:])
    if elements is None:
        return Glob(pattern, regex, (), None)
    prefix: list[str] = []
    for element in elements[:-1]:
        if not _is_literal(element):
            break
        prefix.append(element)
    rest = elements[len(prefix) :]
    whole = any("**" in element for element in rest)
    segments = None if whole else tuple(_regex(element, pattern) for element in rest)
    return Glob(pattern, regex, tuple(prefix), segments)


def match_glob(pattern: str, path: str) -> re.Match[str] | None:
    """Match a file or directory path (trailing slash or not) as a whole; the groups are the captures.

    Only the pattern ``/`` matches the root.
    """
    glob = compile_glob(pattern)
    if path == "/" and glob.pattern != "/":
        return None
    return glob.regex.fullmatch(path if path == "/" else path.rstrip("/"))


def glob_tree(load: Load, root: bytes | None, pattern: str) -> Iterator[FileEntry]:
    """The files and directories of a tree that match, in the order of their paths.

    Only the pattern ``/`` matches the root.
    """
    glob = compile_glob(pattern)
    if _is_literal(glob.pattern):
        yield from look_up(load, root, glob.pattern)
        return
    node = find_dir(load, root, list(glob.prefix))
    if node is None:
        return
    prefix = "/" + "".join(f"{name}/" for name in glob.prefix)
    if glob.segments is not None:
        yield from _descend(load, node, prefix, glob.segments)
        return
    matches = glob.regex.fullmatch
    for entry in walk_node(load, node, prefix):
        if matches(entry.path.rstrip("/")):
            yield entry


def _descend(
    load: Load, node: Node, prefix: str, segments: tuple[re.Pattern[str], ...]
) -> Iterator[FileEntry]:
    matches, deeper = segments[0].fullmatch, segments[1:]
    for ref in children(node):
        if not matches(ref.name):
            continue
        if isinstance(ref, DirRef):
            if deeper:
                yield from _descend(load, load(ref.key), f"{prefix}{ref.name}/", deeper)
            else:
                yield dir_entry(prefix, ref)
        elif not deeper:
            yield file_entry(prefix, ref)


def _is_literal(element: str) -> bool:
    return not any(character in _SPECIAL for character in element)


def _elements(pattern: str) -> list[str] | None:
    """The pattern cut at its slashes; None when a slash lies inside brackets, braces or parentheses."""
    elements, depth, start, i = [], 0, 0, 0
    while i < len(pattern):
        character = pattern[i]
        if character == "\\":
            i += 1
        elif character in "([{":
            depth += 1
        elif character in ")]}":
            depth -= 1
        elif character == "/":
            if depth > 0:
                return None
            elements.append(pattern[start:i])
            start = i + 1
        i += 1
    return [*elements, pattern[start:]]


def _regex(text: str, pattern: str) -> re.Pattern[str]:
    tokens, end = _parse(text, 0, "", pattern)
    if end != len(text):
        raise _unbalanced(pattern)
    try:
        return re.compile(_emit(tokens, "", capture=True), re.DOTALL)
    except re.error as error:
        raise InvalidArgument(f"glob pattern {pattern!r} is invalid: {error}") from error


def _parse(text: str, i: int, closers: str, pattern: str) -> tuple[tuple[_Token, ...], int]:
    """The tokens from `i` up to one of `closers` (not consumed) or the end."""
    tokens: list[_Token] = []
    while i < len(text):
        character = text[i]
        if character in closers:
            break
        following = text[i + 1 : i + 2]
        if character in "*+?@!" and following == "(":
            choices, i = _parse_choices(text, i + 2, "|", ")", pattern)
            tokens.append(_Token("", character, choices))  # type: ignore[arg-type]
        elif character == "(":
            choices, i = _parse_choices(text, i + 1, "|", ")", pattern)
            tokens.append(_Token("", "@", choices))
        elif character == "{":
            choices, i = _parse_choices(text, i + 1, ",", "}", pattern)
            tokens.append(_Token("", "{", choices))
        elif character == "*" and following == "*":
            tokens.append(_Token(".*"))
            i += 2
        elif character == "*":
            tokens.append(_Token("[^/]*"))
            i += 1
        elif character == "?":
            tokens.append(_Token("[^/]"))
            i += 1
        elif character == "[":
            regex, i = _parse_class(text, i + 1, pattern)
            tokens.append(_Token(regex))
        elif character == "\\" and following:
            tokens.append(_Token(re.escape(following)))
            i += 2
        else:
            tokens.append(_Token(re.escape(character)))
            i += 1
    return tuple(tokens), i


def _parse_choices(
    text: str, i: int, separator: str, closer: str, pattern: str
) -> tuple[tuple[tuple[_Token, ...], ...], int]:
    choices = []
    while True:
        tokens, i = _parse(text, i, separator + closer, pattern)
        choices.append(tokens)
        if i >= len(text):
            raise _unbalanced(pattern)
        i += 1
        if text[i - 1] == closer:
            return tuple(choices), i


def _parse_class(text: str, i: int, pattern: str) -> tuple[str, int]:
    """A bracket expression whose ``[`` lies before `i`."""
    negated = text[i : i + 1] in ("!", "^")
    i += negated
    parts: list[str] = []
    while i < len(text) and (text[i] != "]" or not parts):
        posix = re.compile(r"\[:(\w+):\]").match(text, i)
        if posix is not None and posix[1] in _POSIX:
            parts.append(_POSIX[posix[1]])
            i = posix.end()
            continue
        if text[i] == "\\" and i + 1 < len(text):
            i += 1
            parts.append(re.escape(text[i]))
        else:
            parts.append("-" if text[i] == "-" and parts else re.escape(text[i]))
        i += 1
    if i >= len(text):
        raise _unbalanced(pattern)
    return f"[{'^/' if negated else ''}{''.join(parts)}]", i + 1


def _emit(tokens: tuple[_Token, ...], rest: str, capture: bool) -> str:
    """A regular expression for `tokens`, which `rest` (one without groups) follows."""
    out: list[str] = []
    for position, token in enumerate(tokens):
        if not token.mark:
            out.append(token.regex)
            continue
        after = _emit(tokens[position + 1 :], rest, capture=False) + rest
        body = "|".join(_emit(choice, after, capture) for choice in token.choices)
        if token.mark == "{":
            out.append(f"(?:{body})")
            continue
        opening = "(" if capture else "(?:"
        if token.mark == "!":
            # Not one of the choices followed by what comes next; inner groups never take part in a match.
            plain = "|".join(_emit(choice, after, capture=False) for choice in token.choices)
            groups = "" if not capture else "".join("()?" for _ in range(_count_groups(token.choices)))
            out.append(f"{opening}(?!(?:{plain}){after}$)[^/]*){groups}")
        elif token.mark == "@":
            out.append(f"{opening}{body})")
        else:
            out.append(f"{opening}(?:{body}){token.mark})")
    return "".join(out)


def _count_groups(choices: tuple[tuple[_Token, ...], ...]) -> int:
    return sum(
        (token.mark not in ("", "{")) + _count_groups(token.choices) for choice in choices for token in choice
    )


def _unbalanced(pattern: str) -> InvalidArgument:
    return InvalidArgument(
        f"glob pattern {pattern!r} is invalid: a bracket, brace or parenthesis does not close"
    )
