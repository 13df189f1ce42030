"""Jobs that begin and end, inside one write transaction together with their commits."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable, Sequence

from kaos_backend.engine.errors import DataLoss, EngineError
from kaos_backend.engine.jobs.db import tables
from kaos_backend.engine.jobs.db.datums import each_datum, kept_roots, unchanged_datums
from kaos_backend.engine.jobs.db.meta import Told, entries
from kaos_backend.engine.jobs.db.rows import Job, JobKey, PipelineKey
from kaos_backend.engine.jobs.schedule.states import DONE_DATUMS, TERMINAL_JOBS, JobState
from kaos_backend.engine.jobs.spec.plan import File
from kaos_backend.engine.store.model import META_REPO, USER_REPO, Commit, CommitKey, RepoKey
from kaos_backend.engine.store.reads import Reads
from kaos_backend.engine.store.store import Txn

log = logging.getLogger(__name__)

# Told the seq of a job that ended from outside, after COMMIT: its running datums are to be stopped.
Cancel = Callable[[int], None]


def output_commit(key: JobKey) -> CommitKey:
    return CommitKey(RepoKey(key.pipeline.project, key.pipeline.name, USER_REPO), key.id)


def meta_commit(key: JobKey) -> CommitKey:
    return CommitKey(RepoKey(key.pipeline.project, key.pipeline.name, META_REPO), key.id)


def commit_of(file: File) -> CommitKey:
    """The commit that a datum reads a file of."""
    return CommitKey(RepoKey(file.project, file.repo, file.repo_type), file.commit)


def create_jobs(txn: Txn, commits: Sequence[Commit]) -> None:
    """The store's hook: one job for each new output commit of a pipeline."""
    for commit in commits:
        repo = commit.key.repo
        if repo.type != USER_REPO:
            continue
        pipeline = tables.find_pipeline(txn.db, PipelineKey(repo.project, repo.name))
        if pipeline is not None and pipeline.spec.output_branch == commit.branch:
            tables.insert_job(txn.db, pipeline, commit.key.id, txn.now_us)


def rerun_jobs(txn: Txn, jobs: Sequence[Job], *, only_failed: bool) -> str:
    """The commit set of new jobs that run the versions and read the inputs of `jobs`, which are of one set
    and in the order in which they depend on one another.

    Branches stay where they are; but where a job's output is the head of its branch, the new one becomes
    that. `only_failed`: of what the last of the jobs did, only what failed is done again.
    """
    instead: dict[CommitKey, CommitKey] = {}
    for job in jobs:
        for key in (output_commit(job.key), meta_commit(job.key)):
            instead[key] = txn.start_alike(key, instead)
        tables.insert_rerun(txn.db, job, txn.set_id, txn.now_us, only_failed=only_failed and job is jobs[-1])
    return txn.set_id


def end_job(txn: Txn, job: Job, state: JobState, reason: str) -> None:
    """Move a job to a terminal state; its commits, if still open, finish with `reason` as their error."""
    tables.set_job_state(txn.db, job, state, reason=reason, finished_us=txn.now_us)
    for key in (output_commit(job.key), meta_commit(job.key)):
        commit = txn.find_commit(key)
        if commit is not None and commit.finishing_us is None:
            txn.finish_commit(key, error="" if state is JobState.SUCCESS else reason, force=True)


def end_open_job(txn: Txn, seq: int, state: JobState, reason: str) -> bool:
    """`end_job`, with all that its datums have finished; False if it has ended, or gone, meanwhile."""
    job = tables.job_by_seq(txn.db, seq)
    if job is None or job.state in TERMINAL_JOBS:
        return False
    show_finished(txn, job)
    end_job(txn, job, state, reason)
    return True


def show_meta(txn: Txn, job: Job) -> None:
    """Say in a job's meta commit how its datums ended, with what each read and wrote, the failed ones too.

    What the job before has said of those that are as they were is taken over, record and all.
    """
    if not is_open(txn, meta_commit(job.key)):
        return
    transform = tables.get_pipeline(txn.db, job.key.pipeline, job.version).spec.transform
    roots: dict[tuple[str, str, str, str], bytes | None] = {}

    def root_of(file: File) -> bytes | None:
        key = (file.commit, file.repo, file.repo_type, file.project)
        if key not in roots:
            commit = txn.find_commit(commit_of(file))
            roots[key] = commit.root if commit else None
        return roots[key]

    before = _told_before(txn, job)
    datums = each_datum(txn.db, job.seq, but=before.kept if before is not None else ())
    ended = (datum for datum in datums if datum.state in DONE_DATUMS)
    tree = entries(job, ended, transform.image if transform else "", root_of, before)
    txn.set_root(meta_commit(job.key), txn.build_tree(tree))


