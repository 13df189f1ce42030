"""How the C library's allocator deals with the memory of servers with many threads."""

from __future__ import annotations

import ctypes
from contextlib import suppress

# Of malloc.h.
_ARENA_MAX = -8
_HEAPS = 2


def share_heaps() -> None:
    """Have all threads share two heaps; to be called before there are others.

    By itself glibc opens up to eight for each core, one thread after the other, and what is free in each of
    them stays there. Where the C library has no ``mallopt`` nothing happens, and programs that are started do
    not inherit it.
    """
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(_ARENA_MAX, _HEAPS)
