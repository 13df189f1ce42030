"""Globs against a matcher that tries everything, in the order in which the pattern offers it."""

from __future__ import annotations

import re
from collections.abc import Callable

from hypothesis import example, given
from hypothesis import strategies as st

from kaos_backend.engine.store.trees.match import matcher
from kaos_backend.engine.store.trees.pattern import Group, One, Run, Text, Tokens, parse

Captures = dict[int, str]
Then = Callable[[int, Captures], Captures | None]


def slow(pattern: str, text: str) -> tuple[str, ...] | None:
    """What a pattern captures, found by trying everything."""
    tokens, groups = parse(pattern)

    def run(left: Tokens, at: int, found: Captures, then: Then) -> Captures | None:
        if not left:
            return then(at, found)
        token, rest = left[0], left[1:]

        def go_on(at: int, found: Captures) -> Captures | None:
            return run(rest, at, found, then)

        if isinstance(token, Text):
            return go_on(at + len(token.text), found) if text.startswith(token.text, at) else None
        if isinstance(token, One):
            fits = at < len(text) and re.fullmatch(token.regex, text[at], re.DOTALL)
            return go_on(at + 1, found) if fits else None
        if isinstance(token, Run):
            return longest(token.slash, at, found, go_on)
        return group(token, at, found, go_on)

    def longest(slash: bool, at: int, found: Captures, then: Then) -> Captures | None:
        ends = [at]
        while ends[-1] < len(text) and (slash or text[ends[-1]] != "/"):
            ends.append(ends[-1] + 1)
        return first(then(end, found) for end in reversed(ends))

    def group(token: Group, at: int, found: Captures, then: Then) -> Captures | None:
        def end(stop: int, found: Captures) -> Captures | None:
            return then(stop, found | {token.number: text[at:stop]})

        def once(at: int, found: Captures, then: Then) -> Captures | None:
            return first(run(choice, at, found, then) for choice in token.choices)

        def often(at: int, found: Captures) -> Captures | None:
            more = once(at, found, lambda stop, found: often(stop, found) if stop > at else None)
            return end(at, found) if more is None else more

        if token.mark == "*":
            return often(at, found)
        if token.mark == "+":
            return once(at, found, often)
        if token.mark == "!":
            refused = any(run(choice, at, found, then) is not None for choice in token.choices)
            return None if refused else longest(False, at, found, end)
        taken = once(at, found, end)
        return end(at, found) if taken is None and token.mark == "?" else taken

    def first(results: object) -> Captures | None:
        return next((one for one in results if one is not None), None)  # type: ignore[attr-defined]

    found = run(tokens, 0, {}, lambda at, found: found if at == len(text) else None)
    return None if found is None else tuple(found.get(n, "") for n in range(1, groups + 1))


ATOMS = st.sampled_from(["a", "b", "/", "*", "**", "?", "[ab]", "[!a]", "[a/]", r"\\*"])


def groups(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    def joined(mark: str, choices: list[str]) -> str:
        return "{" + ",".join(choices) + "}" if mark == "{" else f"{mark}({'|'.join(choices)})"

    choices = st.lists(inner, min_size=1, max_size=3)
    marks = st.sampled_from(["{", "", "@", "*", "+", "?", "!"])
    made = st.builds(joined, marks, choices)
    return st.lists(st.one_of(ATOMS, made), min_size=1, max_size=4).map("".join)


PATTERNS = st.recursive(st.lists(ATOMS, max_size=4).map("".join), groups, max_leaves=6)
TEXTS = st.text("ab/*", max_size=7)


def accepted(pattern: str) -> bool:
    """Not one of the patterns that are refused by name."""
    try:
        parse(pattern)
    except Exception:
        return False
    return True


@given(PATTERNS.filter(accepted), TEXTS)
@example("*a*ab", "aab")
@example("!(a).b", "a.b")
@example("@(a|ab)*/b", "abb/b")
@example("*(a|b)*(b)a", "abba")
def test_what_matches_and_what_is_captured(pattern: str, text: str) -> None:
    expected, found = slow(pattern, text), matcher(pattern)(text)
    assert (found is None) == (expected is None)
    # Which empty part of a repeated group is captured last is nobody's business.
    if found is not None and "*(" not in pattern and "+(" not in pattern:
        assert found == expected


@given(st.lists(ATOMS, max_size=6).map("".join), TEXTS)
def test_without_groups(pattern: str, text: str) -> None:
    assert (matcher(pattern)(text) is None) == (slow(pattern, text) is None)
