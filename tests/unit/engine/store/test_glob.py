"""Globs as ohmyglob reads them."""

from __future__ import annotations

import pytest

from kaos_backend.engine.errors import InvalidArgument
from kaos_backend.engine.store.trees.glob import compile_glob, match_glob
from kaos_backend.engine.store.trees.pattern import clean


@pytest.mark.parametrize(
    ("pattern", "path", "matches"),
    [
        ("/*", "/a", True),
        ("/*", "/a/", True),
        ("/*", "/a/b", False),
        ("*", "/a", True),
        ("/", "/", True),
        ("/*", "/", False),
        ("/**", "/a/b/c", True),
        ("/a/**", "/a/b/c", True),
        ("/a/**", "/a", False),
        ("/**.dat", "/x/y.dat", True),
        ("/a?c", "/abc", True),
        ("/a?c", "/a/c", False),
        ("/[abc]", "/b", True),
        ("/[a-c]x", "/bx", True),
        ("/[!a-c]x", "/bx", False),
        ("/[^a]", "/b", True),
        ("/[!a]", "//", False),
        ("/[-a]", "/-", True),
        ("/[[:digit:]]", "/7", True),
        ("/[[:alpha:]_]", "/_", True),
        ("/{a,b/c}", "/b/c", True),
        ("/{a,b}.{x,y}", "/b.y", True),
        ("/(a|b)", "/b", True),
        ("/@(a|b)", "/ab", False),
        ("/*(a|b)", "/abba", True),
        ("/*(a|b)c", "/c", True),
        ("/+(a)", "/aaa", True),
        ("/x+(a)", "/x", False),
        ("/x?(a)", "/x", True),
        ("/x?(a)", "/xaa", False),
        ("/!(a)", "/b", True),
        ("/!(a)", "/a", False),
        ("/!(a)", "/ab", True),
        ("/!(*.txt)", "/a.dat", True),
        ("/!(*.txt)", "/a.txt", False),
        ("/!(a).txt", "/b.txt", True),
        ("/!(a).txt", "/a.txt", False),
        ("/!(a)", "/b/c", False),
        (r"/\*", "/*", True),
        (r"/\*", "/a", False),
        ("/a.b", "/axb", False),
        ("/a+b@c!d", "/a+b@c!d", True),
        ("/" + "?" * 32, "/" + "0" * 32, True),
        ("/" + "?" * 32, "/" + "0" * 32 + ".tree", False),
    ],
)
def test_what_matches(pattern: str, path: str, matches: bool) -> None:
    assert (match_glob(pattern, path) is not None) == matches


def test_captures_are_numbered_from_left_to_right() -> None:
    match = match_glob("/(*)-((*)_(*)).txt", "/run-a_b.txt")
    assert match is not None
    assert match == ("run", "a_b", "a", "b")
    match = match_glob("/{x,y}/(a|b)*(0|1)", "/y/b0110")
    assert match is not None
    assert match == ("b", "0110")


def test_groups_inside_a_negation_count() -> None:
    match = match_glob("/!((a)|b)-(c)", "/x-c")
    assert match is not None
    assert match[2] == "c"


@pytest.mark.parametrize("pattern", ["/[a", "/{a,b", "/(a|b", "/*(a"])
def test_what_does_not_close_is_refused(pattern: str) -> None:
    with pytest.raises(InvalidArgument, match="does not close"):
        compile_glob(pattern)


def test_cleaning() -> None:
    assert [clean(one) for one in ("a", "/a/", "//a//b/", "/", "")] == ["/a", "/a", "/a/b", "/", "/"]


def test_the_literal_start_and_the_elements_prune_the_walk() -> None:
    glob = compile_glob("/data/set/*/x?")
    assert glob.prefix == ("data", "set")
    assert (len(glob.segments), glob.deep) == (2, False)
    models = compile_glob("/{a,b}/**metrics*.json")
    assert (len(models.segments), models.deep) == (1, True)
    for pattern in ("/data/**", "/{a/b,c}/*"):
        assert (compile_glob(pattern).segments, compile_glob(pattern).deep) == ((), True)


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    ("pattern", "text", "matches"),
    [
        ("/" + "*a" * 14 + "b", "/" + "a" * 40, False),
        ("/" + "*a" * 14 + "*", "/" + "a" * 40, True),
        ("/*(*a)b", "/" + "a" * 40, False),
        ("/*(*a)b", "/" + "a" * 40 + "b", True),
        ("/+(a|aa)b", "/" + "a" * 200, False),
        ("/*(*(*(a)))b", "/" + "a" * 60, False),
        ("/" + "{a,a}" * 40 + "b", "/" + "a" * 40, False),
        ("/" + "(a|a)" * 40 + "b", "/" + "a" * 40, False),
        ("/@(a|ab)*" * 30 + "/x", "/abc" * 30, False),
        ("/" + "(*)a" * 14 + "b", "/" + "a" * 60, False),
        ("/**" * 12 + "b", "/a" * 300, False),
        ("/**/*a*a*a*a*b", "/" + "a" * 255 + "/" + "a" * 255, False),
        ("/" + "!(a)" * 20 + "b", "/" + "a" * 100, False),
        ("/**!(**b)**", "/" + "b/" * 200, True),
    ],
)
def test_no_pattern_takes_for_ever(pattern: str, text: str, matches: bool) -> None:
    assert (match_glob(pattern, text) is not None) == matches


@pytest.mark.parametrize(
    ("pattern", "why"),
    [
        ("/" + "(" * 5_000 + ")" * 5_000, "nested more than"),
        ("/" + "(a*b|c)" * 5_000, "too long"),
        ("/*(!(a))", "inside"),
        ("/[z-a]", "bad character range"),
    ],
)
def test_what_is_too_much_is_refused_by_name(pattern: str, why: str) -> None:
    with pytest.raises(InvalidArgument, match=why):
        compile_glob(pattern)
