"""Pipelines created, updated, started, stopped and deleted, inside one write transaction.

Reference: pachyderm-api.md 10.2 (effects of CreatePipeline), 10.4 (updates), 10.5 (states).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import msgspec.structs

from kaos_backend.engine.errors import AlreadyExists, NeverFits, NotFound, Unknown
from kaos_backend.engine.jobs.db import tables
from kaos_backend.engine.jobs.db.cron import check_missed, moment
from kaos_backend.engine.jobs.db.lifecycle import Cancel, kill_open_jobs
from kaos_backend.engine.jobs.db.rows import Pipeline, PipelineKey
from kaos_backend.engine.jobs.db.secrets import check_mounts
from kaos_backend.engine.jobs.schedule.machine import Machine, request_of, why_never
from kaos_backend.engine.jobs.schedule.states import PipelineState
from kaos_backend.engine.jobs.spec.inputs import InputBranch, crons, input_branches
from kaos_backend.engine.jobs.spec.spec import (
    Json,
    Spec,
    Trigger,
    canonical,
    defaults,
    effective,
    parse,
    to_json,
)
from kaos_backend.engine.jobs.spec.validate import check, complete
from kaos_backend.engine.store.model import META_REPO, SPEC_REPO, USER_REPO, BranchKey, RepoKey
from kaos_backend.engine.store.store import Txn

NO_CMD = "nothing to run: no transform.cmd"


@dataclass(frozen=True, slots=True)
class CreatePipeline:
    """A CreatePipeline request: what the user wrote, and what it comes to with the defaults."""

    user: Json
    effective: Json
    update: bool = False
    reprocess: bool = False

    @property
    def key(self) -> PipelineKey:
        spec = parse(self.effective)
        return PipelineKey(spec.project, spec.name)


def with_defaults(
    user: Json, cluster_json: str, project_json: str, *, update: bool, reprocess: bool
) -> CreatePipeline:
    """The request that a request's JSON stands for; InvalidArgument when it is not a spec."""
    spec = canonical(user)
    user_only = {k: v for k, v in spec.items() if k not in ("update", "reprocess", "dryRun")}
    return CreatePipeline(
        user_only, effective(spec, defaults(cluster_json), defaults(project_json)), update, reprocess
    )


def _repo(key: PipelineKey, type: str = USER_REPO) -> RepoKey:
    return RepoKey(key.project, key.name, type)


def _provenance(spec: Spec, key: PipelineKey) -> tuple[list[BranchKey], list[BranchKey]]:
    """The branches a pipeline's output depends on, its own spec last; and those that start nothing."""
    branches = [
        (BranchKey(RepoKey(b.project, b.repo, b.repo_type), b.branch), b.never)
        for b in input_branches(spec.input)
    ]
    return (
        [*(branch for branch, _ in branches), BranchKey(_repo(key, SPEC_REPO), "master")],
        [branch for branch, never in branches if never],
    )


def _set_provenance(
    txn: Txn, key: PipelineKey, branch: str, provenance: Sequence[BranchKey], never: Sequence[BranchKey]
) -> None:
    """Of the output, and of what describes its datums where there is such a repo."""
    for type in (USER_REPO, META_REPO):
        if txn.find_repo(_repo(key, type)) is None:
            continue
        target = BranchKey(_repo(key, type), branch)
        if provenance or txn.find_branch(target) is not None:
            txn.create_branch(target, provenance=provenance, never=never)


