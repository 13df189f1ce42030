"""Archives of what a job made or was made of: tar in zstd, streamed file by file."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import zstandard

from kaos_backend import errors
from kaos_backend.pachd.port import Pachd
from kaos_backend.services import inputs
from kaos_backend.services.jobs import Jobs, with_trials
from kaos_backend.services.stream import IteratorSource
from kaos_backend.services.trials import Trials
from kaos_formats import names
from kaos_formats import tar as tars
from kaos_formats.tree import TreeEntry

What = Literal["model", "code", "data"]

_LEVEL = 1
_REPOS = {"code": names.SOURCE, "data": names.DATA}


class Archives:
    """Downloads of models, code and data."""

    def __init__(self, pachd: Pachd, jobs: Jobs, trials: Trials) -> None:
        self._pachd = pachd
        self._jobs = jobs
        self._trials = trials

    def open(self, workspace: str, ref: str, what: What, model: str | None) -> Iterator[bytes]:
        """The archive in chunks: ``<model id>/…`` for models, ``<bundle name>/…`` with modes for code and
        data.

        Raises NoSuchJob, NoSuchModel, Ambiguous, NoBundle before the first chunk.
        """
        inputs.require_workspace(self._pachd, workspace)
        job_id = self._jobs.resolve(workspace, ref)
        read = inputs.InputReader(self._pachd, workspace).of_job(job_id)
        if what == "model":
            members = self._models(workspace, job_id, read, model)
        else:
            members = self._bundle(workspace, _REPOS[what], read)
        chunks = _compress(members)
        # The first chunk is made now, so that what is missing is an answer and not a broken stream.
        first = next(chunks, b"")
        return _chain(first, chunks)

    def _models(
        self, workspace: str, job_id: str, read: inputs.JobInputs, model: str | None
    ) -> Iterator[bytes]:
        train = with_trials(self._jobs.of_set(workspace, job_id))
        if train is None:
            raise errors.NoSuchModel(
                "this job trained nothing", hint="`kaos train list` shows what each job did"
            )
        glob = "/"
        if model:
            glob = f"/{self._trials.select(self._trials.of_job(workspace, train, read), model).model}"
        mtime = int(train.finished.timestamp()) if train.finished else 0
        tar = self._pachd.read_tar(workspace, names.TRAIN, job_id, glob)
        try:
            yield from _repack(tar, "", {}, mtime)
        except errors.NotFound as error:
            raise errors.NoSuchModel(
                f"there is no model {model!r} (yet)" if model else "this job has no models (yet)",
                hint="`kaos train info` shows the state of each trial, `kaos train logs` what it said",
            ) from error

    def _bundle(self, workspace: str, repo: str, read: inputs.JobInputs) -> Iterator[bytes]:
        about, commit_id = read.descriptions.get(repo), read.commits.get(repo)
        if about is None or commit_id is None:
            raise errors.NoBundle(f"this job has no {repo} bundle", kind=repo)
        tree = inputs.read_tree(self._pachd, workspace, repo, commit_id, about.id)
        tar = self._pachd.read_tar(workspace, repo, commit_id, names.bundle_dir(about.id))
        yield from _repack(tar, f"{about.name}/", tree.by_path(), 0, strip=f"{about.id}/")


def _repack(
    tar: Iterator[bytes], prefix: str, modes: dict[str, TreeEntry], mtime: int, strip: str = ""
) -> Iterator[bytes]:
    """Pachyderm's tar with relative names and useful modes; folders follow from the files."""
    reader = tars.TarReader(IteratorSource(tar))
    for member in reader:
        if member.kind != "file":
            continue
        path = member.name.strip("/").removeprefix(strip)
        entry = modes.get(path)
        mode = 0o755 if entry is not None and entry.mode == "755" else 0o644
        yield tars.header(prefix + path, member.size, mode, mtime)
        yield from reader.payload()
        yield tars.padding(member.size)
    yield tars.END


def _compress(members: Iterator[bytes]) -> Iterator[bytes]:
    compressor = zstandard.ZstdCompressor(level=_LEVEL).compressobj()
    for data in members:
        if compressed := compressor.compress(data):
            yield compressed
    yield compressor.flush()


def _chain(first: bytes, rest: Iterator[bytes]) -> Iterator[bytes]:
    yield first
    yield from rest
