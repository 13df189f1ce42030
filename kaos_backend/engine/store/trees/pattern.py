"""What Pachyderm's globs (those of ohmyglob with ``/`` as separator) are made of.

`*` and `?` stop at a slash, `**` does not; `[…]` with ``!`` or ``^`` and POSIX classes; `{a,b}` alternatives;
`(a|b)` and `@(…)` exactly one, `*(…)` any number, `+(…)` one or more, `?(…)` at most one, `!(…)` anything but
what, followed by the rest of the pattern, would match. Parentheses capture, numbered from left to right.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal, TypeAlias

from kaos_backend.engine.errors import InvalidArgument

_MAX_DEPTH = 32
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

Mark: TypeAlias = Literal["{", "@", "*", "+", "?", "!"]


@dataclass(frozen=True, slots=True)
class Text:
    """These characters."""

    text: str


@dataclass(frozen=True, slots=True)
class One:
    """One character that a regular expression, a bracket expression mostly, matches."""

    regex: str


@dataclass(frozen=True, slots=True)
class Run:
    """Any number of characters, slashes among them or not."""

    slash: bool


@dataclass(frozen=True, slots=True)
class Group:
    """Alternatives. `number` is that of the capture, from 1; 0 for braces, which do not capture."""

    mark: Mark
    choices: tuple[Tokens, ...]
    number: int


Token: TypeAlias = Text | One | Run | Group
Tokens: TypeAlias = tuple[Token, ...]


def clean(pattern: str) -> str:
    """A leading slash, no trailing one (but for the root), no double ones."""
    cleaned = re.sub("/{2,}", "/", "/" + pattern)
    return cleaned if cleaned == "/" else cleaned.rstrip("/")


def is_literal(pattern: str) -> bool:
    """Whether a pattern (or an element of one) matches nothing but itself."""
    return not any(character in _SPECIAL for character in pattern)


def elements(pattern: str) -> list[str] | None:
    """The pattern cut at its slashes; None when a slash lies inside brackets, braces or parentheses."""
    found, depth, start, i = [], 0, 0, 0
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
            found.append(pattern[start:i])
            start = i + 1
        i += 1
    return [*found, pattern[start:]]


def parse(text: str, pattern: str | None = None) -> tuple[Tokens, int]:
    """(tokens of `text`, how many captures it has). `pattern` is what errors name, if `text` is part of one.

    Raises:
        InvalidArgument: what opens does not close, is nested too deeply, or makes no sense.
    """
    parser = _Parser(text, text if pattern is None else pattern)
    tokens = parser.sequence("")
    if parser.at != len(text):
        raise parser.unbalanced()
    return tokens, parser.groups


class _Parser:
    def __init__(self, text: str, pattern: str) -> None:
        self.text = text
        self.pattern = pattern
        self.at = 0
        self.groups = 0
        self._depth = 0
        self._repeated = 0

    def sequence(self, closers: str) -> Tokens:
        """The tokens up to one of `closers` (not consumed) or the end."""
        tokens: list[Token] = []
        literal: list[str] = []

        def end_literal() -> None:
            if literal:
                tokens.append(Text("".join(literal)))
                literal.clear()

        while self.at < len(self.text) and self.text[self.at] not in closers:
            character = self.text[self.at]
            following = self.text[self.at + 1 : self.at + 2]
            special = character in "?*[{(" or (character in "+@!" and following == "(")
            if special:
                end_literal()
                tokens.append(self._token(character, following))
            elif character == "\\" and following:
                literal.append(following)
                self.at += 2
            else:
                literal.append(character)
                self.at += 1
        end_literal()
        return tuple(tokens)

    def _token(self, character: str, following: str) -> Token:
        if character in "*+?@!" and following == "(":
            self.at += 2
            return self._group(character, "|", ")")  # type: ignore[arg-type]
        self.at += 1
        if character == "(":
            return self._group("@", "|", ")")
        if character == "{":
            return self._group("{", ",", "}")
        if character == "[":
            return self._class()
        if character == "?":
            return One("[^/]")
        self.at += following == "*"
        return Run(slash=following == "*")

    def _group(self, mark: Mark, separator: str, closer: str) -> Group:
        number = 0
        if mark != "{":
            self.groups += 1
            number = self.groups
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise self._invalid(f"it is nested more than {_MAX_DEPTH} levels deep")
        if mark == "!" and self._repeated:
            raise self._invalid("!(…) inside *(…) or +(…) is not supported")
        self._repeated += mark in "*+"
        choices: list[Tokens] = []
        while True:
            choices.append(self.sequence(separator + closer))
            if self.at >= len(self.text):
                raise self.unbalanced()
            self.at += 1
            if self.text[self.at - 1] == closer:
                break
        self._repeated -= mark in "*+"
        self._depth -= 1
        return Group(mark, tuple(choices), number)

    def _class(self) -> One:
        """A bracket expression, from behind its ``[``."""
        text = self.text
        negated = text[self.at : self.at + 1] in ("!", "^")
        self.at += negated
        parts: list[str] = []
        while self.at < len(text) and (text[self.at] != "]" or not parts):
            posix = re.compile(r"\[:(\w+):\]").match(text, self.at)
            if posix is not None and posix[1] in _POSIX:
                parts.append(_POSIX[posix[1]])
                self.at = posix.end()
                continue
            if text[self.at] == "\\" and self.at + 1 < len(text):
                self.at += 1
                parts.append(re.escape(text[self.at]))
            else:
                parts.append("-" if text[self.at] == "-" and parts else re.escape(text[self.at]))
            self.at += 1
        if self.at >= len(text):
            raise self.unbalanced()
        self.at += 1
        regex = f"[{'^/' if negated else ''}{''.join(parts)}]"
        try:
            re.compile(regex)
        except re.error as error:
            raise self._invalid(str(error)) from error
        return One(regex)

    def unbalanced(self) -> InvalidArgument:
        return self._invalid("a bracket, brace or parenthesis does not close")

    def _invalid(self, why: str) -> InvalidArgument:
        return InvalidArgument(f"glob pattern {self.pattern!r} is invalid: {why}")
