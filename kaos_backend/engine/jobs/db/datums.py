"""SQL of datums: what a job has to do, what was done before, and how each of them ended.

Every function takes a connection and speaks in the values of `rows`.
"""
# ruff: noqa: S608 - the statements are put together from constants of this module only

from __future__ import annotations

import itertools
import sqlite3
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import msgspec

from kaos_backend.engine.jobs.db.rows import DatumRow, Job, Result, datum_of
from kaos_backend.engine.jobs.schedule.states import TERMINAL_JOBS, DatumState, JobState, move_datum
from kaos_backend.engine.jobs.spec.plan import Datum, File
from kaos_backend.engine.store.references import Column

OUTPUTS = Column("pps_datums", "root")
"""What datums left: those of successes, of skipped ones that share them, and what failed ones had so far."""
# In pps_datums twice: of one job `d`, and of another `o` whose datum is the same.
_DONE = "{0}.state IN (2, 3) AND NOT {0}.late"
_COUNTER = {DatumState.SUCCESS: "processed", DatumState.FAILED: "failed", DatumState.RECOVERED: "recovered"}


class Kept(NamedTuple):
    """What of a success a datum that is skipped has as well: see `DatumRow`."""

    source: str
    root: bytes | None
    tries: int
    process_us: int
    upload_bytes: int
    started_us: int | None
    finished_us: int | None
    image: str


def kept_results(db: sqlite3.Connection, pipeline_row: int, datums: Iterable[Datum]) -> dict[str, Kept]:
    """Datum id → the newest earlier success of the same pipeline, id and hash."""
    found = {}
    # A pipeline's jobs begin in order, and so do their rows: the newest is the last one of the index.
    query = (
        f"SELECT {', '.join(f'd.{name}' for name in Kept._fields)}"
        " FROM pps_datums d JOIN pps_jobs j ON j.seq = d.job"
        " WHERE d.id = ? AND d.hash = ? AND d.state IN (2, 3) AND j.pipeline = ?"
        " ORDER BY d.rowid DESC LIMIT 1"
    )
    for datum in datums:
        key = (bytes.fromhex(datum.id), bytes.fromhex(datum.hash), pipeline_row)
        row = db.execute(query, key).fetchone()
        if row:
            found[datum.id] = Kept(*row)
    return found


def insert_datums(
    db: sqlite3.Connection,
    job: Job,
    datums: Sequence[Datum],
    kept: Mapping[str, Kept],
    *,
    counted: bool = True,
) -> None:
    """Write down what a job has to do. Datums in `kept` are SKIPPED and share its output. `counted`: they
    show in the job's numbers.
    """
    ended = itertools.count(1)

    def row(position: int, datum: Datum) -> tuple[object, ...]:
        old = kept.get(datum.id)
        return (
            job.seq,
            bytes.fromhex(datum.id),
            bytes.fromhex(datum.hash),
            position,
            move_datum(DatumState.UNKNOWN, DatumState.SKIPPED) if old else DatumState.UNKNOWN,
            old.source if old else job.key.id,
            old.root if old else None,
            old.tries if old else 0,
            old.process_us if old else 0,
            sum(file.size_bytes for file in datum.files),
            old.upload_bytes if old else 0,
            old.started_us if old else None,
            old.finished_us if old else None,
            msgspec.msgpack.encode(datum.files),
            old.image if old else "",
            next(ended) if old else None,
        )

    db.executemany(
        "INSERT INTO pps_datums (job, id, hash, position, state, source, root, tries, process_us,"
        " download_bytes, upload_bytes, started_us, finished_us, files, image, ended)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        itertools.starmap(row, enumerate(datums)),
    )
    if not counted:
        return
    db.execute(
        "UPDATE pps_jobs SET total = ?, skipped = ? WHERE seq = ?",
        (len(datums), sum(datum.id in kept for datum in datums), job.seq),
    )


def list_datums(db: sqlite3.Connection, seq: int) -> list[DatumRow]:
    """A job's datums, by id."""
    return list(each_datum(db, seq))


def each_datum(db: sqlite3.Connection, seq: int, but: Collection[str] = ()) -> Iterator[DatumRow]:
    """As `list_datums`, without those of some ids; of tens of thousands only one is in memory."""
    rows = db.execute("SELECT * FROM pps_datums WHERE job = ? ORDER BY position", (seq,))
    return map(datum_of, (row for row in rows if row["id"].hex() not in but) if but else rows)


def reasons_of(db: sqlite3.Connection, seq: int, state: DatumState) -> list[tuple[str, str]]:
    """Id and reason of a job's datums that ended so, by id."""
    query = "SELECT id, reason FROM pps_datums WHERE job = ? AND state = ? ORDER BY position"
    return [(id.hex(), reason) for id, reason in db.execute(query, (seq, state.value))]


def list_ended(db: sqlite3.Connection, seq: int, since: int, path: str) -> Iterator[DatumRow]:
    """A job's datums that have ended, but for those that were among its first `since`, by id.

    `path`: only those that may read a file there.
    """
    rows = db.execute(
        "SELECT * FROM pps_datums WHERE job = ? AND state != 0 AND NOT late"
        " AND (ended IS NULL OR ended > ?) AND instr(files, ?) ORDER BY position",
        (seq, since, path.encode()),
    )
    return map(datum_of, rows)


