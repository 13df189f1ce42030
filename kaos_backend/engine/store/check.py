"""Looking over a whole store: does everything that the index speaks of exist?"""

from __future__ import annotations

from collections.abc import Iterator

from blake3 import blake3

from kaos_backend.engine.errors import EngineError
from kaos_backend.engine.store.bytes.objects import EMPTY_HASH, locate
from kaos_backend.engine.store.store import Store
from kaos_backend.engine.store.trees.tree import walk
from kaos_backend.engine.store.versions import refs

_BATCH = 500


def check_store(store: Store, read_content: bool = False) -> Iterator[str]:
    """What is wrong, in words; nothing for a sound store.

    Every tree of every commit is walked and every object looked up; with `read_content` every object is read
    and hashed, too.
    """
    checked: set[bytes] = set()
    with store.read() as db:
        commits = db.execute("SELECT id FROM commits ORDER BY id").fetchall()
        branches = db.execute("SELECT COUNT(*) FROM branches WHERE head_id NOT IN (SELECT id FROM commits)")
        if branches.fetchone()[0]:
            yield "a branch has no head"
        keys = [(refs.commit_by_id(db, row[0]).key, refs.commit_row(db, row[0])["root"]) for row in commits]
    for key, root in keys:
        try:
            wanted = {entry.hash for entry in walk(store.load, root) if entry.kind == "file"}
        except EngineError as error:
            yield f"commit {key}: {error.message}"
            continue
        todo = sorted(wanted - checked - {EMPTY_HASH})
        checked.update(todo)
        for start in range(0, len(todo), _BATCH):
            yield from _check_objects(store, str(key), todo[start : start + _BATCH], read_content)


def _check_objects(store: Store, commit: str, hashes: list[bytes], read_content: bool) -> Iterator[str]:
    with store.read() as db:
        places = locate(db, hashes)
        for hash_ in hashes:
            at = places.get(hash_)
            if at is None:
                yield f"commit {commit}: object {hash_.hex()} is not in the index"
                continue
            try:
                hasher = blake3()
                for piece in store.objects.open(db, at):
                    if not read_content:
                        break
                    hasher.update(piece)
            except (EngineError, OSError) as error:
                yield f"commit {commit}: {error}"
                continue
            if read_content and hasher.digest() != hash_:
                yield f"commit {commit}: object {hash_.hex()} has other content than its name says"
