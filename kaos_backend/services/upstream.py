"""What has changed behind the manifest of a workspace since it was fetched: servers are asked, nothing is
downloaded and nothing stored.

The program that fetches asks, with the settings and credentials of the fetch, in the foreground.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

import msgspec

from kaos_backend import errors
from kaos_backend.domain.models import DatumState
from kaos_backend.pachd.port import ForegroundCall, Pachd
from kaos_backend.services import inputs
from kaos_backend.services.jobs import Jobs, with_trials
from kaos_backend.services.lines import RemoteEnd, RemoteFinding, RemoteLine
from kaos_backend.services.trials import Trials
from kaos_formats import kaos_v1, names
from kaos_formats.manifest import sources_path

_COMMAND = ["python", "-m", "kaos_pipelines.fetch.check"]
_SOURCES = "sources"
# The jobs, and their models.
Users = Callable[[], tuple[list[str], list[str]]]
_DONE = (DatumState.SUCCESS, DatumState.SKIPPED)


class _Told(msgspec.Struct, frozen=True):
    """What the program says of one line."""

    url: str
    path: str
    state: str
    rev: str = ""
    why: str = ""


class Upstream:
    """Starts checks; holds no state."""

    def __init__(self, pachd: Pachd, jobs: Jobs, trials: Trials) -> None:
        self._pachd = pachd
        self._jobs = jobs
        self._trials = trials

    def check(self, workspace: str) -> Check:
        """Raises NoSuchWorkspace, NoBundle where the data is not that of a manifest, NotYet while it is being
        fetched; NeedsEmbeddedEngine at the first line.
        """
        inputs.require_workspace(self._pachd, workspace)
        current = inputs.current_data(self._pachd, workspace, inputs.heads(self._pachd, workspace))
        if current is None or names.MANIFEST not in current.descriptions:
            raise errors.NoBundle(
                f"the data of workspace {workspace!r} does not come from a manifest",
                hint="`kaos train deploy -m FILE` deploys one",
                kind=names.MANIFEST,
            )
        about = current.descriptions[names.DATA]
        if not about.id:
            raise errors.NotYet(
                f"the data {about.name} of workspace {workspace} is still being fetched",
                hint="`kaos train wait` waits for that",
            )
        spec = dict(next(p.spec for p in self._pachd.pipelines(workspace) if p.name == names.FETCH))
        sources = kaos_v1.CommitInput(
            name=_SOURCES, repo=names.FETCH, commit=current.commits[names.FETCH], path=sources_path(about.id)
        )
        ask = kaos_v1.ForegroundOpen(
            project=workspace, spec=json.dumps(spec), commits=[sources], cmd=_COMMAND
        )
        return Check(self._pachd.foreground(ask), lambda: self._users(workspace, about.id), current)

    def _users(self, workspace: str, data_id: str) -> tuple[list[str], list[str]]:
        """The jobs that were made of some data, newest first, and their models."""
        jobs: list[str] = []
        models: dict[str, None] = {}
        for job in self._jobs.newest(workspace, None).jobs:
            if job.data is None or job.data.id != data_id:
                continue
            jobs.append(job.id)
            train = with_trials(self._jobs.of_set(workspace, job.id))
            if train is not None:
                trials = self._trials.of_job(workspace, train, self._jobs.inputs_of(workspace, job.id))
                done = (t.model for t in trials if t.datum is not None and t.datum.state in _DONE)
                models |= dict.fromkeys(done)
        return jobs, list(models)


class Check:
    """Iterate over it once: what is waited for, what is not as it was, and the end. ``close`` from any thread
    gives up.
    """

    def __init__(self, call: ForegroundCall, users: Users, of: inputs.JobInputs) -> None:
        self._call = call
        self._users = users
        self._of = of

    def __iter__(self) -> Iterator[RemoteLine]:
        """Raises NeedsEmbeddedEngine, FetchFailed."""
        printed = bytearray()
        for told in self._call:
            printed += told.printed
            if told.end is None:
                yield RemoteLine(waiting=told.waiting, running=told.running)
                continue
            if told.end.code:
                said = bytes(printed).decode("utf-8", "replace").strip().splitlines()
                raise errors.FetchFailed(
                    f"the servers could not be asked: {said[-1] if said else told.end.reason}"
                )
            yield from self._ended(msgspec.json.Decoder(_Told).decode_lines(printed))

    def _ended(self, found: Sequence[_Told]) -> Iterator[RemoteLine]:
        for one in found:
            if one.state != "same":
                yield RemoteLine(finding=RemoteFinding(**msgspec.structs.asdict(one)))
        counts = Counter(one.state for one in found)
        data, manifest = self._of.descriptions[names.DATA], self._of.descriptions[names.MANIFEST]
        jobs, models = self._users()
        end = RemoteEnd(
            name=data.name,
            data=data.id,
            manifest=manifest.id,
            same=counts["same"],
            changed=counts["changed"],
            gone=counts["gone"],
            unknown=counts["unknown"],
            jobs=jobs,
            models=models,
        )
        yield RemoteLine(end=end)

    def close(self) -> None:
        """Idempotent."""
        self._call.close()
