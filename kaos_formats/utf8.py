"""What is text: a Python string may hold what no UTF-8 can."""

from __future__ import annotations


def is_utf8(text: str) -> bool:
    """Whether ``text`` can be written as UTF-8: what came as other bytes has lone surrogates."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
