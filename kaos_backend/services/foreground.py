"""Commands that somebody waits for: one trial in the foreground, and a shell where a trial was.

They last as long as who asked for them listens. What is typed comes by calls of its own and finds its command
by a name that nobody can guess.
"""

from __future__ import annotations

import io
import json
import secrets
import threading
from base64 import b64decode
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import zstandard
from kaos_pipelines.specs import train_script

from kaos_backend import errors
from kaos_backend.domain import deploys, hyperparams, resources
from kaos_backend.domain.machine import builder_of, check_fits, machine_of
from kaos_backend.domain.models import JobState
from kaos_backend.domain.stages import Target
from kaos_backend.pachd.port import ForegroundCall, Pachd
from kaos_backend.services import inputs
from kaos_backend.services.bundles import Bundles, no_bundle
from kaos_backend.services.lines import ForegroundLine
from kaos_backend.services.requests import Run, Shell, Typed
from kaos_backend.services.stages import BUILD, TRAIN
from kaos_backend.services.trials import Trials
from kaos_formats import kaos_v1, names
from kaos_formats.tar import TarReader

_IMAGE_FILE = "image.json"
_MAX_IMAGE_BYTES = 1 << 20
_LEVEL = 1
Steps = Callable[["Session"], Iterator[ForegroundLine]]


class Session:
    """Iterate over it once for lines of the answer, the end last. ``close`` from any thread ends the
    command.

    Args:
        listed: has the session by its name as long as it is iterated over.
    """

    def __init__(self, steps: Steps, listed: dict[str, Session]) -> None:
        self.name = secrets.token_hex(16)
        self._steps = steps
        self._listed = listed
        self._guard = threading.Lock()
        self._call: ForegroundCall | None = None
        self._closed = False

    def __iter__(self) -> Iterator[ForegroundLine]:
        # Not before: whoever asked may be gone by now, and then nobody ever begins, or ends it.
        self._listed[self.name] = self
        try:
            yield ForegroundLine(session=self.name)
            yield from self._steps(self)
        finally:
            self.close()

    def close(self) -> None:
        """Idempotent."""
        with self._guard:
            self._closed = True
            call = self._call
        self._listed.pop(self.name, None)
        if call is not None:
            call.close()

    def at(self, call: ForegroundCall) -> bool:
        """From now on this is what runs; False, and it is closed, if nobody listens any more."""
        with self._guard:
            self._call = call
            closed = self._closed
        if closed:
            call.close()
        return not closed

    def type(self, typed: bytes, rows: int | None, columns: int | None) -> None:
        """Pass on what is typed, and the new size of the terminal."""
        with self._guard:
            call = self._call
        if call is not None:
            size = (
                None if rows is None or columns is None else kaos_v1.TerminalSize(rows=rows, columns=columns)
            )
            call.type(typed, size)


