"""Plain files and folders of this machine, where the fetch runs for its owner."""

from __future__ import annotations

import os
import stat
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import quote, unquote_to_bytes, urlsplit

from kaos_formats.manifest import ManifestLine
from kaos_pipelines.fetch.cache import Said, key_of
from kaos_pipelines.fetch.errors import Changed, FetchError, Gone
from kaos_pipelines.fetch.guard import PRIVATE
from kaos_pipelines.fetch.objects import together
from kaos_pipelines.fetch.remote import Answer, Item
from kaos_pipelines.fetch.settings import Settings

_PIECE = 1 << 20


class Local:
    """The `Remote` of `file:`."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    async def close(self) -> None:
        """See `Remote`: there are none."""

    def key(self, item: Item) -> str:
        return key_of(item.url)

    async def files(self, number: int, line: ManifestLine) -> list[Item]:
        path = self._path(line.url)
        if not line.is_folder:
            return [Item.of(number, line)]
        base = line.url.rstrip("/")
        found = _below(path)
        return [
            Item(number, f"{base}/{_quoted(below)}", line.folder + below, size=said.size, said=said)
            for below, said in found.items()
        ]

    @asynccontextmanager
    async def open(self, item: Item, known: Said | None, held: Said, size: int) -> AsyncIterator[Answer]:
        path = self._path(item.url)
        with _Reading(path) as file:
            said = file.said
            if known is not None and said == known:
                yield Answer(said, None)
                return
            start = size if size and held == said else 0
            yield Answer(said, file.blocks(start), start)

    async def ask(self, line: ManifestLine) -> Said:
        path = self._path(line.url)
        if line.is_folder:
            return together(_below(path))
        with _Reading(path) as file:
            return file.said

    def _path(self, url: str) -> Path:
        if not self._settings.policy.private:
            raise FetchError(f"this backend fetches no files of its own machine ({PRIVATE}=0)")
        return Path(os.fsdecode(unquote_to_bytes(urlsplit(url).path)))


class _Reading:
    """A regular file, open: another kind could block for ever, or never end."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __enter__(self) -> _Reading:
        try:
            self._fd = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise Gone(f"there is no {self._path}") from error
        except (OSError, ValueError) as error:
            raise FetchError(f"{self._path}: {getattr(error, 'strerror', error)}") from error
        status = os.fstat(self._fd)
        if not stat.S_ISREG(status.st_mode):
            os.close(self._fd)
            raise FetchError(f"{self._path} is no regular file" + _hint(status))
        self.said = _said(status)
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)

    async def blocks(self, start: int) -> AsyncIterator[bytes]:
        while block := os.pread(self._fd, _PIECE, start):
            start += len(block)
            yield block
        if _said(os.fstat(self._fd)) != self.said:
            raise Changed("it changed while it was read")


def _said(status: os.stat_result) -> Said:
    return Said(status.st_size, f"{status.st_ino:x}-{status.st_mtime_ns:x}-{status.st_ctime_ns:x}")


def _hint(status: os.stat_result) -> str:
    return "; for a folder, let the path end in a slash" if stat.S_ISDIR(status.st_mode) else ""


def _below(folder: Path) -> dict[str, Said]:
    """The regular files at and below a folder, links to such too, by their paths there, sorted."""
    if not folder.is_dir():
        raise Gone(f"there is no folder {folder}")
    found: dict[str, Said] = {}

    def refuse(error: OSError) -> None:
        raise FetchError(f"{error.filename}: {error.strerror}") from error

    for at, folders, names in os.walk(folder, onerror=refuse):
        folders.sort()
        for name in names:
            path = Path(at) / name
            try:
                status = path.stat()
            except OSError as error:
                raise FetchError(f"{path}: {error.strerror}") from error
            if not stat.S_ISREG(status.st_mode):
                raise FetchError(f"{path} is no regular file")
            found[path.relative_to(folder).as_posix()] = _said(status)
    if not found:
        raise Gone(f"there is no file in {folder}")
    return dict(sorted(found.items()))


def _quoted(path: str) -> str:
    return quote(os.fsencode(path))
