"""A new tree out of files in the order of their paths: each directory is encoded once, when it is complete.

What is in memory at a time is one directory of each level; `edit` has to keep a whole tree's drafts.
"""

from __future__ import annotations

from kaos_backend.engine.errors import InvalidArgument
from kaos_backend.engine.store.trees.nodes import EMPTY, DirRef, FileRef, Node
from kaos_backend.engine.store.trees.revise import revise

Files = dict[tuple[str, str], FileRef | None]
Dirs = dict[str, DirRef | None]


class TreeBuilder:
    """`put` every file in ascending order of paths, then `finish`. `rows` are those to store."""

    def __init__(self) -> None:
        self.rows: list[tuple[bytes, bytes]] = []
        # The directories that are open, outermost first: path with a slash, files, subdirectories.
        self._open: list[tuple[str, Files, Dirs]] = [("/", {}, {})]
        self._last = ""

    def put(self, path: str, object_: bytes, size: int) -> None:
        """Add a file; `path` is a cleaned one. InvalidArgument when it does not come in order."""
        if path <= self._last:
            raise InvalidArgument(f"{path} comes after {self._last}: files must be sorted by path, each once")
        self._last = path
        at = path.rfind("/") + 1
        prefix, files, _ = self._open[-1]
        if path[:at] != prefix:
            files = self._enter(path[:at])
        name = path[at:]
        files[name, ""] = FileRef(name, "", object_, size)

    def finish(self) -> bytes | None:
        """The root; None when there was no file."""
        while len(self._open) > 1:
            self._leave()
        _, files, dirs = self._open[0]
        return self._encode(files, dirs)[0] if files or dirs else None

    def _enter(self, folder: str) -> Files:
        # All paths with one beginning are neighbours when sorted: what is left now is complete.
        while not folder.startswith(self._open[-1][0]):
            self._leave()
        above = self._open[-1][0]
        while above != folder:
            above = folder[: folder.index("/", len(above)) + 1]
            self._open.append((above, {}, {}))
        return self._open[-1][1]

    def _leave(self) -> None:
        path, files, dirs = self._open.pop()
        name = path[len(self._open[-1][0]) : -1]
        key, node = self._encode(files, dirs)
        self._open[-1][2][name] = DirRef(name, key, node.hash, node.size, node.flawed, node.tag)

    def _encode(self, files: Files, dirs: Dirs) -> tuple[bytes, Node]:
        key, node, rows = revise(EMPTY, files, dirs)
        self.rows += rows
        return key, node
