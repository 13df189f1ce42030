"""How a bundle that is built on another one is put together with the fewest changes. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from kaos_backend.errors import InvalidBundle
from kaos_formats.tree import Tree, TreeEntry


@dataclass(frozen=True, slots=True)
class UploadPlan:
    """``copy_all``: start from a copy of the base's whole folder, then remove ``removed``, so that the paths
    ``kept`` are there without a file of the upload. ``sources`` maps a content hash to a path in the base.
    """

    copy_all: bool
    removed: tuple[str, ...]
    kept: frozenset[str]
    sources: Mapping[str, str]


def plan_upload(tree: Tree, base: Tree | None) -> UploadPlan:
    """The plan for uploading ``tree`` on top of ``base`` (None: from nothing)."""
    if base is None:
        return UploadPlan(False, (), frozenset(), {})
    new = tree.by_path()
    kept: set[str] = set()
    removed: list[str] = []
    for entry in base.entries:
        now = new.get(entry.path)
        if now is not None and now.hash == entry.hash:
            kept.add(entry.path)
        else:
            removed.append(entry.path)
    sources = {entry.hash: entry.path for entry in base.entries}
    # Copying everything and deleting costs one change per deleted file, copying piecemeal one per kept file.
    if len(kept) > len(removed):
        return UploadPlan(True, tuple(removed), frozenset(kept), sources)
    return UploadPlan(False, (), frozenset(), sources)


def from_base(plan: UploadPlan, tree: Tree, received: Iterable[str]) -> list[tuple[str, TreeEntry]]:
    """(path in the base, entry) for every file that neither came nor is there already.

    Raises InvalidBundle if the base does not have the content of one.
    """
    there = set(received) | plan.kept
    missing = [entry for entry in tree.entries if entry.path not in there]
    unknown = [entry.path for entry in missing if entry.hash not in plan.sources]
    if unknown:
        raise InvalidBundle(
            f"{len(unknown)} file(s) of the bundle were not sent, the first is {unknown[0]!r}",
            hint="deploy again; the folder may have changed while it was being read",
            paths=unknown[:5],
        )
    return [(plan.sources[entry.hash], entry) for entry in missing]
