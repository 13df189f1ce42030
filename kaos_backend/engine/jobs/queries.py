"""Reading pipelines, jobs and datums: what is committed, and what runs now."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import suppress

from kaos_backend.engine.errors import NotFound, Unknown
from kaos_backend.engine.jobs.controller import Controller
from kaos_backend.engine.jobs.db import datums as datum_sql
from kaos_backend.engine.jobs.db import secrets, tables
from kaos_backend.engine.jobs.db.lifecycle import output_commit
from kaos_backend.engine.jobs.db.rows import DatumRow, Job, JobKey, Pipeline, PipelineKey
from kaos_backend.engine.jobs.db.secrets import SecretInfo
from kaos_backend.engine.jobs.run.progress import Phase, Running
from kaos_backend.engine.jobs.schedule.states import TERMINAL_JOBS, JobState
from kaos_backend.engine.jobs.spec.inputs import check_input, complete_input, crons
from kaos_backend.engine.jobs.spec.plan import Datum, Match, plan
from kaos_backend.engine.jobs.spec.spec import Input, PfsInput
from kaos_backend.engine.store.model import CommitKey, RepoKey
from kaos_backend.engine.store.store import Store
from kaos_backend.engine.store.trees.glob import match_glob


class Queries:
    """Reads over a store and the controller of its jobs. Each method sees one snapshot."""

    def __init__(self, store: Store, controller: Controller) -> None:
        self.store = store
        self._controller = controller

    # --- pipelines

    def find_pipeline(self, key: PipelineKey, version: int | None = None) -> Pipeline | None:
        """One version of a pipeline, the latest by default."""
        with self.store.read() as db:
            return tables.find_pipeline(db, key, version)

    def pipeline(self, key: PipelineKey, version: int | None = None, back: int = 0) -> Pipeline:
        """A version by its number, or so many `back` from the latest. NotFound when missing."""
        with self.store.read() as db:
            latest = tables.get_pipeline(db, key)
            wanted = latest.latest - back if version is None else version
            return latest if wanted == latest.version else tables.get_pipeline(db, key, wanted)

    def list_pipelines(
        self, history: int = 0, projects: Iterable[str] = (), set_id: str = ""
    ) -> list[Pipeline]:
        """Newest first, each with up to `history` older versions (-1: all).

        With `set_id` only the versions that run jobs of that set.
        """
        with self.store.read() as db:
            found = tables.pipelines(db, history, projects)
            if set_id:
                versions = {(job.pipeline_row, job.version) for job in tables.jobs(db, id=set_id)}
                found = [one for one in found if (one.row, one.version) in versions]
        return self._controller.look(found)

    def last_job_states(self) -> dict[int, JobState]:
        """Pipeline row → state of its newest job."""
        with self.store.read() as db:
            return tables.last_job_states(db)

    # --- secrets

    def secret(self, name: str) -> SecretInfo:
        """All but the values. Unknown when there is none of this name."""
        with self.store.read() as db:
            return secrets.get(db, name)

    def secrets(self) -> list[SecretInfo]:
        """Every secret, by name."""
        with self.store.read() as db:
            return secrets.every(db)

    # --- jobs

    def find_job(self, key: JobKey) -> Job | None:
        with self.store.read() as db:
            return tables.find_job(db, key)

    def job(self, key: JobKey) -> Job:
        """NotFound when missing."""
        with self.store.read() as db:
            return tables.get_job(db, key)

    def jobs_of(self, key: PipelineKey, after_seq: int = 0) -> list[Job]:
        """A pipeline's jobs in order of creation; NotFound when there is no such pipeline."""
        with self.store.read() as db:
            tables.get_pipeline(db, key)
            return tables.jobs(db, key=key, after_seq=after_seq)

    def list_jobs(
        self,
        pipeline: PipelineKey | None = None,
        projects: Collection[str] = (),
        inputs: Sequence[CommitKey] = (),
        history: int = -1,
    ) -> list[Job]:
        """Jobs in order of creation: of one pipeline, of some projects, that read all of `inputs`, run by the
        latest version of their pipeline or one of `history` before it (-1: any). NotFound: no such pipeline.
        """
        with self.store.read() as db:
            if pipeline is not None:
                tables.get_pipeline(db, pipeline)
            found = tables.jobs(db, key=pipeline)
            latest = {one.row: one.latest for one in tables.pipelines(db)}
        return [
            job
            for job in found
            if (not projects or job.key.pipeline.project in projects)
            and (history < 0 or job.version >= latest[job.pipeline_row] - history)
            and (not inputs or self._reads(job, inputs))
        ]

    def _reads(self, job: Job, inputs: Sequence[CommitKey]) -> bool:
        direct: set[CommitKey] = set()
        try:
            for commit in self.store.set_commits(job.key.id):
                direct.update(commit.provenance)
        except NotFound:
            return False
        return all(key in direct for key in inputs)

    def job_counts(self, pipelines: Collection[str]) -> dict[str, int]:
        """How many commit sets have jobs of pipelines of these names, by project."""
        with self.store.read() as db:
            return tables.job_counts(db, pipelines)

    def job_ids(self, project: str, pipelines: Collection[str], prefix: str = "") -> list[str]:
        """The ids that start with `prefix` of a project's jobs of such pipelines, newest first."""
        with self.store.read() as db:
            return tables.job_ids(db, project, pipelines, prefix)

    def open_jobs(self) -> list[tuple[Job, Pipeline, int]]:
        """The jobs that have not ended, in order of creation, with the version of their pipeline that runs
        them, and what a datum of it took before, in µs (0 where none has run yet).
        """
        with self.store.read() as db:
            usual: dict[int, int] = {}
            found = []
            for job in tables.open_jobs(db):
                if job.pipeline_row not in usual:
                    usual[job.pipeline_row] = tables.usual_us(db, job.pipeline_row)
                pipeline = tables.get_pipeline(db, job.key.pipeline, job.version)
                found.append((job, pipeline, usual[job.pipeline_row]))
        return found

    def job_set(self, set_id: str) -> list[Job]:
        """The jobs of a commit set, upstream first; none is fine. NotFound when there is no such set."""
        with self.store.read() as db:
            found = tables.jobs(db, id=set_id)
        if not found:
            self.store.set_commits(set_id)
        return self.upstream_first(set_id, found)

    def upstream_first(self, set_id: str, jobs: Iterable[Job]) -> list[Job]:
        """Jobs of one set, in the order of the set's commits."""
        try:
            order = {c.key: i for i, c in enumerate(self.store.set_commits(set_id))}
        except NotFound:
            order = {}
        return sorted(jobs, key=lambda job: (order.get(output_commit(job.key), len(order)), job.seq))

    def reason(self, job: Job) -> str:
        """Why a job ended as it did, or what it waits for now; "" when there is nothing to say."""
        if job.state in TERMINAL_JOBS:
            return job.reason
        try:
            return self._controller.why_waits(job)
        except NotFound:
            return ""  # it is being deleted

    def running(self, job: Job) -> list[Running]:
        """The datums of a job that are being worked on, those included that still wait for a worker."""
        run = self._controller.run_of(job.seq)
        return run.running() if run else []

    def on_workers(self, job: Job) -> list[Running]:
        """The datums that have a worker, or have just given it back."""
        return [one for one in self.running(job) if one.phase in (Phase.RUN, Phase.STORE)]

    def quiet(self, job: Job) -> bool:
        """Whether nothing of a job runs any more, so that no line will be added to its logs."""
        return job.state in TERMINAL_JOBS and self._controller.run_of(job.seq) is None

    def paused(self) -> frozenset[str]:
        """The projects in which nothing new starts; "" stands for all."""
        with self.store.read() as db:
            return tables.paused(db)

    # --- datums

    def find_datum(self, job: Job, id: str) -> DatumRow | None:
        with self.store.read() as db:
            return datum_sql.find_datum(db, job.seq, id)

    def datums(self, job: Job) -> list[DatumRow]:
        """All datums of a job, ended or not, by id."""
        with self.store.read() as db:
            return datum_sql.list_datums(db, job.seq)

    def each_ended(self, job: Job, since: int = 0, path: str = "") -> Iterator[DatumRow]:
        """The datums of a job that have ended since so many of them had; `path`: only those that read it.

        To be gone through at once: what is read is held until then.
        """
        with self.store.read() as db:
            for datum in datum_sql.list_ended(db, job.seq, since, path):
                if not path or any(path == file.path for file in datum.files):
                    yield datum

    def ended_datums(self, job: Job, *, everything: bool = False) -> set[str]:
        """The ids of a job's datums that have ended; all of them with `everything`."""
        with self.store.read() as db:
            return datum_sql.ended_datums(db, job.seq, everything=everything)

    def image(self, job: Job) -> str:
        """The image that a job's datums run in; "" when its pipeline is gone."""
        pipeline = self.find_pipeline(job.key.pipeline, job.version)
        return pipeline.spec.transform.image if pipeline and pipeline.spec.transform else ""

    def enumerate(self, node: Input, project: str = "default") -> list[Datum]:
        """The datums an input would give now, from the heads of its branches. Nothing is stored."""
        if any(True for _ in crons(node)):
            raise Unknown(
                "can't list datums with a cron input, there will be no datums until the pipeline is created"
            )
        node = complete_input(node, project)
        check_input(node)

        def matches(pfs: PfsInput) -> tuple[str, Iterator[Match]]:
            commit = self.store.resolve_commit(
                RepoKey(pfs.project, pfs.repo, pfs.repo_type), pfs.commit or pfs.branch
            )

            def each() -> Iterator[Match]:
                for entry in self.store.glob(commit.root, pfs.glob):
                    captures = match_glob(pfs.glob, entry.path) or ()
                    yield Match(entry.path, entry.hash, entry.size_bytes, captures)

            return commit.key.id, each()

        return plan(node, matches, "")

    # --- defaults

    def defaults_json(self, project: str) -> str:
        """The stored defaults of a project, or of the cluster (""); `{}` when none were set."""
        with self.store.read() as db:
            return tables.defaults_json(db, project)


def commits_in_use(store: Store) -> set[str]:
    """The commits, as text, that jobs read which have not ended."""
    with store.read() as db:
        keys = [output_commit(job.key) for job in tables.open_jobs(db)]
    found: set[str] = set()
    for key in keys:
        with suppress(NotFound):  # it has just gone
            found.update(map(str, store.inspect_commit(key).provenance))
    return found
