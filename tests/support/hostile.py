"""What a hostile or careless client sends: strategies for Hypothesis."""

from __future__ import annotations

import json
import math

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

ANSWER_TIMEOUT_S = 10.0
"""By then a server that still is silent hangs. Far above what the slowest machine needs."""


def few(examples: int) -> settings:
    """So many examples, the same in every run: what is found here once shall not come and go."""
    return settings(
        max_examples=examples,
        derandomize=True,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )


# Lone surrogates arrive as the escapes of JSON, never as UTF-8.
any_text = st.one_of(
    st.text(st.characters(exclude_categories=()), max_size=20),
    st.sampled_from(
        [
            "",
            " ",
            ".",
            "..",
            "/",
            "../..",
            "\0",
            "\ud800",
            "a\n",
            "-",
            "x" * 300,
            "x" * 5_000,
            "‮",
            "🦆",
            "%2e%2e",
        ]
    ),
)
text = any_text.filter(lambda one: _is_unicode(one))

_scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    any_text,
    st.sampled_from([2**63, -(2**63) - 1, 10**400, -0.0, 1e308, 5e-324, math.nan, math.inf]),
)
any_json = st.recursive(
    _scalars,
    lambda inner: st.one_of(
        st.lists(inner, max_size=4), st.dictionaries(any_text, inner, max_size=4), st.lists(inner).map(tuple)
    ),
    max_leaves=8,
)

_oddities = st.sampled_from(
    [
        b"",
        b"[" * 100_000,
        b'{"a":' * 50_000,
        b"1" * 5_000,
        b"-",
        b"\xff\xfe{}",
        b'{"a": "\xff"}',
        b'{"a": 1, "a": 2}',
        b'{"\\ud800": 1}',
        b'{"a": NaN}',
        b'{"a": 1e999}',
        b"\xef\xbb\xbf{}",
        b"{}" + bytes(10),
        b'"\\u0000"',
        '{"größe": 1}'.encode("utf-16"),
    ]
)
any_body = st.one_of(
    any_json.map(lambda value: json.dumps(value).encode()), _oddities, st.binary(max_size=60)
)
"""Bytes where JSON is expected: valid, odd, broken."""

paths = st.one_of(
    text,
    st.lists(
        st.sampled_from(
            ["a", "b c", ".", "..", "", "~", "%2e", "é", "a*", "[b]", "x" * 256, "\n", "\0", "-r", "con"]
        ),
        max_size=5,
    ).map("/".join),
    st.sampled_from([300, 1100, 3000]).map(lambda depth: "/".join("d" * depth)),
)
"""Paths, most of which nobody should have."""

globs = st.one_of(
    st.text("ab*?[]{}()!@+^|/\\-,.", max_size=14),
    st.builds(
        lambda piece, times, end: "/" + piece * times + end,
        st.sampled_from(["*a*", "*(a)", "+(*a)", "{a,b*}", "?(a|aa)", "[!b]*"]),
        st.integers(1, 40),
        st.sampled_from(["b", "", "*", ")"]),
    ),
    text,
)
"""Glob patterns, among them those that make a backtracking matcher take for ever."""


def _is_unicode(one: str) -> bool:
    try:
        one.encode()
    except UnicodeEncodeError:
        return False
    return True
