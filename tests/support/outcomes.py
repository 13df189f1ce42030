"""Ends of datums that a test makes up."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import cast

from kaos_backend.engine.jobs.db.rows import DatumRow
from kaos_backend.engine.jobs.run.progress import Outcome
from kaos_backend.engine.jobs.schedule.states import DatumState
from kaos_backend.engine.store.store import Store
from tests.support.files import new_files


def outcome(store: Store, directory: Path) -> Outcome:
    """The end of a datum whose output is too large for SQLite and too small for a file of its own."""
    directory.mkdir()
    (directory / "model").write_bytes(os.urandom(200_000))
    datum = cast(DatumRow, SimpleNamespace(id="ab" * 32))
    staged = store.stage(new_files(directory), datum.id)
    return Outcome(datum, DatumState.SUCCESS, staged, "", 1, 0, 0, 0)


def packs_open(root: Path) -> int:
    """Descriptors of packs below `root`: a store that another test left open does not count."""
    targets = [str(fd.readlink()) for fd in Path("/proc/self/fd").iterdir() if os.path.lexists(fd)]
    return sum(target.startswith(str(root)) and ".pack" in target for target in targets)
