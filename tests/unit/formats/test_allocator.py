"""Threads share heaps, as the C library itself tells."""

from __future__ import annotations

import ctypes
import subprocess
import sys

import pytest

MANY_THREADS = """
import ctypes, sys, threading
from kaos_formats.allocator import share_heaps
if sys.argv[1] == "shared":
    share_heaps()
libc = ctypes.CDLL(None)
together = threading.Barrier(6)
def allocate():
    together.wait()
    libc.malloc(1000)
    together.wait()
threads = [threading.Thread(target=allocate) for _ in range(6)]
for one in threads: one.start()
for one in threads: one.join()
libc.malloc_stats()
"""


def heaps(how: str) -> int:
    done = subprocess.run(
        [sys.executable, "-c", MANY_THREADS, how], capture_output=True, text=True, check=True
    )
    return done.stderr.count("Arena ")


def test_threads_share_two_heaps() -> None:
    if not hasattr(ctypes.CDLL(None), "malloc_stats"):
        pytest.skip("this C library does not tell")
    assert heaps("alone") > 2
    assert heaps("shared") == 2
