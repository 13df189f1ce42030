"""SQL of pipelines and jobs. Every function takes a connection and speaks in the values of `rows`.

That of datums is in `datums`.
"""
# ruff: noqa: S608 - the statements are put together from constants of this module only

from __future__ import annotations

import json
import sqlite3
from collections.abc import Collection, Iterable

from kaos_backend.engine.errors import NotFound
from kaos_backend.engine.jobs.db.rows import (
    Job,
    JobKey,
    Pipeline,
    PipelineKey,
    job_of,
    pipeline_of,
)
from kaos_backend.engine.jobs.schedule.states import (
    IllegalMove,
    JobState,
    PipelineState,
    move_job,
    move_pipeline,
)

_PIPELINE = """
SELECT p.id, p.project, p.name, v.version, p.version AS latest, p.stopped, p.state, p.reason, p.metadata,
       p.created_us, v.created_us AS updated_us, v.spec_commit, v.spec, v.user_json, v.effective_json
FROM pps_pipelines p JOIN pps_versions v ON v.pipeline = p.id
"""
_JOB = "SELECT j.*, p.project, p.name FROM pps_jobs j JOIN pps_pipelines p ON p.id = j.pipeline"


# --- pipelines


def find_pipeline(db: sqlite3.Connection, key: PipelineKey, version: int | None = None) -> Pipeline | None:
    """One version of a pipeline, the latest by default."""
    row = db.execute(
        f"{_PIPELINE} WHERE p.project = ? AND p.name = ? AND v.version = coalesce(?, p.version)",
        (key.project, key.name, version),
    ).fetchone()
    return pipeline_of(row) if row else None


def get_pipeline(db: sqlite3.Connection, key: PipelineKey, version: int | None = None) -> Pipeline:
    """As `find_pipeline`; NotFound when missing."""
    found = find_pipeline(db, key, version)
    if found is None:
        suffix = "" if version is None else f" version {version}"
        raise NotFound(f'pipeline "{key}"{suffix} not found')
    return found


def pipelines(db: sqlite3.Connection, history: int = 0, projects: Iterable[str] = ()) -> list[Pipeline]:
    """Pipelines, newest first; each with up to `history` older versions (-1: all)."""
    wanted = set(projects)
    rows = db.execute(
        f"{_PIPELINE} WHERE v.version >= p.version - ? ORDER BY p.created_us DESC, p.id DESC, v.version DESC",
        ((1 << 62) if history < 0 else history,),
    )
    return [pipeline_of(row) for row in rows if not wanted or row["project"] in wanted]


def is_mentioned(db: sqlite3.Connection, text: str) -> bool:
    """Whether `text` is a value somewhere in the spec of any version of a pipeline.

    `text` has no characters that JSON would escape.
    """
    query = "SELECT EXISTS (SELECT 1 FROM pps_versions WHERE instr(effective_json, ?))"
    return bool(db.execute(query, (f'"{text}"',)).fetchone()[0])


def is_lost(db: sqlite3.Connection, image: str) -> bool:
    """Whether an image that is not there was made by a pipeline, and none is about to make it again.

    One that none has ever made may come from elsewhere.
    """
    query = (
        "SELECT EXISTS (SELECT 1 FROM pps_jobs j WHERE j.pipeline = v.pipeline AND j.finished_us IS NULL)"
        " FROM pps_versions v WHERE instr(v.effective_json, ?)"
        " AND json_extract(v.effective_json, '$.transform.env.KAOS_IMAGE') = ?"
    )
    making = [row[0] for row in db.execute(query, (f'"{image}"', image))]
    return bool(making) and not any(making)


def projects_with(db: sqlite3.Connection, text: str) -> set[str]:
    """The projects of the pipelines with a version that mentions `text`, as `is_mentioned` has it."""
    query = (
        "SELECT DISTINCT p.project FROM pps_versions v JOIN pps_pipelines p ON p.id = v.pipeline"
        " WHERE instr(v.effective_json, ?)"
    )
    return {row[0] for row in db.execute(query, (f'"{text}"',))}


def rows_of_pipelines(db: sqlite3.Connection) -> set[int]:
    """The rows of the pipelines that there are."""
    return {row for (row,) in db.execute("SELECT id FROM pps_pipelines")}


def pipelines_in(db: sqlite3.Connection, states: Iterable[PipelineState]) -> list[Pipeline]:
    """The latest versions of the pipelines in one of `states`."""
    wanted = ",".join(str(int(state)) for state in states)
    return [
        pipeline_of(row)
        for row in db.execute(f"{_PIPELINE} WHERE v.version = p.version AND p.state IN ({wanted})")
    ]


def live_versions(db: sqlite3.Connection) -> dict[tuple[int, int], PipelineKey]:
    """(row, version) → key of the pipelines that are neither stopped nor beyond hope."""
    rows = db.execute(
        "SELECT id, version, project, name FROM pps_pipelines WHERE NOT stopped AND state != ?",
        (PipelineState.FAILURE,),
    )
    return {(row["id"], row["version"]): PipelineKey(row["project"], row["name"]) for row in rows}


