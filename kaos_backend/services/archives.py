"""Archives of what a job made or was made of: tar in zstd, streamed file by file."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Literal, NamedTuple

import zstandard

from kaos_backend import errors
from kaos_backend.domain.descriptions import Description
from kaos_backend.domain.models import Job
from kaos_backend.domain.uploads import Layout
from kaos_backend.pachd.port import Pachd
from kaos_backend.services import inputs, truenames, views
from kaos_backend.services.jobs import Jobs, with_trials
from kaos_backend.services.stream import IteratorSource
from kaos_backend.services.trials import FAILED, Trials
from kaos_formats import kaos_v1, names
from kaos_formats import tar as tars
from kaos_formats.handover import Folder
from kaos_formats.stored import MAP_FILE, TrueNames

What = Literal["model", "failed", "code", "data"]

_LEVEL = 1
_SHOWN = 5
_KINDS: dict[str, names.BundleKind] = {"code": names.SOURCE, "data": names.DATA}
_PLAIN_MODE = 0o644


class _Place(NamedTuple):
    """Where a file goes in an archive, and its permission bits."""

    path: str
    mode: int


class Archives:
    """Downloads of models, code and data."""

    def __init__(self, pachd: Pachd, jobs: Jobs, trials: Trials) -> None:
        self._pachd = pachd
        self._jobs = jobs
        self._trials = trials

    def open(self, workspace: str, ref: str, what: What, model: str | None) -> Iterator[bytes]:
        """The archive in chunks: ``<model id>/…`` for models and for what failed trials left,
        ``<bundle name>/…`` with modes for code and data.

        Raises NotYet (of failed trials, before the job's end), NoSuchJob, NoSuchModel, Ambiguous, NoBundle
        and (as far as it is known by then) DataLoss before the first chunk.
        """
        inputs.require_workspace(self._pachd, workspace)
        job_id = self._jobs.resolve(workspace, ref)
        read = self._jobs.inputs_of(workspace, job_id)
        if what == "model":
            members = self._models(workspace, job_id, read, model)
        elif what == "failed":
            members = self._failed(workspace, job_id, read, model)
        else:
            members = self._bundle(workspace, _KINDS[what], read)
        chunks = _compress(members)
        # The first chunk is made now, so that what is missing is an answer and not a broken stream.
        first = next(chunks, b"")
        return _chain(first, chunks)

    def export(
        self, workspace: str, ref: str, what: Literal["code", "data"], into: Folder, mode: int
    ) -> Iterator[views.Exported]:
        """Writes a bundle as ``<bundle name>/…`` into a folder of this machine; the last item has all of it.

        Raises what ``open`` does, and NoHandover.
        """
        inputs.require_workspace(self._pachd, workspace)
        read = self._jobs.inputs_of(workspace, self._jobs.resolve(workspace, ref))
        repo, about, commit_id, layout = self._bundle_of(workspace, _KINDS[what], read)
        request = kaos_v1.ExportRequest(
            project=workspace,
            repo=repo,
            commit=commit_id,
            path=names.bundle_dir(about.id),
            into=into,
            name=about.name,
            mode=mode,
            places=layout.places,
            executable=[path for path, entry in layout.entries.items() if entry.mode == "755"],
        )
        files = size = 0
        for part in self._pachd.export(request):
            files, size = files + part.files, size + part.bytes
            yield views.Exported(name=about.name, files=files, bytes=size)
        yield views.Exported(name=about.name, files=layout.tree.files, bytes=layout.tree.size_bytes, end=True)

    def _models(
        self, workspace: str, job_id: str, read: inputs.JobInputs, model: str | None
    ) -> Iterator[bytes]:
        train = with_trials(self._jobs.of_set(workspace, job_id))
        if train is None:
            raise errors.NoSuchModel(
                "this job trained nothing", hint="`kaos train list` shows what each job did"
            )
        one = self._trials.select(self._trials.of_job(workspace, train, read), model).model if model else ""
        mtime = int(train.finished.timestamp()) if train.finished else 0
        self._refuse_damaged(workspace, names.TRAIN, job_id, f"/{one}")
        maps = truenames.of_models(self._pachd, workspace, job_id, one or "*")
        tar = self._pachd.read_tar(workspace, names.TRAIN, job_id, f"/{one}")
        try:
            yield from _repack(tar, lambda path: _in_model(path, maps), mtime)
            yield tars.END
        except errors.NotFound as error:
            raise errors.NoSuchModel(
                (f"there is no model {model!r}" if model else "this job has no models") + _why(train, model),
                hint="`kaos train info` shows the state of each trial, `kaos train logs` what it said",
            ) from error

    def _failed(
        self, workspace: str, job_id: str, read: inputs.JobInputs, model: str | None
    ) -> Iterator[bytes]:
        train = with_trials(self._jobs.of_set(workspace, job_id))
        trials = [] if train is None else self._trials.of_job(workspace, train, read)
        if model:
            trials = [self._trials.select(trials, model)]
        failed = [t for t in trials if t.datum is not None and t.datum.state in FAILED]
        if train is None or not failed:
            raise errors.NoSuchModel(
                "that trial has not failed" if model else "no trial of this job has failed",
                hint="`kaos train info` shows the state of each trial",
            )
        if not train.state.terminal:
            raise errors.NotYet(
                f"what its failed trials wrote can be had when job {job_id[:8]} has ended",
                hint=f"`kaos train wait {job_id[:8]}` waits for that",
            )
        repo = names.meta_repo(train.pipeline)
        mtime = int(train.finished.timestamp()) if train.finished else 0
        found = False
        for trial in failed:
            assert trial.datum is not None
            at = names.datum_output(trial.datum.id)
            held = truenames.of_folder(self._pachd, workspace, repo, job_id, trial.model, at)
            maps = {} if held is None else {trial.model: held}

            def place_of(
                path: str, above: str = at.strip("/") + "/", maps: Mapping[str, TrueNames] = maps
            ) -> _Place | None:
                return _in_model(path.removeprefix(above), maps)

            try:
                for data in _repack(self._pachd.read_tar(workspace, repo, job_id, at), place_of, mtime):
                    found = True
                    yield data
            except errors.NotFound:
                continue
        if not found:
            raise errors.NoSuchModel(
                "that trial wrote no files" if model else "the failed trials of this job wrote no files",
                hint="`kaos train logs --failed` shows what they said",
            )
        yield tars.END

    def _bundle(self, workspace: str, kind: str, read: inputs.JobInputs) -> Iterator[bytes]:
        repo, about, commit_id, layout = self._bundle_of(workspace, kind, read)
        tar = self._pachd.read_tar(workspace, repo, commit_id, names.bundle_dir(about.id))
        yield from _repack(tar, lambda path: _in_bundle(path, layout, about), 0)
        yield tars.END

    def _bundle_of(
        self, workspace: str, kind: str, read: inputs.JobInputs
    ) -> tuple[str, Description, str, Layout]:
        """The repo of a job's bundle, what that is, its commit, and where its files lie in it."""
        repo = read.data_repo if kind == names.DATA else kind
        about, commit_id = read.descriptions.get(kind), read.commits.get(repo)
        if about is None or commit_id is None or not about.id:
            raise errors.NoBundle(f"this job has no {kind} bundle", kind=kind)
        self._refuse_damaged(workspace, repo, commit_id, names.bundle_dir(about.id))
        tree = inputs.read_tree(self._pachd, workspace, repo, commit_id, about.id)
        return repo, about, commit_id, Layout(tree)

    def _refuse_damaged(self, workspace: str, repo: str, commit_id: str, path: str) -> None:
        """Says what is known to be damaged instead of breaking off in the middle of it."""
        paths = self._pachd.damaged(workspace, repo, commit_id, path)
        if paths:
            more = f" and {len(paths) - 1} more" if len(paths) > 1 else ""
            raise errors.DataLoss(
                f"{paths[0]}{more} in repo {workspace}/{repo} at commit {commit_id}: damaged or gone",
                hint="see `kaos fsck`; deploying the same folder again heals code and data",
                paths=paths[:_SHOWN],
            )


def _why(train: Job, model: str | None) -> str:
    """Why a job's output has no files of a model, or none at all."""
    if not train.state.terminal:
        return " yet"
    return ": its trial failed, or wrote no files" if model else ": no trial succeeded and wrote files"


def _in_model(path: str, maps: Mapping[str, TrueNames]) -> _Place | None:
    """Where a file of the models belongs: its true path. None for a map."""
    model, _, below = path.partition("/")
    if model not in maps:
        return _Place(path, _PLAIN_MODE)
    return None if below == MAP_FILE else _Place(f"{model}/{maps[model].path(below)}", _PLAIN_MODE)


def _in_bundle(path: str, layout: Layout, about: Description) -> _Place | None:
    """Where a file of a bundle belongs, with its mode. None for the map."""
    stored = path.removeprefix(f"{about.id}/")
    entry = layout.entries.get(stored)
    if entry is not None:
        return _Place(f"{about.name}/{entry.path}", int(entry.mode, 8))
    is_map = stored == MAP_FILE and layout.map_text is not None
    return None if is_map else _Place(f"{about.name}/{stored}", _PLAIN_MODE)


def _repack(tar: Iterator[bytes], place_of: Callable[[str], _Place | None], mtime: int) -> Iterator[bytes]:
    """The members of Pachyderm's tar with relative, true names and useful modes; folders follow from the
    files.
    """
    reader = tars.TarReader(IteratorSource(tar))
    for member in reader:
        place = place_of(member.name.strip("/")) if member.kind == "file" else None
        if place is None:
            continue
        yield tars.header(place.path, member.size, place.mode, mtime)
        yield from reader.payload()
        yield tars.padding(member.size)


def _compress(members: Iterator[bytes]) -> Iterator[bytes]:
    compressor = zstandard.ZstdCompressor(level=_LEVEL).compressobj()
    for data in members:
        if compressed := compressor.compress(data):
            yield compressed
    yield compressor.flush()


def _chain(first: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    yield first
    yield from rest
