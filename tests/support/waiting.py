"""Waiting for a state, by asking for it again and again."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any


def eventually(check: Callable[[], Any], what: str = "what is waited for", timeout_s: float = 60.0) -> Any:
    """The first true answer of `check`; fails the test, naming `what`, when none comes in time.

    Between two questions as much time passes as one takes: most of the machine is for what is waited for.
    """
    deadline = time.monotonic() + timeout_s
    while True:
        asked = time.monotonic()
        if answer := check():
            return answer
        answered = time.monotonic()
        assert answered < deadline, f"never happened within {timeout_s:g} s: {what}"
        time.sleep(max(0.01, answered - asked))
