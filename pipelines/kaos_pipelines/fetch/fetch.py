"""A whole manifest: all its lines, many at a time, and all that is wrong with them."""

from __future__ import annotations

import sqlite3
from collections import defaultdict
from collections.abc import Iterable, Mapping
from contextlib import suppress

from kaos_formats.errors import InvalidBundle
from kaos_formats.manifest import Fetched, Manifest, ManifestLine
from kaos_formats.paths import path_problem
from kaos_formats.tree import Tree, TreeEntry, folders_of, format_tree, id_of_pieces
from kaos_pipelines.fetch.atonce import at_once
from kaos_pipelines.fetch.cache import Cache, Said
from kaos_pipelines.fetch.credentials import Credentials
from kaos_pipelines.fetch.download import Arrived, Downloads
from kaos_pipelines.fetch.errors import FetchError, FetchFailed, Stopped
from kaos_pipelines.fetch.log import FetchLog, Progress, shown
from kaos_pipelines.fetch.objects import together
from kaos_pipelines.fetch.output import Output
from kaos_pipelines.fetch.remote import Item
from kaos_pipelines.fetch.remotes import Remotes, remotes
from kaos_pipelines.fetch.retries import tried
from kaos_pipelines.fetch.settings import Settings, room_of

MAX_FILES = 1_000_000
_TRIES = 3


async def fetch(
    manifest: Manifest, output: Output, settings: Settings, credentials: Credentials, log: FetchLog
) -> Tree:
    """The bundle of all that the manifest names, in `output`.

    Raises FetchFailed, which tells all lines that are bad, and Stopped where no line can go on.
    """
    cache = Cache(settings.cache)
    try:
        async with remotes(settings, credentials, cache.git) as found:
            return await _Fetch(manifest, output, cache, found, settings, log).run()
    except BaseException:
        output.discard()
        raise
    finally:
        # What it has brought is there, even if this fails.
        with suppress(OSError, sqlite3.Error):
            cache.trim(room_of(settings))
        cache.close()


class _Fetch:
    def __init__(
        self,
        manifest: Manifest,
        output: Output,
        cache: Cache,
        found: Remotes,
        settings: Settings,
        log: FetchLog,
    ) -> None:
        self._lines = manifest.lines
        self._output, self._cache, self._remotes = output, cache, found
        self._settings, self._log = settings, log
        self._problems: dict[int, str] = {}
        self._items: dict[int, list[Item]] = {}
        self._arrived: dict[Item, Arrived] = {}

    async def run(self) -> Tree:
        await at_once(self._settings.parallel, self._lines.items(), self._list)
        items = [item for number in sorted(self._items) for item in self._items[number]]
        self._refuse_clashes(items)
        alike: defaultdict[tuple[str, str, int | None], list[Item]] = defaultdict(list)
        for item in items:
            remote = self._remotes.of(item.url.partition(":")[0])
            alike[remote.key(item), item.sha256, item.size].append(item)
        self._log.say(f"fetches {len(items)} file(s) of {len(self._lines)} line(s)")
        self._progress = Progress(self._log, len(items))
        self._downloads = Downloads(self._cache, self._settings, self._log, self._progress)
        await at_once(self._settings.parallel, alike.values(), self._bring)
        if self._problems:
            raise FetchFailed(self._problems, len(self._lines))
        try:
            tree = self._output.finish(map(self._entry, items), map(self._fetched, self._lines))
        except InvalidBundle as error:
            raise Stopped(error.message) from error
        self._log.say(f"{self._progress.summary()}: data bundle {tree.id[:12]}")
        return tree

    async def _list(self, numbered: tuple[int, ManifestLine]) -> None:
        number, line = numbered
        remote = self._remotes.of(line.scheme)
        try:
            found = await tried(
                lambda: remote.files(number, line),
                self._settings,
                lambda text: self._log.say(f"line {number}: {text}"),
            )
        except FetchError as error:
            self._bad(number, line.url, error)
            return
        self._items[number] = found

    async def _bring(self, items: list[Item]) -> None:
        """One content, and the files that it becomes."""
        first = items[0]
        if any(item.number in self._problems for item in items):
            return
        remote = self._remotes.of(first.url.partition(":")[0])
        try:
            for again in range(_TRIES):
                arrived = await self._downloads.bring(first, remote)
                try:
                    for item in items:
                        self._output.put(item.path, self._cache.path(arrived.hash))
                    break
                except FileNotFoundError as error:
                    # Another process needed the room.
                    if again == _TRIES - 1:
                        raise Stopped(f"the cache has too little room: {self._cache.folder}") from error
        except Stopped:
            raise
        except FetchError as error:
            for item in items:
                self._bad(item.number, item.url, error)
            return
        for item in items:
            self._arrived[item] = arrived
            self._progress.finished(reused=arrived.reused)

    def _bad(self, number: int, url: str, error: FetchError) -> None:
        if number not in self._problems:
            self._problems[number] = self._log.mask(f"{shown(url)}: {error}")
            self._log.say(f"line {number}: {self._problems[number]}")

    def _refuse_clashes(self, items: Iterable[Item]) -> None:
        """What the files of folders make impossible, with what else there is."""
        first: dict[str, int] = {}
        for item in items:
            why = path_problem(item.path)
            if why is None and item.path in first:
                why = f"line {first[item.path]} has that file too"
            if why is not None:
                self._bad(item.number, item.url, FetchError(f"{item.path!r}: {why}"))
            first.setdefault(item.path, item.number)
        for path in folders_of(first).intersection(first):
            self._bad(first[path], path, FetchError("is a folder of another line too"))
        if len(first) > MAX_FILES:
            raise Stopped(f"the manifest names more than {MAX_FILES} files")

    def _entry(self, item: Item, below: int = 0) -> TreeEntry:
        arrived = self._arrived[item]
        return TreeEntry(item.path[below:], arrived.size, item.mode, arrived.hash)

    def _fetched(self, number: int) -> Fetched:
        line, items = self._lines[number], self._items[number]
        if line.is_folder:
            return self._of_folder(line, items)
        arrived = self._arrived[items[0]]
        said = arrived.said
        return Fetched(
            line.url, line.path, arrived.size, arrived.hash, line.rev,
            said.etag, said.last_modified, said.version, said.commit,
        )  # fmt: skip

    def _of_folder(self, line: ManifestLine, items: list[Item]) -> Fetched:
        start = len(line.folder)
        said: Mapping[str, Said] = {item.path[start:]: item.said or Said() for item in items}
        commit = next((one.commit for one in said.values()), "")
        entries = sorted((self._entry(item, start) for item in items), key=lambda entry: entry.path)
        size = sum(entry.size for entry in entries)
        tree = id_of_pieces([format_tree(entries)])
        return Fetched(
            line.url, line.path, size, tree, line.rev, together(said).etag, commit=commit, files=len(entries)
        )
