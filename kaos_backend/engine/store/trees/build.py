"""A new tree out of files in the order of their paths: each directory is encoded once, when it is complete.

What is in memory at a time is one directory of each level; `edit` has to keep a whole tree's drafts.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from operator import attrgetter

from kaos_backend.engine.errors import InvalidArgument
from kaos_backend.engine.store.trees.nodes import DirRef, FileRef, Node
from kaos_backend.engine.store.trees.revise import compose


class TreeBuilder:
    """`put` files in ascending order of all their paths, then `finish`. `rows` are those to store."""

    def __init__(self) -> None:
        self.rows: list[tuple[bytes, bytes]] = []
        # The directories that are open, outermost first: path with a slash, files, subdirectories.
        self._open: list[tuple[str, list[FileRef], list[DirRef]]] = [("/", [], [])]
        self._last = ""

    def put(self, paths: Sequence[str], objects: Sequence[bytes], sizes: Iterable[int]) -> None:
        """Add files; `paths` are cleaned ones. InvalidArgument when they do not come in order."""
        last = self._last
        prefix, files, _ = self._open[-1]
        for path, object_, size in zip(paths, objects, sizes, strict=True):
            if path <= last:
                raise InvalidArgument(f"{path} comes after {last}: files must be sorted by path, each once")
            last = path
            at = path.rfind("/") + 1
            if path[:at] != prefix:
                prefix = path[:at]
                files = self._enter(prefix)
            files.append(FileRef(path[at:], "", object_, size))
        self._last = last

    def finish(self) -> bytes | None:
        """The root; None when there was no file."""
        while len(self._open) > 1:
            self._leave()
        _, files, dirs = self._open[0]
        return self._encode(files, dirs)[0] if files or dirs else None

    def _enter(self, folder: str) -> list[FileRef]:
        # All paths with one beginning are neighbours when sorted: what is left now is complete.
        while not folder.startswith(self._open[-1][0]):
            self._leave()
        above = self._open[-1][0]
        while above != folder:
            above = folder[: folder.index("/", len(above)) + 1]
            self._open.append((above, [], []))
        return self._open[-1][1]

    def _leave(self) -> None:
        path, files, dirs = self._open.pop()
        name = path[len(self._open[-1][0]) : -1]
        key, node = self._encode(files, dirs)
        self._open[-1][2].append(DirRef(name, key, node.hash, node.size, node.flawed, node.tag))

    def _encode(self, files: list[FileRef], dirs: list[DirRef]) -> tuple[bytes, Node]:
        # They were added in the order of their paths with a slash behind: "a-b/" before "a/".
        dirs.sort(key=attrgetter("name"))
        key, node, rows = compose(files, dirs)
        self.rows += rows
        return key, node
