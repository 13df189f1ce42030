"""`kaos_v1.Engine.Foreground`: a command that somebody waits for, and types at."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import grpc

from kaos_backend.engine.errors import InvalidArgument
from kaos_backend.engine.facade.errors import Cancelled
from kaos_backend.engine.facade.rpc import Handlers, bidirectional
from kaos_backend.engine.jobs.db.rows import JobKey, PipelineKey
from kaos_backend.engine.jobs.foregrounds import Extra, Foregrounds
from kaos_backend.engine.jobs.run.foreground import Event, Foreground
from kaos_backend.engine.workers.terminal import Terminal
from kaos_formats import kaos_v1

_MAX_SIZE = 10_000


class ForegroundService:
    """The part of the service that is about commands in the foreground."""

    name = kaos_v1.SERVICE

    def __init__(self, foregrounds: Foregrounds) -> None:
        self._foregrounds = foregrounds

    def handlers(self) -> Handlers:
        return {"Foreground": bidirectional(self._foreground, kaos_v1.ForegroundInput)}

    def _foreground(
        self, requests: Iterator[kaos_v1.ForegroundInput], context: grpc.ServicerContext
    ) -> Iterator[bytes]:
        first = next(requests, None)
        if first is None or first.open is None:
            raise InvalidArgument("the first message must open it")
        size = first.open.terminal
        terminal = None if size is None else Terminal(*_checked(size))
        try:
            foreground = self._open(first.open, terminal)
            # Whoever goes away ends it, in the midst of whatever it does.
            if not context.add_callback(foreground.cancel):
                raise Cancelled("the call was cancelled")
        except BaseException:
            if terminal is not None:
                terminal.close()
            raise
        typist = threading.Thread(
            target=_type, args=(requests, terminal, foreground), name="foreground-input", daemon=True
        )
        typist.start()
        for event in self._foregrounds.events(foreground):
            yield bytes(_message(event))

    def _open(self, asked: kaos_v1.ForegroundOpen, terminal: Terminal | None) -> Foreground:
        extra = Extra(asked.cmd, asked.env, terminal, asked.keep)
        if asked.datum is not None:
            job = JobKey(PipelineKey(asked.project, asked.datum.pipeline), asked.datum.job)
            return self._foregrounds.of_datum(job, asked.datum.path, extra)
        commits = [(one.name, one.repo, one.commit, one.path) for one in asked.commits]
        inline = {one.name: (one.path, one.file, one.content) for one in asked.files}
        return self._foregrounds.of_spec(asked.project, asked.spec, commits, inline, extra)


def _type(
    requests: Iterator[kaos_v1.ForegroundInput], terminal: Terminal | None, foreground: Foreground
) -> None:
    try:
        for request in requests:
            if terminal is None:
                continue
            if request.size is not None:
                terminal.resize(*_checked(request.size))
            terminal.write(request.typed)
    except Exception:
        # Broken off, or no message of ours: nobody is there who could go on.
        foreground.cancel()


def _checked(size: kaos_v1.TerminalSize) -> tuple[int, int]:
    return min(max(size.rows, 1), _MAX_SIZE), min(max(size.columns, 1), _MAX_SIZE)


def _message(event: Event) -> kaos_v1.ForegroundOutput:
    return kaos_v1.ForegroundOutput(
        waiting=event.waiting,
        running=event.running,
        note=event.note,
        printed=event.printed,
        output=event.output,
        end=None if event.code is None else kaos_v1.ForegroundEnd(code=event.code, reason=event.reason),
    )