def insert_version(
    db: sqlite3.Connection,
    key: PipelineKey,
    *,
    state: PipelineState,
    spec_commit: str,
    spec: str,
    user_json: str,
    effective_json: str,
    now_us: int,
) -> None:
    """Create the pipeline, or its next version; the state moves, the reason is cleared."""
    old = find_pipeline(db, key)
    if old is None:
        row = db.execute(
            "INSERT INTO pps_pipelines (project, name, version, state, created_us) VALUES (?, ?, 1, ?, ?)",
            (key.project, key.name, state, now_us),
        ).lastrowid
        version = 1
    else:
        row, version = old.row, old.latest + 1
        db.execute(
            "UPDATE pps_pipelines SET version = ?, state = ?, reason = '' WHERE id = ?",
            (version, move_pipeline(old.state, state), row),
        )
    db.execute(
        "INSERT INTO pps_versions VALUES (?, ?, ?, ?, ?, ?, ?)",
        (row, version, spec_commit, spec, user_json, effective_json, now_us),
    )


def set_pipeline_state(
    db: sqlite3.Connection, pipeline: Pipeline, state: PipelineState, reason: str, stopped: bool | None = None
) -> None:
    """Move a pipeline from the state `pipeline` has; IllegalMove when the table forbids it, or it moved."""
    done = db.execute(
        "UPDATE pps_pipelines SET state = ?, reason = ?, stopped = coalesce(?, stopped)"
        " WHERE id = ? AND state = ?",
        (move_pipeline(pipeline.state, state), reason, stopped, pipeline.row, pipeline.state),
    ).rowcount
    if not done:
        raise IllegalMove(f"pipeline {pipeline.key} is not {pipeline.state.name} any more")


def last_job_states(db: sqlite3.Connection) -> dict[int, JobState]:
    """Pipeline row → state of its newest job."""
    rows = db.execute(
        "SELECT pipeline, state FROM pps_jobs WHERE seq IN (SELECT max(seq) FROM pps_jobs GROUP BY pipeline)"
    )
    return {row[0]: JobState(row[1]) for row in rows}


# --- jobs


def insert_job(db: sqlite3.Connection, pipeline: Pipeline, id: str, now_us: int) -> None:
    """A new job of the pipeline's latest version; a second one of the same id is ignored."""
    db.execute(
        "INSERT OR IGNORE INTO pps_jobs (pipeline, id, version, state, created_us) VALUES (?, ?, ?, ?, ?)",
        (pipeline.row, id, pipeline.latest, JobState.CREATED, now_us),
    )


def insert_rerun(db: sqlite3.Connection, job: Job, id: str, now_us: int, *, only_failed: bool) -> None:
    """A new job of the version that `job` ran."""
    db.execute(
        "INSERT INTO pps_jobs (pipeline, id, version, state, created_us, failed_of)"
        " VALUES (?, ?, ?, ?, ?, ?)",
        (job.pipeline_row, id, job.version, JobState.CREATED, now_us, job.seq if only_failed else None),
    )


def find_job(db: sqlite3.Connection, key: JobKey) -> Job | None:
    row = db.execute(
        f"{_JOB} WHERE p.project = ? AND p.name = ? AND j.id = ?",
        (key.pipeline.project, key.pipeline.name, key.id),
    ).fetchone()
    return job_of(row) if row else None


def get_job(db: sqlite3.Connection, key: JobKey) -> Job:
    """NotFound when missing."""
    job = find_job(db, key)
    if job is None:
        raise NotFound(f"jobs {key} not found")
    return job


def job_by_seq(db: sqlite3.Connection, seq: int) -> Job | None:
    row = db.execute(f"{_JOB} WHERE j.seq = ?", (seq,)).fetchone()
    return job_of(row) if row else None


def jobs(
    db: sqlite3.Connection,
    *,
    key: PipelineKey | None = None,
    id: str = "",
    after_seq: int = 0,
) -> list[Job]:
    """Jobs in order of creation, of one pipeline or one set if given."""
    # Each condition only where it is asked for, or no index would be of use.
    where: list[tuple[str, object]] = [("j.seq > ?", after_seq)]
    where += [("j.id = ?", id)] if id else []
    where += [("p.project = ?", key.project), ("p.name = ?", key.name)] if key else []
    conditions = " AND ".join(condition for condition, _ in where)
    rows = db.execute(f"{_JOB} WHERE {conditions} ORDER BY j.seq", [value for _, value in where])
    return [job_of(row) for row in rows]


def job_counts(db: sqlite3.Connection, pipelines: Collection[str]) -> dict[str, int]:
    """How many commit sets have jobs of pipelines of these names, by project."""
    names = json.dumps(list(pipelines))
    rows = db.execute(
        "SELECT p.project, count(DISTINCT j.id) FROM pps_jobs j JOIN pps_pipelines p ON p.id = j.pipeline"
        " WHERE p.name IN (SELECT value FROM json_each(?)) GROUP BY p.project",
        (names,),
    )
    return {row[0]: row[1] for row in rows}


