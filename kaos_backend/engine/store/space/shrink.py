"""The database gives back the pages that it does not need any more."""

from __future__ import annotations

import logging
from collections.abc import Generator

from kaos_backend.engine.errors import EngineError
from kaos_backend.engine.store.space.pace import Pace, Progress
from kaos_backend.engine.store.store import Store

_INCREMENTAL = 2
_PAGES_AT_ONCE = 500
# What a store of an earlier version is rewritten for, once: so many bytes, or this share of it.
_WORTH_BYTES = 4 << 20
_WORTH_SHARE = 0.2

log = logging.getLogger(__name__)


def shrink(store: Store, pace: Pace) -> Generator[Progress, None, int]:
    """Give free pages back, some at a time; return how many bytes.

    A database that earlier versions made can give nothing back before it was rewritten. That is done at the
    first time that it is worth while, at once and holding up writers for its length (about a second for
    300 MB); it needs that much room in the folder for temporary files.
    """
    size, free, incremental = _state(store)
    if not incremental:
        if free < min(_WORTH_BYTES, size * _WORTH_SHARE):
            return 0
        yield Progress("compact", 0, 1)
        try:
            store.rewrite_database()
        except EngineError as error:
            log.warning("the database stays as large as it is: %s", error.message)
        return max(0, size - _state(store)[0])
    before = free
    while free:
        with store.maintain() as db:
            db.execute(f"PRAGMA incremental_vacuum({_PAGES_AT_ONCE})").fetchall()
            db.execute("COMMIT")
        pace.rest()
        now = _state(store)[1]
        if now >= free:
            break
        free = now
        yield Progress("compact", before - free, before)
    store.fold_log()
    return max(0, size - _state(store)[0])


def _state(store: Store) -> tuple[int, int, bool]:
    """(bytes of the database, of these free, whether it can give them back in steps)."""
    with store.read() as db:
        page, pages, free, mode = (
            int(db.execute(f"PRAGMA {name}").fetchone()[0])
            for name in ("page_size", "page_count", "freelist_count", "auto_vacuum")
        )
    return page * pages, page * free, mode == _INCREMENTAL
