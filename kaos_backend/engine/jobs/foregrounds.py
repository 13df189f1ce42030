"""The commands in the foreground that an engine has: made, and ended with it."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from kaos_backend.engine import ids
from kaos_backend.engine.errors import EngineError, InvalidArgument, NeverFits, NotFound
from kaos_backend.engine.jobs.db.rows import JobKey, PipelineKey
from kaos_backend.engine.jobs.queries import Queries
from kaos_backend.engine.jobs.run.attempt import worker_of
from kaos_backend.engine.jobs.run.env import RunEnv
from kaos_backend.engine.jobs.run.foreground import Event, Foreground, Order
from kaos_backend.engine.jobs.run.images import check_image
from kaos_backend.engine.jobs.run.progress import matches
from kaos_backend.engine.jobs.schedule.machine import request_of, why_never
from kaos_backend.engine.jobs.spec.plan import File
from kaos_backend.engine.jobs.spec.spec import Spec, Transform, canonical, parse
from kaos_backend.engine.store.model import CommitKey, RepoKey
from kaos_backend.engine.workers.terminal import Terminal


@dataclass(frozen=True, slots=True)
class Extra:
    """What is asked for beside a transform, see `kaos_v1.ForegroundOpen`."""

    cmd: Sequence[str] = ()
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    terminal: Terminal | None = None
    keep: bool = False


class Foregrounds:
    """Makes them, and ends them all at `stop`."""

    def __init__(self, env: RunEnv, queries: Queries) -> None:
        self._env = env
        self._queries = queries
        self._lock = threading.Lock()
        self._open: set[Foreground] = set()
        self._stopped = False

    def of_datum(self, job: JobKey, path: str, extra: Extra) -> Foreground:
        """As the datum of a job that reads a file at `path` was run, with its output folder as it was left.

        Raises:
            NotFound: there is no such job, or it has no such datum (yet).
        """
        found = self._queries.job(job)
        datum = next((one for one in self._queries.datums(found) if matches(one, [path])), None)
        if datum is None:
            raise NotFound(f"datum matching filter [{path}] could not be found for job ID {job.id}")
        pipeline = self._queries.pipeline(job.pipeline, found.version)
        return self._make(job, pipeline.spec, pipeline.spec_commit, datum.files, {}, datum.root, extra)

    def of_spec(
        self,
        project: str,
        text: str,
        commits: Sequence[tuple[str, str, str, str]],
        inline: Mapping[str, tuple[str, str, bytes]],
        extra: Extra,
    ) -> Foreground:
        """As a datum of a pipeline with this spec (JSON) would be run on inputs: (name, repo, commit, path)
        in the project, and `inline` ones, see `Order`.

        Raises:
            InvalidArgument: the spec is none.
            NotFound: a commit, or what an input names of it, is not there.
        """
        try:
            spec = parse(canonical(json.loads(text)))
        except ValueError as error:
            raise InvalidArgument(f"the spec is no JSON: {error}") from None
        files: list[File] = []
        for name, repo, commit, path in commits:
            root = self._env.store.inspect_commit(CommitKey(RepoKey(project, repo), commit)).root
            entry = next(iter(self._env.store.glob(root, path)), None)
            if entry is None:
                raise NotFound(f"{path} not found in repo {project}/{repo} at commit {commit}")
            files.append(
                File(name, project, repo, "master", commit, entry.path, entry.hash, entry.size_bytes)
            )
        key = JobKey(PipelineKey(project, spec.name), ids.new_id())
        return self._make(key, spec, "", files, inline, None, extra)

    def events(self, foreground: Foreground) -> Iterator[Event]:
        """Its events; it is ended with the engine."""
        with self._lock:
            if self._stopped:
                raise EngineError("the engine is going down")
            self._open.add(foreground)
        try:
            yield from foreground.events()
        finally:
            with self._lock:
                self._open.discard(foreground)

    def stop(self) -> None:
        """End them all and return when nothing of them is left."""
        with self._lock:
            self._stopped = True
            left = list(self._open)
        for one in left:
            one.cancel()
        for one in left:
            one.join()

    def _make(
        self,
        job: JobKey,
        spec: Spec,
        spec_commit: str,
        files: Sequence[File],
        inline: Mapping[str, tuple[str, str, bytes]],
        left: bytes | None,
        extra: Extra,
    ) -> Foreground:
        machine = self._env.admission.machine
        if why := why_never(machine, request_of(spec)):
            raise NeverFits(f"a command in the foreground {why}: ask for less, or run on a larger machine")
        transform = spec.transform or Transform()
        if problem := check_image(self._env.runtime, transform.image):
            raise NotFound(problem)
        key = JobKey(job.pipeline, ids.new_id())
        name = f"{job.pipeline.project}-foreground-{key.id[:12]}".lower().replace("_", "-")
        # It is told of the job that it looks at; its folder has an id of its own.
        env = {**extra.env, "PACH_JOB_ID": job.id, "PACH_OUTPUT_COMMIT_ID": job.id}
        return Foreground(
            self._env,
            Order(
                key=key,
                worker=worker_of(name, job.pipeline, transform, spec_commit),
                spec=spec,
                files=files,
                inline=inline,
                left=left,
                cmd=tuple(extra.cmd),
                env=env,
                terminal=extra.terminal,
                keep=extra.keep,
            ),
        )
