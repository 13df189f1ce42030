"""What was fetched, laid out as a data bundle: the same that a deploy of these files would have sent.

<out>/<bundle id>/…         the files
<out>/<bundle id>.tree      their list (kaos_formats.tree)
<out>/<bundle id>.sources   what each line's server said (kaos_formats.manifest)
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable
from pathlib import Path

from kaos_formats.folders import clean_up
from kaos_formats.manifest import Fetched, format_sources, sources_path
from kaos_formats.names import bundle_dir, tree_path
from kaos_formats.stored import MAP_FILE, stored_names
from kaos_formats.tree import Tree, TreeEntry, make_tree

# Renamed in the end: which bundle it is, only its last file tells.
_MAKING = ".kaos-fetching"


class Output:
    """The output folder of the pipeline's datum. `any_name`: its worker gives files names that PFS can
    hold.
    """

    def __init__(self, out: Path, *, any_name: bool) -> None:
        self._out, self._any_name = out, any_name
        self._folder = out / _MAKING
        self._folder.mkdir(parents=True, exist_ok=True)
        self._made: set[Path] = set()

    def put(self, path: str, content: Path) -> None:
        """A content becomes the file at `path`. Raises FileNotFoundError where the content is gone."""
        target = self._folder / path
        if target.parent not in self._made:
            target.parent.mkdir(parents=True, exist_ok=True)
            self._made.add(target.parent)
        # Never written to: it may be a name of the content itself.
        target.unlink(missing_ok=True)
        try:
            # Nobody writes to a content, and what is collected from here is read.
            os.link(content, target)
        except FileNotFoundError:
            raise
        except OSError:
            # Another file system, or more names than a file can have.
            shutil.copyfile(content, target)

    def discard(self) -> None:
        """Nothing is put out: what a datum leaves behind may be kept, also where it failed."""
        clean_up(self._folder)

    def finish(self, entries: Iterable[TreeEntry], fetched: Iterable[Fetched]) -> Tree:
        """The bundle of all that was put. Raises InvalidBundle for files that no bundle can have."""
        tree = make_tree(entries)
        if not self._any_name:
            self._rename(tree)
        self._folder.rename(self._at(bundle_dir(tree.id)))
        self._at(tree_path(tree.id)).write_bytes(tree.text)
        self._at(sources_path(tree.id)).write_bytes(format_sources(fetched))
        return tree

    def _at(self, path: str) -> Path:
        return self._out / path.removeprefix("/")

    def _rename(self, tree: Tree) -> None:
        """Give files and folders the names under which PFS holds them."""
        names = stored_names(entry.path for entry in tree.entries)
        text = names.map_text(tree.id) if names is not None else None
        if names is None or text is None:
            return
        renamed = self._folder.with_name(f"{_MAKING}-names")
        for entry in tree.entries:
            target = renamed / names.path(entry.path)
            target.parent.mkdir(parents=True, exist_ok=True)
            (self._folder / entry.path).rename(target)
        shutil.rmtree(self._folder)
        (renamed / MAP_FILE).write_bytes(text)
        renamed.rename(self._folder)
