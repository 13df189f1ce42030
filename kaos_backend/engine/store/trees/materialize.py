"""A tree written to disk for good, or not at all."""

from __future__ import annotations

from pathlib import Path

from kaos_backend.engine.errors import DISK_FULL_ERRNOS, disk_full
from kaos_backend.engine.ids import new_id
from kaos_backend.engine.store.trees.layout import Layout, Store, Tree
from kaos_formats.folders import clean_up


def materialize(store: Store, tree: Tree, dest: Path) -> None:
    """Write a tree below `dest`, at its full path in the tree, as files of its own.

    `dest` appears complete or not at all; when it is there already, or another thread is quicker, that is
    fine. Everything in it is read-only.

    Raises what `Layout` and `Layout.write` do.
    """
    if dest.is_dir():
        return
    layout = Layout(store, tree)
    temporary = dest.with_name(f".{dest.name}.{new_id()}")
    try:
        temporary.mkdir(parents=True, mode=0o755)
        layout.write(temporary)
        _publish(temporary, dest)
    except OSError as error:
        if error.errno in DISK_FULL_ERRNOS:
            raise disk_full(str(dest)) from error
        raise
    finally:
        if temporary.exists():
            clean_up(temporary)


def _publish(temporary: Path, dest: Path) -> None:
    try:
        temporary.rename(dest)
    except OSError:
        if not dest.is_dir():
            raise