class Foregrounds:
    """The sessions of this backend; nothing of them outlasts it."""

    def __init__(self, pachd: Pachd, trials: Trials, bundles: Bundles) -> None:
        self._pachd = pachd
        self._trials = trials
        self._bundles = bundles
        self._sessions: dict[str, Session] = {}

    def type(self, name: str, typed: Typed) -> None:
        """Raises NotFound when the command has ended."""
        session = self._sessions.get(name)
        if session is None:
            raise errors.NotFound("that command has ended")
        if typed.end:
            session.close()
        else:
            session.type(b64decode(typed.typed), typed.rows, typed.columns)

    def shell(self, workspace: str, ref: str, number: int, request: Shell) -> Session:
        """A shell in the image of a job's trial, with its inputs, limits, and its output folder as it was
        left.

        Raises NoSuchWorkspace, NoSuchJob, Ambiguous, NotFound (no such trial), NotYet; NeedsEmbeddedEngine at
        the first line.
        """
        train, trial = self._trials.find(workspace, ref, number)
        if train.state in (JobState.CREATED, JobState.STARTING):
            raise errors.NotYet(
                f"job {train.id[:8]} has not begun to train",
                hint=f"`kaos train info {train.id[:8]}` says why",
            )
        ask = kaos_v1.ForegroundOpen(
            project=workspace,
            datum=kaos_v1.DatumOf(
                pipeline=train.pipeline, job=train.id, path=names.params_path(trial.point.params_id)
            ),
            cmd=["sh", "-c", "\n".join(train_script()), "train.sh"],
            env={"KAOS_SHELL": "1", "TERM": request.term},
            terminal=kaos_v1.TerminalSize(rows=request.rows, columns=request.columns),
        )

        def look(session: Session) -> Iterator[ForegroundLine]:
            try:
                yield from self._one(session, ask, ForegroundLine)
            except errors.NotFound as error:
                if trial.datum is not None or not train.state.terminal:
                    raise
                raise errors.NotFound(
                    f"job {train.id[:8]} ended before it came to trial {number}: there is nothing to look at",
                    hint="`kaos train run` runs one trial here and now",
                ) from error

        return Session(look, self._sessions)

    def run(self, workspace: str, request: Run) -> Session:
        """One trial as a deploy of the same would run it, its image made first. Nothing of it is stored.

        Raises NoSuchWorkspace, NoBundle, InvalidHyper, InvalidResources, NeverFits; NeedsEmbeddedEngine at
        the first line.
        """
        inputs.require_workspace(self._pachd, workspace)
        grid = hyperparams.parse_grid(request.params) if request.params else hyperparams.expand({})
        if len(grid.trials) != 1:
            raise errors.InvalidHyper(
                f"one trial takes one value of each parameter, and these span {len(grid.trials)} trials",
                hint="`kaos train deploy -h GRID.json` runs a grid",
            )
        source, source_commit = self._bundle(workspace, names.SOURCE, request.source)
        data = self._data(workspace, request.data)
        target = self._target(workspace, source, request)
        build = kaos_v1.ForegroundOpen(
            project=workspace,
            spec=json.dumps(BUILD.spec(target)),
            commits=[_input(names.SOURCE, source_commit, "/")],
            keep=True,
        )
        point = grid.trials[0]
        params = names.params_path(point.params_id)

        def train(image: bytes) -> kaos_v1.ForegroundOpen:
            made = f"/{source}/"
            return kaos_v1.ForegroundOpen(
                project=workspace,
                spec=json.dumps(TRAIN.spec(target)),
                commits=[data],
                files=[
                    _file(names.BUILD, made, made + _IMAGE_FILE, image),
                    _file(names.HYPER, params, params, point.text.encode()),
                ],
                keep=request.keep,
            )

        return Session(lambda session: self._build_and_train(session, build, train), self._sessions)

    def _bundle(self, workspace: str, kind: names.BundleKind, wanted: str | None) -> tuple[str, str]:
        """(id, commit) of a bundle: what is current, or was sent for this. Raises NoBundle."""
        head = inputs.head(self._pachd, workspace, kind)
        if head is not None and wanted in (None, head.description.id):
            return head.description.id, head.commit.id
        if wanted is None:
            raise _no_bundle_yet(workspace, kind)
        staged = self._bundles.staged(workspace, kind, wanted)
        if staged is None:
            raise no_bundle(workspace, kind, wanted)
        return wanted, staged[0].id

    def _data(self, workspace: str, wanted: str | None) -> kaos_v1.CommitInput:
        """The data: what is current, fetched or not, or was sent for this. Raises NoBundle, NotYet."""
        if wanted is not None:
            id_, commit = self._bundle(workspace, names.DATA, wanted)
            return _input(names.DATA, commit, names.bundle_dir(id_))
        current = inputs.current_data(self._pachd, workspace, inputs.heads(self._pachd, workspace))
        if current is None:
            raise _no_bundle_yet(workspace, names.DATA)
        about = current.descriptions[names.DATA]
        if not about.id:
            raise errors.NotYet(
                f"the data {about.name} of workspace {workspace} is still being fetched",
                hint="`kaos train wait` waits for that",
            )
        repo = current.data_repo
        return _input(names.DATA, current.commits[repo], names.bundle_dir(about.id), repo)

    def _target(self, workspace: str, source: str, request: Run) -> Target:
        specs = {pipeline.name: pipeline.spec for pipeline in self._pachd.pipelines(workspace)}
        settings = deploys.settings_of(specs.get(names.TRAIN)).resources
        if (asked := request.resources) is not None:
            settings = resources.apply(
                settings, asked.cpu, asked.memory, asked.gpu, asked.tries, asked.timeout_s
            )
        cluster = self._pachd.cluster()
        check_fits(machine_of(cluster), settings)
        arguments = deploys.arguments_of(specs.get(names.BUILD))
        return Target(workspace, source, builder_of(cluster), settings, 1, True, arguments)

    # --- the steps of a session

    def _one(
        self, session: Session, ask: kaos_v1.ForegroundOpen, line: Callable[..., ForegroundLine]
    ) -> Iterator[ForegroundLine]:
        """Whatever one command brings, its end too; its output in zstd."""
        call = self._pachd.foreground(ask)
        if not session.at(call):
            return
        compressor = zstandard.ZstdCompressor(level=_LEVEL).compressobj()
        for told in call:
            if told.output:
                if data := compressor.compress(told.output):
                    yield line(output=data)
            elif told.end is not None:
                if ask.keep and (data := compressor.flush()):
                    yield line(output=data)
                yield line(end=True, code=told.end.code, reason=told.end.reason)
                return
            else:
                yield line(waiting=told.waiting, running=told.running, note=told.note, printed=told.printed)
        raise errors.EngineUnavailable("the engine ended the command", hint="try again")

    def _build_and_train(
        self,
        session: Session,
        build: kaos_v1.ForegroundOpen,
        train: Callable[[bytes], kaos_v1.ForegroundOpen],
    ) -> Iterator[ForegroundLine]:
        packed: list[bytes] = []

        def of_build(**told: Any) -> ForegroundLine:
            return ForegroundLine(stage=names.BUILD, **told)

        for line in self._one(session, build, of_build):
            if line.output:
                packed.append(line.output)
            elif not line.end:
                yield line
            elif line.code:
                yield of_build(end=True, code=line.code, reason=line.reason or "the build failed")
                return
        yield from self._one(session, train(_image(b"".join(packed))), ForegroundLine)


def _no_bundle_yet(workspace: str, kind: str) -> errors.NoBundle:
    return errors.NoBundle(
        f"workspace {workspace} has no {kind} bundle", hint=f"give one with -{kind[0]}", kind=kind
    )


def _input(name: str, commit: str, path: str, repo: str = "") -> kaos_v1.CommitInput:
    """``repo``: where it is, unless that has the input's name."""
    return kaos_v1.CommitInput(name=name, repo=repo or name, commit=commit, path=path)


def _file(name: str, path: str, file: str, content: bytes) -> kaos_v1.FileInput:
    return kaos_v1.FileInput(name=name, path=path, file=file, content=content)


def _image(packed: bytes) -> bytes:
    """What the build says of the image it made."""
    tar = io.BytesIO()
    with suppress(zstandard.ZstdError):
        tar = io.BytesIO(zstandard.ZstdDecompressor().decompressobj().decompress(packed))
    reader = TarReader(tar)
    for member in reader:
        if member.name.endswith(f"/{_IMAGE_FILE}") and member.size <= _MAX_IMAGE_BYTES:
            return b"".join(reader.payload())
    raise errors.Internal("the build has not said which image it made", hint="see engine.log")
