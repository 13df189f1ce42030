"""The jobs layer as one object: what the façade calls, and what ties it to a store."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path

from kaos_backend.engine import ids
from kaos_backend.engine.clock import Clock, now_us
from kaos_backend.engine.jobs.controller import Controller
from kaos_backend.engine.jobs.db import pipelines, tables
from kaos_backend.engine.jobs.db.lifecycle import create_jobs, drop_jobs, guard_repo, kill_job
from kaos_backend.engine.jobs.db.rows import JobKey, Pipeline, PipelineKey
from kaos_backend.engine.jobs.run.env import RunEnv
from kaos_backend.engine.jobs.run.inputs import InputCache
from kaos_backend.engine.jobs.run.logs import Logs
from kaos_backend.engine.jobs.run.scratch import remove_tree
from kaos_backend.engine.jobs.schedule.admission import Admission
from kaos_backend.engine.jobs.schedule.machine import Machine
from kaos_backend.engine.jobs.spec.plan import Datum, Match, plan
from kaos_backend.engine.jobs.spec.spec import Input, Json, PfsInput
from kaos_backend.engine.jobs.spec.validate import check_input, complete_input
from kaos_backend.engine.store.model import RepoKey
from kaos_backend.engine.store.store import Store, Txn
from kaos_backend.engine.store.trees.glob import match_glob
from kaos_backend.engine.workers.port import Runtime


class Jobs:
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
    ) -> None:
        self.store = store
        self.machine = machine
        self.clock = clock
        self.logs = Logs(data_dir / "logs")
        self.admission = Admission(machine)
        self._new_id = new_id
        env = RunEnv(
            store=store,
            runtime=runtime,
            admission=self.admission,
            inputs=InputCache(store, data_dir / "trees"),
            logs=self.logs,
            scratch=data_dir / "scratch" / "datums",
            clock=clock,
        )
        self.controller = Controller(env, monotonic)
        store.hooks.append(create_jobs)
        store.drop_hooks.append(lambda txn, commits: drop_jobs(txn, commits, self.controller.cancel))
        store.delete_repo_hooks.append(guard_repo)

    def start(self) -> None:
        """Take up unfinished jobs and wait for new ones."""
        self.controller.start()

    def stop(self) -> None:
        """Interrupt running datums and return when nothing runs any more."""
        self.controller.stop()

    # --- pipelines

    def with_defaults(
        self, txn_or_none: Txn | None, user: Json, *, update: bool, reprocess: bool
    ) -> pipelines.CreatePipeline:
        """A request's JSON with the defaults of its project and of the cluster."""
        ref = user.get("pipeline") or {}
        project = str(((ref.get("project") or {}) if isinstance(ref, dict) else {}).get("name") or "default")
        if txn_or_none is not None:
            layers = [tables.defaults_json(txn_or_none.db, name) for name in ("", project)]
        else:
            with self.store.read() as db:
                layers = [tables.defaults_json(db, name) for name in ("", project)]
        if isinstance(ref, dict):
            user = {**user, "pipeline": {**ref, "project": {"name": project}}}
        return pipelines.with_defaults(user, layers[0], layers[1], update=update, reprocess=reprocess)

    def project_defaults(self, project: str) -> str:
        """The JSON text of a project's defaults."""
        with self.store.read() as db:
            return tables.defaults_json(db, project)

    def create_pipeline(self, txn: Txn, creation: pipelines.CreatePipeline) -> Pipeline:
        """See `pipelines.create_pipeline`."""
        return pipelines.create_pipeline(txn, creation, self.machine, self.controller.cancel, self._new_id())

    def start_pipeline(self, txn: Txn, key: PipelineKey) -> None:
        pipelines.start_pipeline(txn, key)

    def stop_pipeline(self, txn: Txn, key: PipelineKey) -> None:
        pipelines.stop_pipeline(txn, key, self.controller.cancel)

    def delete_pipeline(self, txn: Txn, key: PipelineKey, *, force: bool, keep_repo: bool) -> None:
        pipelines.delete_pipeline(txn, key, self.controller.cancel, force=force, keep_repo=keep_repo)
        txn.on_commit(lambda: remove_tree(self.logs.pipeline_dir(key)))

    # --- jobs

    def stop_job(self, txn: Txn, key: JobKey, reason: str = "") -> None:
        """KILLED, unless it ended before. NotFound when there is no such job."""
        kill_job(txn, tables.get_job(txn.db, key), reason or "job stopped", self.controller.cancel)

    def delete_job(self, txn: Txn, key: JobKey) -> None:
        """Stop a job and forget it; its output commit stays."""
        job = tables.get_job(txn.db, key)
        kill_job(txn, job, "job deleted", self.controller.cancel)
        tables.delete_job(txn.db, job)
        txn.on_commit(lambda: remove_tree(self.logs.job_dir(key)))

    def restart_datum(self, key: JobKey, filters: list[str]) -> bool:
        """Start running datums again; False when none matches."""
        with self.store.read() as db:
            job = tables.get_job(db, key)
        run = self.controller.run_of(job.seq)
        return run is not None and run.restart(filters)

    # --- datums

    def enumerate(self, node: Input, project: str = "default") -> list[Datum]:
        """The datums an input would give now, from the heads of its branches. Nothing is stored."""
        node = complete_input(node, project)
        check_input(node)

        def matches(pfs: PfsInput) -> tuple[str, Iterator[Match]]:
            commit = self.store.resolve_commit(
                RepoKey(pfs.project, pfs.repo, pfs.repo_type), pfs.commit or pfs.branch
            )

            def each() -> Iterator[Match]:
                for entry in self.store.glob(commit.root, pfs.glob):
                    found = match_glob(pfs.glob, entry.path)
                    captures = tuple(g or "" for g in found.groups()) if found else ()
                    yield Match(entry.path, entry.hash, entry.size_bytes, captures)

            return commit.key.id, each()

        return plan(node, matches, "")