def job_ids(db: sqlite3.Connection, project: str, pipelines: Collection[str], prefix: str) -> list[str]:
    """The ids that start with `prefix` (hex digits) of a project's jobs of such pipelines, newest first."""
    rows = db.execute(
        "SELECT j.id FROM pps_jobs j JOIN pps_pipelines p ON p.id = j.pipeline"
        " WHERE p.project = ? AND p.name IN (SELECT value FROM json_each(?)) AND j.id >= ? AND j.id < ?"
        " GROUP BY j.id ORDER BY max(j.seq) DESC",
        (project, json.dumps(list(pipelines)), prefix, prefix + "g"),
    )
    return [row[0] for row in rows]


def head_jobs(db: sqlite3.Connection) -> list[Job]:
    """The oldest unfinished job of each pipeline."""
    return [
        job_of(row)
        for row in db.execute(
            f"{_JOB} WHERE j.seq IN"
            " (SELECT min(seq) FROM pps_jobs WHERE finished_us IS NULL GROUP BY pipeline) ORDER BY j.seq"
        )
    ]


def head_job(db: sqlite3.Connection, pipeline_row: int) -> Job | None:
    """The oldest unfinished job of one pipeline."""
    row = db.execute(
        f"{_JOB} WHERE j.finished_us IS NULL AND j.pipeline = ? ORDER BY j.seq LIMIT 1", (pipeline_row,)
    ).fetchone()
    return job_of(row) if row else None


def open_jobs(db: sqlite3.Connection, pipeline_row: int | None = None) -> list[Job]:
    """The unfinished jobs of one pipeline, or of all of them, in order of creation."""
    rows = db.execute(
        f"{_JOB} WHERE j.finished_us IS NULL AND j.pipeline = coalesce(?, j.pipeline) ORDER BY j.seq",
        (pipeline_row,),
    )
    return [job_of(row) for row in rows]


def usual_us(db: sqlite3.Connection, pipeline_row: int) -> int:
    """What a datum took in the newest job of a pipeline that ran any, in µs; 0 without such a job."""
    row = db.execute(
        "SELECT process_us / (processed + failed + recovered) FROM pps_jobs"
        " WHERE pipeline = ? AND processed + failed + recovered > 0 ORDER BY seq DESC LIMIT 1",
        (pipeline_row,),
    ).fetchone()
    return int(row[0]) if row else 0


def set_job_state(
    db: sqlite3.Connection,
    job: Job,
    state: JobState,
    *,
    reason: str = "",
    started_us: int | None = None,
    finished_us: int | None = None,
) -> None:
    """Move a job from the state that `job` has; IllegalMove when the table forbids it, or it moved meanwhile.

    A job that never ran is started when it ends.
    """
    done = db.execute(
        "UPDATE pps_jobs SET state = ?, reason = ?, started_us = coalesce(started_us, ?, ?), finished_us = ?"
        " WHERE seq = ? AND state = ?",
        (move_job(job.state, state), reason, started_us, finished_us, finished_us, job.seq, job.state),
    ).rowcount
    if not done:
        raise IllegalMove(f"job {job.key} is not {job.state.name} any more")


def count_restart(db: sqlite3.Connection, seq: int) -> None:
    """Note that a job was taken up again."""
    db.execute("UPDATE pps_jobs SET restart = restart + 1 WHERE seq = ?", (seq,))


def delete_job(db: sqlite3.Connection, job: Job) -> None:
    db.execute("DELETE FROM pps_jobs WHERE seq = ?", (job.seq,))


# --- pauses


def paused(db: sqlite3.Connection) -> frozenset[str]:
    """The projects in which nothing new starts; "" stands for all."""
    rows = db.execute(
        "SELECT coalesce(projects.name, '') FROM pps_paused LEFT JOIN projects"
        " ON projects.id = pps_paused.project"
    )
    return frozenset(row[0] for row in rows)


def set_paused(db: sqlite3.Connection, project: str, on: bool, now_us: int) -> None:
    """Note that nothing new shall start in a project ("": in all), or that it may again (in all: in each)."""
    which = "(SELECT id FROM projects WHERE name = ?)"
    if project:
        db.execute(f"DELETE FROM pps_paused WHERE project = {which}", (project,))
    else:
        db.execute("DELETE FROM pps_paused" + (" WHERE project IS NULL" if on else ""))
    if on:
        db.execute(f"INSERT INTO pps_paused VALUES ({which}, ?)", (project, now_us))


# --- defaults


def defaults_json(db: sqlite3.Connection, project: str) -> str:
    """The stored defaults of a project, or of the cluster (`""`); `{}` when none were set."""
    row = db.execute("SELECT json FROM pps_defaults WHERE project = ?", (project,)).fetchone()
    return str(row[0]) if row else "{}"


def set_defaults_json(db: sqlite3.Connection, project: str, text: str, now_us: int) -> None:
    db.execute("INSERT OR REPLACE INTO pps_defaults VALUES (?, ?, ?)", (project, text, now_us))