def _told_before(txn: Txn, job: Job) -> Told | None:
    """What the job before has said of datums: they read and wrote the same where hash and output are."""
    before, commit = before_it(txn, txn.db, meta_commit(job.key))
    if before is None or commit is None or commit.tree is None:
        return None
    try:
        told, files = (
            {entry.path.removeprefix(f"{top}/")[:-1] for entry in txn.list_dir(commit.tree, top)}
            for top in ("/meta", "/pfs")
        )
    except DataLoss:
        # What an earlier job lost costs this one nothing.
        return None
    kept = unchanged_datums(txn.db, job.seq, before.seq) & told & files
    return Told(commit.tree, kept, (told | files) - kept) if kept else None


def before_it(store: Reads, db: sqlite3.Connection, key: CommitKey) -> tuple[Job | None, Commit | None]:
    """The commit that a job's output or meta commit was made on, and the job that made that."""
    commit = store.find_commit(key)
    parent = None if commit is None or commit.parent is None else store.find_commit(commit.parent)
    if parent is None or parent.forgotten:
        return None, None
    pipeline = PipelineKey(key.repo.project, key.repo.name)
    return tables.find_job(db, JobKey(pipeline, parent.key.id)), parent


def output_before(store: Reads, db: sqlite3.Connection, job: Job) -> tuple[bytes, int] | None:
    """What the job before left, and its `seq`, where that is just what its datums made."""
    before, commit = before_it(store, db, output_commit(job.key))
    if before is None or commit is None or commit.tree is None or before.state is not JobState.SUCCESS:
        return None
    # Otherwise somebody else has finished it, with what it showed by then.
    return (commit.tree, before.seq) if commit.finished_us == before.finished_us else None


def is_open(txn: Txn, key: CommitKey) -> bool:
    """Whether the commit is there and takes more."""
    commit = txn.find_commit(key)
    return commit is not None and commit.finishing_us is None


def show_finished(txn: Txn, job: Job) -> None:
    """Bring all that a job's datums have finished into its commits, which show that now and then only."""
    output = output_commit(job.key)
    try:
        if is_open(txn, output):
            txn.set_root(output, txn.merge(kept_roots(txn.db, job.seq)))
        show_meta(txn, job)
    except DataLoss as error:
        # Damage keeps no job from being stopped; it has what its output shows.
        log.warning("job %s is ended without some of its outputs: %s", job.key, error.message)


def kill_job(txn: Txn, job: Job, reason: str, cancel: Cancel) -> None:
    """KILLED, unless it ended before. It has what its datums finished, and so have later jobs."""
    if job.state in TERMINAL_JOBS:
        return
    show_finished(txn, job)
    end_job(txn, job, JobState.KILLED, reason)
    txn.on_commit(lambda: cancel(job.seq))


def kill_open_jobs(txn: Txn, pipeline_row: int, reason: str, cancel: Cancel) -> None:
    """Kill every unfinished job of a pipeline."""
    for job in tables.open_jobs(txn.db, pipeline_row):
        kill_job(txn, job, reason, cancel)


def drop_jobs(txn: Txn, commits: Sequence[CommitKey], cancel: Cancel) -> None:
    """The store's hook before commits vanish: their unfinished jobs are stopped."""
    for commit in commits:
        if commit.repo.type != USER_REPO:
            continue
        job = tables.find_job(txn.db, JobKey(PipelineKey(commit.repo.project, commit.repo.name), commit.id))
        if job is not None and job.state not in TERMINAL_JOBS:
            tables.set_job_state(
                txn.db, job, JobState.KILLED, reason="output commit removed", finished_us=txn.now_us
            )
            seq = job.seq
            txn.on_commit(lambda seq=seq: cancel(seq))  # type: ignore[misc]


def guard_repo(txn: Txn, repo: RepoKey, force: bool) -> None:
    """The store's hook before a repo vanishes: a pipeline's output stays unless forced."""
    if force:
        return
    pipeline = tables.find_pipeline(txn.db, PipelineKey(repo.project, repo.name))
    if pipeline is not None:
        raise EngineError(
            f'cannot delete a repo associated with a pipeline: repo "{repo}"; delete the pipeline instead'
        )
