"""SQL of datums: what a job has to do, what was done before, and how each of them ended.

Every function takes a connection and speaks in the values of `rows`.
"""
# ruff: noqa: S608 - the statements are put together from constants of this module only

from __future__ import annotations

import itertools
import sqlite3
from collections.abc import Iterable, Iterator, Mapping

import msgspec

from kaos_backend.engine.jobs.db.rows import DatumRow, Job, Result, datum_of
from kaos_backend.engine.jobs.schedule.states import TERMINAL_JOBS, DatumState, JobState, move_datum
from kaos_backend.engine.jobs.spec.plan import Datum
from kaos_backend.engine.store.references import Column

OUTPUTS = Column("pps_datums", "root")
"""What datums left: those of successes, of skipped ones that share them, and what failed ones had so far."""
_COUNTER = {DatumState.SUCCESS: "processed", DatumState.FAILED: "failed", DatumState.RECOVERED: "recovered"}


def kept_results(db: sqlite3.Connection, pipeline_row: int, datums: Iterable[Datum]) -> dict[str, DatumRow]:
    """Datum id → the newest earlier success of the same pipeline, id and hash."""
    found = {}
    for datum in datums:
        row = db.execute(
            "SELECT d.* FROM pps_datums d JOIN pps_jobs j ON j.seq = d.job"
            " WHERE d.id = ? AND d.hash = ? AND d.state IN (2, 3) AND j.pipeline = ?"
            " ORDER BY d.job DESC LIMIT 1",
            (bytes.fromhex(datum.id), bytes.fromhex(datum.hash), pipeline_row),
        ).fetchone()
        if row:
            found[datum.id] = datum_of(row)
    return found


def insert_datums(
    db: sqlite3.Connection,
    job: Job,
    datums: Iterable[Datum],
    kept: Mapping[str, DatumRow],
    *,
    counted: bool = True,
) -> None:
    """Write down what a job has to do. Datums in `kept` are SKIPPED and share its output. `counted`: they
    show in the job's numbers.
    """
    rows = []
    ended = itertools.count(1)
    for position, datum in enumerate(datums):
        old = kept.get(datum.id)
        rows.append(
            (
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
        )
    db.executemany(
        "INSERT INTO pps_datums (job, id, hash, position, state, source, root, tries, process_us,"
        " download_bytes, upload_bytes, started_us, finished_us, files, image, ended)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        rows,
    )
    if not counted:
        return
    db.execute(
        "UPDATE pps_jobs SET total = ?, skipped = ? WHERE seq = ?",
        (len(rows), sum(row[4] == DatumState.SKIPPED for row in rows), job.seq),
    )


def list_datums(db: sqlite3.Connection, seq: int) -> list[DatumRow]:
    """A job's datums, by id."""
    return list(each_datum(db, seq))


def each_datum(db: sqlite3.Connection, seq: int) -> Iterator[DatumRow]:
    """As `list_datums`; of tens of thousands only one is in memory."""
    return map(datum_of, db.execute("SELECT * FROM pps_datums WHERE job = ? ORDER BY position", (seq,)))


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
    return [datum_of(row) for row in rows]


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


def kept_roots(db: sqlite3.Connection, seq: int) -> list[bytes]:
    """The outputs of the datums that a job has finished, in the order of its datums."""
    rows = db.execute(
        "SELECT root FROM pps_datums WHERE job = ? AND state IN (2, 3) AND NOT late AND root IS NOT NULL"
        " ORDER BY position",
        (seq,),
    )
    return [row[0] for row in rows]


def done_outputs(db: sqlite3.Connection, seq: int) -> dict[str, tuple[str, bytes | None]]:
    """The hashes and the outputs of a job's datums that succeeded, by id."""
    rows = db.execute(
        "SELECT id, hash, root FROM pps_datums WHERE job = ? AND state IN (2, 3) AND NOT late", (seq,)
    )
    return {row[0].hex(): (row[1].hex(), row[2]) for row in rows}


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
