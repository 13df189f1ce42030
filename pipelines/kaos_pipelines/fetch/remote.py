"""What a line's URL is read with: the port that http, the object stores and the rest implement."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Protocol

from kaos_formats.manifest import ManifestLine
from kaos_pipelines.fetch.cache import Said


@dataclass(frozen=True, slots=True)
class Item:
    """One file that a line (by its number) asks for: `path` in the bundle, and what it must be; `said`: what
    a listing says of it. `mode` is "644" or "755".
    """

    number: int
    url: str
    path: str
    sha256: str = ""
    size: int | None = None
    said: Said | None = None
    mode: str = "644"

    @classmethod
    def of(cls, number: int, line: ManifestLine) -> Item:
        return cls(number, line.url, line.path, line.sha256, line.size)


@dataclass(frozen=True, slots=True)
class Answer:
    """What a server sends: `blocks`, of a content of `said.size` bytes those from `start` on; None where the
    content is what was known. `digests`: algorithm (of hashlib) → hex, of the whole content.
    """

    said: Said
    blocks: AsyncIterator[bytes] | None
    start: int = 0
    digests: Mapping[str, str] = field(default_factory=dict)


class Remote(Protocol):
    """A kind of server. Methods raise FetchError, Transient for what may succeed later."""

    def key(self, item: Item) -> str:
        """What the cache calls the content."""

    async def files(self, number: int, line: ManifestLine) -> list[Item]:
        """The files that a line asks for: itself, or those of its folder."""

    def open(
        self, item: Item, known: Said | None, held: Said, size: int
    ) -> AbstractAsyncContextManager[Answer]:
        """Ask for a content. `known`: what was said of the one that is here; of `held` the first `size` bytes
        have come.
        """

    async def ask(self, line: ManifestLine) -> Said:
        """What the server says of a line's content now, of a folder's altogether; no content comes.

        Raises Gone where there is nothing any more.
        """

    async def close(self) -> None:
        """Give up connections."""
