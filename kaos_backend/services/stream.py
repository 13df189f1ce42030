"""Streams between iterators of chunks and readers of exact sizes."""

from __future__ import annotations

from collections.abc import Iterator


class IteratorSource:
    """Reads exact sizes from an iterator of chunks (``tar.Source``)."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._rest = memoryview(b"")

    def read(self, size: int, /) -> bytes:
        """``size`` bytes, fewer only at the end."""
        if len(self._rest) >= size:
            head, self._rest = self._rest[:size], self._rest[size:]
            return bytes(head)
        parts = [self._rest]
        missing = size - len(self._rest)
        self._rest = memoryview(b"")
        while missing > 0:
            chunk = next(self._chunks, None)
            if chunk is None:
                break
            view = memoryview(chunk)
            parts.append(view[:missing])
            self._rest = view[missing:]
            missing -= len(parts[-1])
        return b"".join(parts)