def create_pipeline(
    txn: Txn, creation: CreatePipeline, machine: Machine, cancel: Cancel, salt: str
) -> Pipeline:
    """Create or update a pipeline with everything that belongs to it; its job is made by propagation.

    `salt` is a fresh random one, used when the spec has none. Raises the error Pachyderm would.
    """
    spec = complete(parse(creation.effective), txn.now_us)
    check(spec)
    key = PipelineKey(spec.project, spec.name)
    check_mounts(txn.db, spec.transform.secrets if spec.transform else ())
    why = why_never(machine, request_of(spec))
    if why:
        raise NeverFits(f'pipeline "{key}" {why}: lower its resource_limits, or run on a larger machine')
    txn.inspect_project(key.project)
    _make_cron_repos(txn, spec, key)
    for used in input_branches(spec.input):
        repo = RepoKey(used.project, used.repo, used.repo_type)
        if used.repo == key.name and used.project == key.project and used.repo_type == USER_REPO:
            raise Unknown(f'pipeline "{key}" cannot take its own output as an input')
        if txn.find_repo(repo) is None:
            raise NotFound(f"repo {repo} not found: create it before the pipeline that reads it")
        if used.trigger is not None:
            _set_trigger(txn, BranchKey(repo, used.branch), used)

    old = tables.find_pipeline(txn.db, key)
    if old is not None and not creation.update:
        raise AlreadyExists(f'pipeline "{key}" already exists; set update to change it')
    if old is None and txn.find_repo(_repo(key)) is not None:
        raise AlreadyExists(
            f'pipeline "{key}" cannot be created because a repo with the same name already exists'
        )
    if old is not None and not creation.reprocess:
        salt = old.spec.salt
    elif spec.salt and not creation.reprocess:
        salt = spec.salt
    spec = msgspec.structs.replace(spec, salt=salt)

    if old is None:
        txn.create_repo(_repo(key), description=f"Output repo for pipeline {key}.")
        txn.create_repo(_repo(key, SPEC_REPO), description=f"Spec repo for pipeline {key}.")
    else:
        kill_open_jobs(txn, old.row, "all jobs killed because pipeline was updated", cancel)
        if old.spec.output_branch != spec.output_branch:
            _set_provenance(txn, key, old.spec.output_branch, (), ())
    # What runs for ever has no datums to describe.
    if spec.service is None and spec.spout is None:
        if txn.find_repo(_repo(key, META_REPO)) is None:
            txn.create_repo(_repo(key, META_REPO), description=f"Meta repo for pipeline {key}")
    else:
        txn.delete_repo(_repo(key, META_REPO), force=True)

    spec_branch = BranchKey(_repo(key, SPEC_REPO), "master")
    spec_commit = txn.start_commit(spec_branch, internal=True)
    txn.finish_commit(spec_commit, force=True)

    stopped = old is not None and old.stopped
    runnable = bool(spec.transform and spec.transform.cmd)
    state = PipelineState.PAUSED if stopped else PipelineState.STARTING if runnable else PipelineState.FAILURE
    tables.insert_version(
        txn.db,
        key,
        state=state,
        spec_commit=spec_commit.id,
        spec=to_json(spec),
        user_json=json.dumps(creation.user),
        effective_json=json.dumps(creation.effective),
        now_us=txn.now_us,
    )
    made = tables.get_pipeline(txn.db, key)
    if state is PipelineState.FAILURE:
        tables.set_pipeline_state(txn.db, made, state, NO_CMD)
    if not stopped:
        _set_provenance(txn, key, spec.output_branch, *_provenance(spec, key))
    return tables.get_pipeline(txn.db, key)


def _make_cron_repos(txn: Txn, spec: Spec, key: PipelineKey) -> None:
    """Those of an earlier version are taken over, with the ticks in them."""
    for cron in crons(spec.input):
        repo = RepoKey(cron.project, cron.repo, USER_REPO)
        if txn.find_repo(repo) is None:
            txn.create_repo(repo, description=f"Cron tick repo for pipeline {key}.")
        check_missed(txn, cron, moment(txn.now_us))


def _set_trigger(txn: Txn, branch: BranchKey, used: InputBranch) -> None:
    """Have a branch of the pipeline's own follow another one as its trigger says."""
    assert used.trigger is not None
    found = txn.find_branch(branch)
    if found is not None and found.provenance:
        raise Unknown(f"branch {branch} cannot have both a trigger and provenance")
    fields = {field.name: getattr(used.trigger, field.name) for field in msgspec.structs.fields(Trigger)}
    trigger = {name: value for name, value in fields.items() if value}
    txn.create_branch(branch, trigger=json.dumps(trigger).encode())


