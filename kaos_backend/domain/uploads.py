"""How a bundle that is built on another one is put together with the fewest changes. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from kaos_backend.errors import InvalidBundle
from kaos_formats.stored import MAP_FILE, stored_names
from kaos_formats.tree import Tree, TreeEntry


class Layout:
    """Where the files of a bundle lie in its folder in PFS. ``map_text``: the map of their true names, if it
    needs one.
    """

    def __init__(self, tree: Tree) -> None:
        names = stored_names(entry.path for entry in tree.entries)
        self.tree = tree
        self.map_text = names.map_text(tree.id) if names is not None else None
        self.entries = {
            (names.path(entry.path) if names is not None else entry.path): entry for entry in tree.entries
        }
        """Stored path → entry."""
        self._names = names

    @property
    def places(self) -> dict[str, str]:
        """True path by stored one, of the files that have another name there; "" for the map."""
        if self._names is None:
            return {}
        renamed = {path: entry.path for path, entry in self.entries.items() if path != entry.path}
        return renamed | {MAP_FILE: ""}

    def path(self, entry: TreeEntry) -> str:
        """The stored path of a file."""
        return entry.path if self._names is None else self._names.path(entry.path)


@dataclass(frozen=True, slots=True)
class UploadPlan:
    """``copy_all``: start from a copy of the base's whole folder, then remove ``removed``, so that the paths
    ``kept`` are there without a file of the upload. ``sources`` maps a content hash to a path in the base.
    All paths are stored ones.
    """

    copy_all: bool
    removed: tuple[str, ...]
    kept: frozenset[str]
    sources: Mapping[str, str]


def plan_upload(new: Layout, base: Layout | None, *, is_begun: bool = False) -> UploadPlan:
    """The plan for uploading ``new`` on top of ``base`` (None: from nothing), where it ``is_begun`` without
    a copy of the whole.
    """
    if base is None:
        return UploadPlan(False, (), frozenset(), {})
    if is_begun:
        return UploadPlan(False, (), frozenset(), _sources(base))
    kept: set[str] = set()
    removed: list[str] = []
    for path, entry in base.entries.items():
        now = new.entries.get(path)
        if now is not None and now.hash == entry.hash:
            kept.add(path)
        else:
            removed.append(path)
    if base.map_text is not None:
        removed.append(MAP_FILE)
    sources = _sources(base)
    # Copying everything and deleting costs one change per deleted file, copying piecemeal one per kept file.
    if len(kept) > len(removed):
        return UploadPlan(True, tuple(removed), frozenset(kept), sources)
    return UploadPlan(False, (), frozenset(), sources)


def _sources(base: Layout) -> dict[str, str]:
    return {entry.hash: path for path, entry in base.entries.items()}


@dataclass(frozen=True, slots=True)
class Copies:
    """Files made by reference, as (path that has the content, path): of the base and of the bundle itself."""

    of_base: list[tuple[str, str]]
    of_itself: list[tuple[str, str]]


def copies(plan: UploadPlan, new: Layout, received: Iterable[str]) -> Copies:
    """What every file is made of that neither came nor is there already; all stored paths.

    Raises InvalidBundle if neither the base nor a file that came has the content of one.
    """
    there = set(received) | plan.kept
    made = Copies([], [])
    left: list[tuple[str, TreeEntry]] = []
    for path, entry in new.entries.items():
        if path not in there:
            source = plan.sources.get(entry.hash)
            if source is None:
                left.append((path, entry))
            else:
                made.of_base.append((source, path))
    twins = {new.entries[path].hash: path for path in there} if left else {}
    unknown = [entry.path for _, entry in left if entry.hash not in twins]
    if unknown:
        raise InvalidBundle(
            f"{len(unknown)} file(s) of the bundle were not sent, the first is {unknown[0]!r}",
            hint="deploy again; the folder may have changed while it was being read",
            paths=unknown[:5],
        )
    made.of_itself.extend((twins[entry.hash], path) for path, entry in left)
    return made
