"""The jobs layer as one object: what the façade calls, and what ties it to a store."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path

from kaos_backend.engine import ids
from kaos_backend.engine.clock import Clock, now_us
from kaos_backend.engine.errors import FailedPrecondition, NotFound, Unknown
from kaos_backend.engine.jobs.controller import Controller
from kaos_backend.engine.jobs.db import pipelines, secrets, tables
from kaos_backend.engine.jobs.db.cron import moment, tick
from kaos_backend.engine.jobs.db.datums import OUTPUTS
from kaos_backend.engine.jobs.db.lifecycle import (
    create_jobs,
    drop_jobs,
    guard_repo,
    kill_job,
    rerun_jobs,
)
from kaos_backend.engine.jobs.db.rows import JobKey, Pipeline, PipelineKey
from kaos_backend.engine.jobs.db.secrets import Vault
from kaos_backend.engine.jobs.foregrounds import Foregrounds
from kaos_backend.engine.jobs.logquery import LogQuery, LogReading
from kaos_backend.engine.jobs.queries import Queries, commits_in_use
from kaos_backend.engine.jobs.run.attempt import worker_spec
from kaos_backend.engine.jobs.run.env import RunEnv
from kaos_backend.engine.jobs.run.images import check_image
from kaos_backend.engine.jobs.run.inputs import InputCache
from kaos_backend.engine.jobs.run.logs import Logs
from kaos_backend.engine.jobs.run.progress import matches
from kaos_backend.engine.jobs.schedule.admission import Admission
from kaos_backend.engine.jobs.schedule.machine import Machine
from kaos_backend.engine.jobs.schedule.queue import Surroundings
from kaos_backend.engine.jobs.schedule.states import DONE_DATUMS, TERMINAL_JOBS, JobState
from kaos_backend.engine.jobs.spec.inputs import crons
from kaos_backend.engine.jobs.spec.spec import BUILT_IN_DEFAULTS, Json, defaults, merge_patch
from kaos_backend.engine.jobs.upkeep import SHARE, Upkeep
from kaos_backend.engine.store.store import Store, Txn
from kaos_backend.engine.workers.port import Runtime
from kaos_formats.folders import clean_up, empty_folder, folder


class Jobs(Queries):
    """Pipelines and jobs over a store. Verbs that take a `Txn` may be put together into one transaction."""

    def __init__(
        self,
        store: Store,
        runtime: Runtime,
        machine: Machine,
        data_dir: Path,
        clock: Clock = now_us,
        monotonic: Callable[[], float] = time.monotonic,
        new_id: Callable[[], str] = ids.new_id,
        look: Callable[[frozenset[int]], Surroundings] = lambda _: Surroundings(),
        inputs_bytes: int | None = None,
        upkeep_share: float = SHARE,
    ) -> None:
        """`inputs_bytes`: how much may stay laid out of inputs that no job uses (None: part of the disk).
        `upkeep_share`: of a core, for giving space back by itself.
        """
        self.machine = machine
        self._runtime = runtime
        self.clock = clock
        self.logs = Logs(folder(data_dir / "logs"))
        self.admission = Admission(machine, look)
        self._new_id = new_id
        # For the code of spouts; known once the engine serves.
        self.access: Mapping[str, str] = {}
        self._vault = Vault(data_dir / "secrets.key")
        self.inputs = InputCache(
            store, data_dir / "trees", limit_bytes=inputs_bytes, wanted=lambda: commits_in_use(store)
        )
        env = RunEnv(
            store=store,
            runtime=runtime,
            admission=self.admission,
            inputs=self.inputs,
            logs=self.logs,
            scratch=empty_folder(folder(data_dir / "scratch") / "datums"),
            clock=clock,
            vault=self._vault,
            access=lambda: self.access,
        )
        super().__init__(store, Controller(env, monotonic))
        self.foregrounds = Foregrounds(env, self)
        self.upkeep = Upkeep(store, runtime, self.logs, self.inputs, self._controller.busy, upkeep_share)
        store.roots.columns.append(OUTPUTS)
        store.hooks.opened.append(create_jobs)
        store.hooks.before_drop.append(lambda txn, commits: drop_jobs(txn, commits, self._controller.cancel))
        store.hooks.before_repo_delete.append(guard_repo)

    def start(self) -> None:
        """Take up unfinished jobs and wait for new ones."""
        self._controller.start()
        self.upkeep.start()

    def stop(self) -> None:
        """Interrupt running datums and return when nothing runs any more."""
        self.upkeep.stop()
        self.foregrounds.stop()
        self._controller.stop()
        self.inputs.close()

    # --- pipelines

    def with_defaults(
        self, txn: Txn | None, user: Json, *, update: bool, reprocess: bool
    ) -> pipelines.CreatePipeline:
        """A request's JSON with the defaults of its project and of the cluster."""
        ref = user.get("pipeline") or {}
        project = str(((ref.get("project") or {}) if isinstance(ref, dict) else {}).get("name") or "default")
        with self.store.read() if txn is None else nullcontext(txn.db) as db:
            layers = [tables.defaults_json(db, name) for name in ("", project)]
        if isinstance(ref, dict):
            user = {**user, "pipeline": {**ref, "project": {"name": project}}}
        return pipelines.with_defaults(user, layers[0], layers[1], update=update, reprocess=reprocess)

    def create_pipeline(self, txn: Txn, creation: pipelines.CreatePipeline) -> Pipeline:
        """See `pipelines.create_pipeline`."""
        return pipelines.create_pipeline(txn, creation, self.machine, self._controller.cancel, self._new_id())

    def start_pipeline(self, txn: Txn, key: PipelineKey) -> None:
        pipelines.start_pipeline(txn, key)

    def stop_pipeline(self, txn: Txn, key: PipelineKey, *, must_exist: bool = True) -> None:
        """NotFound when there is no such pipeline and it `must_exist`."""
        if must_exist or tables.find_pipeline(txn.db, key) is not None:
            pipelines.stop_pipeline(txn, key, self._controller.cancel)

    def rerun_pipeline(self, txn: Txn, key: PipelineKey, *, reprocess: bool) -> None:
        """Update a pipeline with what it already has, which makes a job."""
        self.create_pipeline(txn, pipelines.rerun(tables.get_pipeline(txn.db, key), reprocess))

    def delete_pipeline(
        self, txn: Txn, key: PipelineKey, *, force: bool, keep_repo: bool, must_exist: bool = True
    ) -> None:
        """NotFound when there is no such pipeline and it `must_exist`; see `pipelines.delete_pipeline`."""
        if not must_exist and tables.find_pipeline(txn.db, key) is None:
            return
        pipelines.delete_pipeline(txn, key, self._controller.cancel, force=force, keep_repo=keep_repo)
        txn.on_commit(lambda: clean_up(self.logs.pipeline_dir(key)))
        txn.on_commit(self._controller.forget)
        txn.on_commit(self.upkeep.forget)

    def delete_pipelines(
        self, txn: Txn, projects: Sequence[str], *, force: bool, keep_repo: bool
    ) -> list[PipelineKey]:
        """Every pipeline of `projects` (none: of all projects); the keys of what is gone."""
        # Newest first: what reads another pipeline's output was made after it.
        keys = [one.key for one in tables.pipelines(txn.db, 0, projects)]
        for key in keys:
            self.delete_pipeline(txn, key, force=force, keep_repo=keep_repo)
        return keys

    # --- defaults

    def cluster_defaults_json(self) -> str:
        """The cluster's defaults, the built-in ones included."""
        stored = {"createPipelineRequest": defaults(self.defaults_json(""))}
        return json.dumps(merge_patch(BUILT_IN_DEFAULTS, stored))

    def set_defaults(
        self, project: str, text: str, *, regenerate: bool, reprocess: bool, dry_run: bool
    ) -> list[PipelineKey]:
        """Store the defaults of a project, or of the cluster (""); the pipelines whose spec they change.

        With `regenerate` these are updated. InvalidArgument when `text` is no JSON object of defaults.
        """
        text = text or "{}"
        defaults(text)
        affected = []
        with self.store.write(dry_run=dry_run) as txn:
            tables.set_defaults_json(txn.db, project, text, txn.now_us)
            for pipeline in tables.pipelines(txn.db, 0, [project] if project else []):
                user = json.loads(pipeline.user_json)
                creation = self.with_defaults(txn, user, update=True, reprocess=reprocess)
                if json.dumps(creation.effective) != pipeline.effective_json:
                    affected.append(pipeline.key)
                    if regenerate:
                        self.create_pipeline(txn, creation)
        return affected

    def run_cron(self, key: PipelineKey) -> None:
        """Tick now in every cron input of a pipeline, each a commit set of its own.

        Raises:
            NotFound: no such pipeline.
            Unknown: it has no cron input.
        """
        found = list(crons(self.pipeline(key).spec.input))
        if not found:
            raise Unknown("pipeline doesn't have a cron input")
        now = moment(self.clock())
        for cron in found:
            with self.store.upload() as upload, self.store.write() as txn:
                tick(txn, cron, now, upload)

    # --- secrets

    def create_secret(self, txn: Txn, file: bytes, *, replace: bool = False) -> None:
        """Store a Kubernetes secret in JSON; see `Vault.create`. Unknown when it is none."""
        self._vault.create(txn.db, secrets.parse(file), txn.now_us, replace=replace)

    def delete_secret(self, txn: Txn, name: str) -> None:
        """Forget a secret; workers that have it keep it. Unknown when there is none of this name."""
        secrets.delete(txn.db, name)

    def delete_secrets(self, txn: Txn) -> None:
        """Forget all secrets."""
        secrets.delete_all(txn.db)

    # --- jobs and their logs

    def read_logs(self, query: LogQuery) -> LogReading:
        """A reading of logs, from their beginning or their tail."""
        return LogReading(self, self.logs, query)

    def stop_job(self, txn: Txn, key: JobKey, reason: str = "") -> None:
        """KILLED, unless it ended before. NotFound when there is no such job."""
        kill_job(txn, tables.get_job(txn.db, key), reason or "job stopped", self._controller.cancel)

    def delete_job(self, txn: Txn, key: JobKey) -> None:
        """Stop a job and forget it; its output commit stays."""
        job = tables.get_job(txn.db, key)
        kill_job(txn, job, "job deleted", self._controller.cancel)
        tables.delete_job(txn.db, job)
        txn.on_commit(lambda: clean_up(self.logs.job_dir(key)))

    def pause(self, project: str, paused: bool) -> None:
        """Let nothing new start in a project ("": in any) from now on, restarts included; or let it again, in
        all of them with "". What runs goes on.

        Raises:
            NotFound: there is no such project.
        """
        with self.store.write() as txn:
            if project:
                txn.inspect_project(project)
            tables.set_paused(txn.db, project, paused, txn.now_us)
            now = tables.paused(txn.db)
            # Before it is acknowledged; others learn of it from what is stored.
            txn.on_commit(lambda: self.admission.pause(now))

    def rerun_jobs(self, project: str, pipelines: Sequence[str], set_id: str, *, only_failed: bool) -> str:
        """The id of new jobs on the inputs of those of a set, see `lifecycle.rerun_jobs`.

        Raises:
            NotFound: a pipeline has no job in that set.
            ImageMissing: the first of them would wait for an image that nobody is going to make.
        """
        for name in pipelines[:1]:
            first = self.job(JobKey(PipelineKey(project, name), set_id))
            # What may come by itself (a Docker engine that is down) is waited for.
            check_image(self._runtime, worker_spec(self.pipeline(first.key.pipeline, first.version)).image)
        with self.store.write() as txn:
            found = [tables.get_job(txn.db, JobKey(PipelineKey(project, name), set_id)) for name in pipelines]
            return rerun_jobs(txn, found, only_failed=only_failed)

    def stop_datums(self, key: JobKey, filters: list[str], reason: str) -> bool:
        """End those of a job's datums whose inputs match every filter, and let the others go on. True: none
        of them is left; False: ask again after the next change, as an end counts when it is written down.

        Raises:
            NotFound: there is no such job, or it has no such datum.
            FailedPrecondition: its datums are not known yet.
        """
        job = self.job(key)
        found = [datum for datum in self.datums(job) if matches(datum, filters)]
        if not found and job.state in (JobState.CREATED, JobState.STARTING):
            raise FailedPrecondition(f"the datums of job {key} are not known before it runs")
        if not found:
            raise NotFound(
                f"datum matching filter [{' '.join(filters)}] could not be found for job ID {key.id}"
            )
        if job.state in TERMINAL_JOBS or all(datum.state in DONE_DATUMS for datum in found):
            return True
        run = self._controller.run_of(job.seq)
        if run is not None:
            run.stop_datums(filters, reason)
        return False

    def restart_datum(self, key: JobKey, filters: list[str]) -> bool:
        """Start running datums again; False when none matches."""
        run = self._controller.run_of(self.job(key).seq)
        return run is not None and run.restart(filters)