def waiting_datums(db: sqlite3.Connection, seq: int) -> list[DatumRow]:
    """Those of a running job's datums that have not ended, in the order in which they are to run."""
    rows = db.execute("SELECT * FROM pps_datums WHERE job = ? AND state = 0 ORDER BY position", (seq,))
    # What all of them read is in memory once.
    same: dict[File, File] = {}
    return [_sharing(datum_of(row), same) for row in rows]


def _sharing(datum: DatumRow, same: dict[File, File]) -> DatumRow:
    files = tuple([same.setdefault(file, file) for file in datum.files])
    return msgspec.structs.replace(datum, files=files)


def ended_datums(db: sqlite3.Connection, seq: int, *, everything: bool = False) -> set[str]:
    """The ids of a job's datums that have ended; all of them with `everything`."""
    rows = db.execute(
        "SELECT id FROM pps_datums WHERE job = ? AND (? OR (state != 0 AND NOT late))", (seq, everything)
    )
    return {row[0].hex() for row in rows}


def failed_datums(db: sqlite3.Connection, seq: int) -> set[str]:
    """The ids of a job's datums that failed."""
    rows = db.execute(
        "SELECT id FROM pps_datums WHERE job = ? AND state IN (?, ?) AND NOT late",
        (seq, DatumState.FAILED, DatumState.RECOVERED),
    )
    return {row[0].hex() for row in rows}


def kept_roots(db: sqlite3.Connection, seq: int, but_of: int | None = None) -> list[bytes]:
    """The outputs of the datums that a job has finished, in the order of its datums; without those that are
    also outputs of job `but_of`, by the same datums.
    """
    rows = db.execute(
        f"SELECT d.root FROM pps_datums d WHERE d.job = ? AND {_DONE.format('d')} AND d.root IS NOT NULL"
        " AND NOT EXISTS (SELECT 1 FROM pps_datums o WHERE o.job = ? AND o.id = d.id AND o.root = d.root"
        f" AND {_DONE.format('o')}) ORDER BY d.position",
        (seq, but_of),
    )
    return [row[0] for row in rows]


def unchanged_datums(db: sqlite3.Connection, seq: int, before: int) -> set[str]:
    """The ids of a job's datums that are those of an earlier job, which ran them or skipped them likewise."""
    rows = db.execute(
        "SELECT d.id FROM pps_datums d JOIN pps_datums o ON o.job = ? AND o.id = d.id WHERE d.job = ?"
        f" AND {_DONE.format('d')} AND {_DONE.format('o')}"
        " AND d.hash = o.hash AND d.root IS o.root AND d.source = o.source",
        (before, seq),
    )
    return {row[0].hex() for row in rows}


def find_datum(db: sqlite3.Connection, seq: int, id: str) -> DatumRow | None:
    try:
        raw = bytes.fromhex(id)
    except ValueError:
        return None
    row = db.execute("SELECT * FROM pps_datums WHERE job = ? AND id = ?", (seq, raw)).fetchone()
    return datum_of(row) if row else None


def record_end(db: sqlite3.Connection, seq: int, id: str, result: Result) -> bool:
    """Write the end of a datum that a worker had; False if an end was there already (or the job is gone), or
    the job has ended meanwhile: then the end is written for later jobs alone, and this one never had it.

    IllegalMove when a worker's datum cannot end so. That a worker has it is not stored: its row says UNKNOWN.
    """
    state = move_datum(DatumState.STARTING, result.state)
    job = db.execute(
        "SELECT state, processed + skipped + failed + recovered AS ended FROM pps_jobs WHERE seq = ?", (seq,)
    ).fetchone()
    late = job is not None and JobState(job["state"]) in TERMINAL_JOBS
    done = db.execute(
        "UPDATE pps_datums SET late = ?, state = ?, root = ?, reason = ?, tries = ?, process_us = ?,"
        " upload_bytes = ?, started_us = ?, finished_us = ?, image = ?, ended = ?"
        " WHERE job = ? AND id = ? AND state = 0",
        (
            late,
            state,
            result.root,
            result.reason,
            result.tries,
            result.process_us,
            result.upload_bytes,
            result.started_us,
            result.finished_us,
            result.image,
            None if job is None or late else job["ended"] + 1,
            seq,
            bytes.fromhex(id),
        ),
    ).rowcount
    if not done or late:
        return False
    counter = _COUNTER[state]
    db.execute(
        f"UPDATE pps_jobs SET {counter} = {counter} + 1, process_us = process_us + ?,"
        " upload_bytes = upload_bytes + ?, download_bytes = download_bytes"
        " + (SELECT download_bytes FROM pps_datums WHERE job = ? AND id = ?)"
        " WHERE seq = ?",
        (result.process_us, result.upload_bytes, seq, bytes.fromhex(id), seq),
    )
    return True
