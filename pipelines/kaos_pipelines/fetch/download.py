"""One content: resumed where it broke off, tried again, verified, kept in the cache."""

from __future__ import annotations

import asyncio
import hashlib
import os
import time
from collections.abc import Iterable
from dataclasses import dataclass, replace
from urllib.parse import urlsplit

import blake3
import msgspec

from kaos_formats.quantity import format_bytes
from kaos_pipelines.fetch.cache import Cache, Partial, Said
from kaos_pipelines.fetch.errors import Changed, FetchError, Stopped, Transient
from kaos_pipelines.fetch.log import FetchLog, Progress, shown
from kaos_pipelines.fetch.remote import Answer, Item, Remote
from kaos_pipelines.fetch.retries import tried
from kaos_pipelines.fetch.settings import Settings

_PIECE = 1 << 20
# Below that a thread costs more than it saves.
_SMALL = 128 << 10
_SYNC_BYTES = 256 << 20
# A try that brought less than that has not helped.
_PROGRESS_BYTES = 1 << 20
# What the disk keeps for others.
_SPARE_BYTES = 64 << 20
_CACHE_TRIES = 3


@dataclass(frozen=True, slots=True)
class Arrived:
    """A content that is in the cache: its BLAKE3 in hex, its size in bytes, what its server says of it, and
    whether it was there before.
    """

    hash: str
    size: int
    said: Said
    reused: bool = False


class Downloads:
    """Brings contents into `cache`."""

    def __init__(self, cache: Cache, settings: Settings, log: FetchLog, progress: Progress) -> None:
        self._cache, self._settings, self._log, self._progress = cache, settings, log, progress
        self._failed: dict[str, int] = {}

    async def bring(self, item: Item, remote: Remote) -> Arrived:
        """Raises FetchError; Stopped where no other content could come either."""
        key = remote.key(item)
        place = shown(item.url)

        def wait() -> None:
            self._log.say(f"line {item.number}: waits for another fetch of {place}")

        server = urlsplit(item.url).netloc
        for again in range(_CACHE_TRIES):
            try:
                async with self._cache.turn(key, wait) as partial:
                    arrived = await _Download(self, item, remote, key, partial).run()
            except FileNotFoundError as error:
                # Somebody deletes the cache, as they may.
                if again == _CACHE_TRIES - 1:
                    raise Stopped(f"{self._cache.folder} goes away again and again") from error
            except Transient:
                self._failed[server] = self._failed.get(server, 0) + 1
                raise
            else:
                self._failed.pop(server, None)
                return arrived
        raise AssertionError

    def tries(self, item: Item) -> int:
        """How often to try: where line after line of a server failed after all tries, once is enough."""
        hopeless = self._failed.get(urlsplit(item.url).netloc, 0) >= self._settings.parallel
        return 1 if hopeless else self._settings.tries