def stop_pipeline(txn: Txn, key: PipelineKey, cancel: Cancel) -> None:
    """Cut the pipeline off its inputs and kill its jobs; nothing when it is stopped already."""
    pipeline = tables.get_pipeline(txn.db, key)
    if pipeline.stopped:
        return
    kill_open_jobs(txn, pipeline.row, "all jobs killed because pipeline was stopped", cancel)
    _set_provenance(txn, key, pipeline.spec.output_branch, (), ())
    tables.set_pipeline_state(txn.db, pipeline, PipelineState.PAUSED, "", stopped=True)


def start_pipeline(txn: Txn, key: PipelineKey) -> None:
    """Restore the provenance, which makes one job over the current heads; nothing when it is not stopped."""
    pipeline = tables.get_pipeline(txn.db, key)
    if not pipeline.stopped:
        return
    runnable = bool(pipeline.spec.transform and pipeline.spec.transform.cmd)
    state = PipelineState.STARTING if runnable else PipelineState.FAILURE
    tables.set_pipeline_state(txn.db, pipeline, state, "" if runnable else NO_CMD, stopped=False)
    _set_provenance(txn, key, pipeline.spec.output_branch, *_provenance(pipeline.spec, key))


def rerun(pipeline: Pipeline, reprocess: bool) -> CreatePipeline:
    """The request that updates a pipeline with what it already has."""
    return CreatePipeline(
        json.loads(pipeline.user_json), json.loads(pipeline.effective_json), update=True, reprocess=reprocess
    )


def delete_pipeline(
    txn: Txn, key: PipelineKey, cancel: Cancel, *, force: bool = False, keep_repo: bool = False
) -> None:
    """Remove a pipeline, its jobs and its repos. Raises when others read its output, unless `force`."""
    pipeline = tables.get_pipeline(txn.db, key)
    kill_open_jobs(txn, pipeline.row, "pipeline deleted", cancel)
    # Before the repos: their guard asks whether a pipeline still owns them.
    txn.db.execute("DELETE FROM pps_pipelines WHERE id = ?", (pipeline.row,))
    _set_provenance(txn, key, pipeline.spec.output_branch, (), ())
    for type in (META_REPO, SPEC_REPO):
        txn.delete_repo(_repo(key, type), force=force)
    if not keep_repo:
        txn.delete_repo(_repo(key), force=force)
    for used in input_branches(pipeline.spec.input):
        branch = BranchKey(RepoKey(used.project, used.repo, used.repo_type), used.branch)
        # Made for this pipeline, by the name that it was given.
        own = used.trigger is not None and used.branch.startswith(f"{key.name}-trigger-")
        if own and txn.find_branch(branch) is not None and not txn.branch_subvenance(branch):
            txn.delete_branch(branch, force=True)
    # Nothing ticks there any more, whatever becomes of the output.
    for cron in crons(pipeline.spec.input):
        txn.delete_repo(RepoKey(cron.project, cron.repo, USER_REPO), force=force)


class PipelineMetadata:
    """The only part of a pipeline that changes without a new version."""

    def get(self, txn: Txn, project: str, name: str) -> dict[str, str]:
        """NotFound for a missing pipeline."""
        return dict(tables.get_pipeline(txn.db, PipelineKey(project, name)).metadata)

    def set(self, txn: Txn, project: str, name: str, value: Mapping[str, str]) -> None:
        """Replace it all. NotFound for a missing pipeline."""
        row = tables.get_pipeline(txn.db, PipelineKey(project, name)).row
        txn.db.execute("UPDATE pps_pipelines SET metadata = ? WHERE id = ?", (json.dumps(dict(value)), row))
