"""Matching a text against a pattern, in a time that grows with both lengths only, whatever a hostile one is.

Python's `re` goes back and tries again, which for some patterns takes longer than anybody lives; it is used
where it can not. For the rest there is a search that enters no state twice at the same place of the text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from kaos_backend.engine.errors import InvalidArgument
from kaos_backend.engine.store.trees.pattern import (
    Group,
    One,
    Run,
    Text,
    Token,
    Tokens,
    elements,
    is_literal,
    parse,
)

_MAX_STATES = 2_000
# Runs of one element that `re` may try in every combination.
_MAX_RUNS = 3

Matcher: TypeAlias = Callable[[str], tuple[str, ...] | None]
"""The captures (empty for one that took no part) of a text that matches as a whole, else None."""


def matcher(pattern: str, whole: str | None = None) -> Matcher:
    """A matcher for a pattern or an element of one (`whole` is then the pattern, which errors name).

    Raises:
        InvalidArgument: the pattern is none, or is too long.
    """
    if is_literal(pattern):
        return lambda text: () if text == pattern else None
    tokens, groups = parse(pattern, whole)
    regex = _plain(pattern)
    if regex is None:
        return _Program(tokens, groups, pattern if whole is None else whole).match
    fullmatch = re.compile(regex, re.DOTALL).fullmatch

    def match(text: str) -> tuple[str, ...] | None:
        found = fullmatch(text)
        return None if found is None else found.groups("")

    return match


# Where `re` is safe


def _plain(pattern: str) -> str | None:
    """A regular expression that does not go back for long, if there is one.

    Each element is matched for good (atomically) before the next is tried, which loses nothing: however it is
    matched, it ends at the same slash. One ``**`` may go before elements like that.
    """
    parts = elements(pattern)
    if parts is None:
        return None
    found: list[str] = []
    deep = 0
    for part in parts:
        tokens, _ = parse(part, pattern)
        if Run(slash=True) in tokens:
            deep += 1
            rest = [token for token in tokens if token != Run(slash=True)]
            if deep > 1 or len(rest) < len(tokens) - 1 or not all(map(_is_fixed, rest)):
                return None
            found.append("".join(map(_regex, tokens)))
            continue
        element = _element(tokens)
        if element is None:
            return None
        found.append(f"(?>{element}(?=/|\\Z))")
    return "/".join(found)


def _element(tokens: Tokens) -> str | None:
    """A regular expression for tokens that match no slash, and that a name of 255 bytes keeps busy for
    milliseconds at the worst.
    """
    tries = _tries(tokens)
    if tries is None:
        return None
    if any(isinstance(token, Group) for token in tokens):
        runs, choices = tries
        return "".join(map(_regex, tokens)) if runs <= _MAX_RUNS and choices <= 1 else None
    # All but the last run end at the first place where what follows matches: later ones would do no better.
    pieces: list[list[str]] = [[]]
    for token in tokens:
        if isinstance(token, Run):
            pieces.append([])
        else:
            pieces[-1].append(_regex(token))
    first, *middle = map("".join, pieces)
    if not middle:
        return first
    last = middle.pop()
    return first + "".join(f"(?>[^/]*?{piece})" for piece in middle) + "[^/]*" + last


def _tries(tokens: Tokens) -> tuple[int, int] | None:
    """(runs, choices between fixed texts) of tokens that match no slash and repeat nothing, else None."""
    runs = choices = 0
    for token in tokens:
        if isinstance(token, Run):
            if token.slash:
                return None
            runs += 1
        elif not isinstance(token, Group):
            if not _is_fixed(token):
                return None
        elif token.mark in "{@" and len(token.choices) == 1:
            inner = _tries(token.choices[0])
            if inner is None:
                return None
            runs += inner[0]
            choices += inner[1]
        elif token.mark in "{@?" and all(_is_fixed(one) for choice in token.choices for one in choice):
            choices += 1
        else:
            return None
    return runs, choices


def _is_fixed(token: Token) -> bool:
    """Whether a token matches so and so many characters, none of them a slash."""
    if isinstance(token, Text):
        return "/" not in token.text
    return isinstance(token, One) and re.fullmatch(token.regex, "/") is None


def _regex(token: Token) -> str:
    if isinstance(token, Text):
        return re.escape(token.text)
    if isinstance(token, One):
        return token.regex
    if isinstance(token, Run):
        return ".*" if token.slash else "[^/]*"
    body = "|".join("".join(map(_regex, choice)) for choice in token.choices)
    if token.mark == "{":
        return f"(?:{body})"
    return f"((?:{body})?)" if token.mark == "?" else f"({body})"


# The search


@dataclass(slots=True)
class _State:
    """What to do at a place of the text: move on by `width` characters if `fits`, then go to one of `then`.

    Attributes:
        fits: whether the text has here what the state wants; None: it wants nothing.
        again: it may be taken again and again (a run).
        unless: no match if the rest of the text could be matched from this state on.
        save: note the place: 2n is where capture n begins, 2n + 1 where it ends.
    """

    then: tuple[int, ...]
    fits: Callable[[str, int], bool] | None = None
    width: int = 0
    again: bool = False
    unless: int | None = None
    save: int | None = None


_Place: TypeAlias = tuple[int, int]
"""(state, index into the text)."""


class _Program:
    """A pattern as states, each made before the one that leads to it. State 0 is the end."""

    def __init__(self, tokens: Tokens, groups: int, pattern: str) -> None:
        self._pattern = pattern
        self.states: list[_State] = [_State(())]
        self.groups = groups
        self.start = self._sequence(tokens, 0, capture=True)

    def match(self, text: str) -> tuple[str, ...] | None:
        path = _Search(self.states, text).path((self.start, 0))
        if path is None:
            return None
        places: dict[int, int] = {}
        for state, at in path:
            save = self.states[state].save
            if save is not None:
                places[save] = at
        numbers = range(1, self.groups + 1)
        return tuple(text[places[2 * n] : places[2 * n + 1]] if 2 * n + 1 in places else "" for n in numbers)

    def _add(self, state: _State) -> int:
        self.states.append(state)
        if len(self.states) > _MAX_STATES:
            raise InvalidArgument(f"glob pattern {self._pattern[:60]!r}… is too long")
        return len(self.states) - 1

    def _sequence(self, tokens: Tokens, then: int, capture: bool) -> int:
        for token in reversed(tokens):
            then = self._token(token, then, capture)
        return then

    def _token(self, token: Token, then: int, capture: bool) -> int:
        if isinstance(token, Text):
            wanted = token.text
            return self._add(_State((then,), lambda text, at: text.startswith(wanted, at), len(wanted)))
        if isinstance(token, One):
            one = re.compile(token.regex, re.DOTALL)
            return self._add(_State((then,), lambda text, at: one.match(text, at) is not None, 1))
        if isinstance(token, Run):
            return self._run(token.slash, then)
        return self._group(token, then, capture)

    def _run(self, slash: bool, then: int) -> int:
        def fits(text: str, at: int) -> bool:
            return at < len(text) and (slash or text[at] != "/")

        return self._add(_State((then,), fits, 1, again=True))

    def _group(self, group: Group, then: int, capture: bool) -> int:
        captured = capture and group.number > 0
        end = self._add(_State((then,), save=2 * group.number + 1)) if captured else then

        def choices(after: int, capture: bool) -> tuple[int, ...]:
            return tuple(self._sequence(choice, after, capture) for choice in group.choices)

        if group.mark == "!":
            refused = self._add(_State(choices(then, False)))
            start = self._add(_State((self._run(False, end),), unless=refused))
        elif group.mark in "*+":
            loop = self._add(_State(()))
            body = choices(loop, capture)
            self.states[loop].then = (*body, end)
            start = loop if group.mark == "*" else self._add(_State(body))
        else:
            start = self._add(_State((*choices(end, capture), *((end,) if group.mark == "?" else ()))))
        return self._add(_State((start,), save=2 * group.number)) if captured else start


class _Search:
    """One text against one program, depth first. A place from which there is no match is not tried again."""

    def __init__(self, states: Sequence[_State], text: str) -> None:
        self._states = states
        self._text = text
        self._dead: set[_Place] = set()
        self._alive: set[_Place] = set()

    def path(self, start: _Place, any_end: bool = False) -> list[_Place] | None:
        """The places of the first match from `start` on, in the order of the pattern's alternatives.

        With `any_end` it may end where an earlier search has found that there is a match.
        """
        came_from: dict[_Place, _Place | None] = {}
        todo: list[tuple[_Place, _Place | None]] = [(start, None)]
        while todo:
            place, before = todo.pop()
            if place in came_from or place in self._dead:
                continue
            came_from[place] = before
            if place == (0, len(self._text)) or (any_end and place in self._alive):
                found = [place]
                while before is not None:
                    found.append(before)
                    before = came_from[before]
                return found[::-1]
            # The last one in is the first one tried.
            todo += [(place_after, place) for place_after in reversed(self._after(*place))]
        self._dead |= came_from.keys()
        return None

    def _after(self, number: int, at: int) -> list[_Place]:
        state = self._states[number]
        if state.unless is not None and self._reaches((state.unless, at)):
            return []
        if state.fits is None:
            return [(then, at) for then in state.then]
        fits = state.fits(self._text, at)
        if state.again:
            return [*([(number, at + 1)] if fits else []), *((then, at) for then in state.then)]
        return [(then, at + state.width) for then in state.then] if fits else []

    def _reaches(self, start: _Place) -> bool:
        if start in self._alive:
            return True
        path = self.path(start, any_end=True)
        self._alive.update(path or ())
        return path is not None