class _Download:
    def __init__(self, all: Downloads, item: Item, remote: Remote, key: str, partial: Partial) -> None:
        self._cache, self._settings, self._progress = all._cache, all._settings, all._progress
        self._log, self._all = all._log, all
        self._item, self._remote, self._key, self._partial = item, remote, key, partial
        self._hashes = _Hashes(["sha256"] if item.sha256 else [])
        self._failures = 0
        self._resumed = False

    async def run(self) -> Arrived:
        known = await self._known()
        self._partial.leave_something()
        if self._partial.size:
            await asyncio.to_thread(self._hashes.read, self._partial)
            self._resumed = True
            self._log.say(
                f"line {self._item.number}: goes on after {format_bytes(self._partial.size)} of "
                f"{shown(self._item.url)}"
            )
        number = self._item.number
        return await tried(
            lambda: self._once(known),
            self._settings,
            lambda text: self._log.say(f"line {number}: {text}"),
            lambda _: self._failures >= self._all.tries(self._item),
        )

    async def _known(self) -> Arrived | None:
        found = self._cache.known(self._key)
        if found is None or (self._item.size is not None and self._item.size != found[2]):
            return None
        said, content, size = found
        if self._item.said is not None and self._item.said.is_other_than(said) is not False:
            return None
        whole = self._cache.is_whole
        if not (whole(content) if size < _SMALL else await asyncio.to_thread(whole, content)):
            return None
        if self._item.sha256 and await asyncio.to_thread(self._sha256, content) != self._item.sha256:
            return None
        return Arrived(content, size, said, reused=True)

    def _sha256(self, content: str) -> str:
        with self._cache.path(content).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()

    async def _once(self, known: Arrived | None) -> Arrived:
        before = self._partial.size
        try:
            said = known.said if known is not None else None
            async with self._remote.open(self._item, said, self._partial.said, before) as answer:
                if answer.blocks is None:
                    assert known is not None
                    arrived = replace(known, said=answer.said)
                    self._cache.used(self._key, answer.said, known.hash, known.size)
                    return arrived
                await self._receive(answer)
                return self._finish(answer)
        except Transient as error:
            if isinstance(error, Changed):
                self._drop()
            gained = self._partial.size - before >= _PROGRESS_BYTES
            self._failures = 1 if gained else self._failures + 1
            raise
        except FileNotFoundError:
            raise
        except OSError as error:
            raise Stopped(f"{error.strerror}: {self._cache.folder}") from error

    async def _receive(self, answer: Answer) -> None:
        partial, item, total = self._partial, self._item, answer.said.size
        if item.size is not None and total is not None and item.size != total:
            raise FetchError(f"has {total} bytes, not {item.size}")
        if answer.start != partial.size or not partial.size:
            if answer.start:
                raise Changed("the server sent another part of it than it was asked for")
            partial.restart(answer.said)
            self._hashes = _Hashes({*answer.digests, *(["sha256"] if item.sha256 else [])})
            self._resumed = False
        most = item.size if total is None else total
        self._must_fit((most or 0) - partial.size)
        assert answer.blocks is not None
        clock, synced = _Pace(self._settings), partial.size
        pieces: list[bytes] = []
        waiting = 0
        try:
            async for block in answer.blocks:
                clock.came(len(block))
                self._progress.came(len(block))
                pieces.append(block)
                waiting += len(block)
                if most is not None and partial.size + waiting > most:
                    pieces = []
                    raise FetchError(f"sends more than the {most} bytes that it has")
                if waiting >= _PIECE:
                    data, pieces, waiting = b"".join(pieces), [], 0
                    await asyncio.to_thread(self._write, data)
                    if partial.size - synced >= _SYNC_BYTES:
                        synced = partial.size
                        await asyncio.to_thread(partial.sync)
                        self._must_fit(0)
        finally:
            # What has come before it broke off, too.
            self._write(b"".join(pieces))
        if most is not None and partial.size < most:
            raise Transient(f"ended after {partial.size} of {most} bytes")

    def _write(self, data: bytes) -> None:
        self._partial.write(data)
        self._hashes.update(data)

    def _must_fit(self, size: int) -> None:
        if not self._cache.make_room(size + _SPARE_BYTES):
            raise Stopped(
                f"No space left on device: {self._cache.folder} has no room for {format_bytes(size)}"
            )

    def _finish(self, answer: Answer) -> Arrived:
        partial, item = self._partial, self._item
        if item.size is not None and partial.size != item.size:
            self._drop()
            raise FetchError(f"has {partial.size} bytes, not {item.size}")
        for algorithm, wanted in answer.digests.items():
            found = self._hashes.digest(algorithm)
            if found is not None and found != wanted:
                self._drop()
                raise Transient(f"its {algorithm} is {found}, and the server says {wanted}")
        if item.sha256 and (found := self._hashes.digest("sha256")) != item.sha256:
            self._drop()
            problem = f"its sha256 is {found}, not {item.sha256}"
            # The first part may have been another content's after all.
            raise Transient(problem) if self._resumed else FetchError(problem)
        content = self._hashes.content()
        size = partial.size
        said = msgspec.structs.replace(answer.said, size=size)
        self._cache.adopt(partial, content)
        self._cache.used(self._key, said, content, size)
        return Arrived(content, size, said)

    def _drop(self) -> None:
        self._partial.restart(Said())


class _Hashes:
    """Digests of what comes, BLAKE3 always."""

    def __init__(self, algorithms: Iterable[str]) -> None:
        self._blake3 = blake3.blake3()
        self._others = {name: hashlib.new(name, usedforsecurity=False) for name in algorithms}

    def update(self, data: bytes) -> None:
        self._blake3.update(data)
        for one in self._others.values():
            one.update(data)

    def read(self, partial: Partial) -> None:
        at = 0
        while at < partial.size:
            block = os.pread(partial.fd, min(_PIECE, partial.size - at), at)
            if not block:
                break
            self.update(block)
            at += len(block)

    def content(self) -> str:
        return self._blake3.hexdigest()

    def digest(self, algorithm: str) -> str | None:
        """None where it was not asked for from the first byte on."""
        found = self._others.get(algorithm)
        return None if found is None else found.hexdigest()


class _Pace:
    """Refuses a body that trickles: it would hold a place for ever, never silent for long."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._since, self._bytes = time.monotonic(), 0

    def came(self, count: int) -> None:
        self._bytes += count
        now = time.monotonic()
        window = now - self._since
        if window >= self._settings.window_s:
            if self._bytes < self._settings.slowest * window:
                raise Transient(f"sends less than {self._settings.slowest} bytes a second")
            self._since, self._bytes = now, 0
