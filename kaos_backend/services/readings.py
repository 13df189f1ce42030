"""The metrics of models: read once of each content, whichever jobs and backends ask."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from functools import cache, partial
from typing import Protocol

from kaos_backend import errors
from kaos_backend.domain import metrics
from kaos_backend.domain.models import Datum
from kaos_backend.pachd.port import Pachd
from kaos_backend.services import truenames
from kaos_backend.services.stream import IteratorSource
from kaos_formats import names
from kaos_formats.tar import TarReader

# More than so many are not named one by one: all that the job has is gone through.
_NAMED = 100


class Remembered(Protocol):
    """What the metrics of contents are, as they were read once; it may forget any of it at any time."""

    def get(self, server: str, contents: Iterable[str]) -> Mapping[str, metrics.Reading]:
        """By content of a server (its id), for those that are known."""

    def put(self, server: str, readings: Mapping[str, metrics.Reading]) -> None: ...


class Readings:
    """Reading the metrics of the models in a train job's output."""

    def __init__(self, pachd: Pachd, remembered: Remembered) -> None:
        self._pachd = pachd
        self._remembered = remembered

    def of(self, workspace: str, job_id: str, wrote: Mapping[str, Datum]) -> dict[str, metrics.Reading]:
        """Model id → its metrics, of the models that these datums wrote (by their ids).

        Those that the job's output does not show yet are not there. Raises DataLoss.
        """
        contents = self._contents(workspace, job_id, wrote)
        found = {
            model: metrics.Reading({})
            for model, datum in wrote.items()
            # It is known that there is nothing.
            if model not in contents and datum.bytes is not None
        }
        if not contents:
            return found
        server = self._pachd.cluster().id
        known = self._remembered.get(server, contents.values())
        found |= {model: known[content] for model, content in contents.items() if content in known}
        unread = [model for model in contents if model not in found]
        if unread:
            fresh = self._read(workspace, job_id, unread)
            self._remembered.put(server, {contents[model]: reading for model, reading in fresh.items()})
            found |= fresh
        return found

    def _contents(self, workspace: str, job_id: str, wrote: Mapping[str, Datum]) -> dict[str, str]:
        """Model id → what its content is called; those without any are not there."""
        if all(datum.bytes is not None for datum in wrote.values()):
            return {model: datum.output for model, datum in wrote.items() if datum.output}
        shown = self._pachd.folders(workspace, names.TRAIN, job_id, "/*")
        return {model: shown[model] for model in wrote if model in shown}

    def _read(self, workspace: str, job_id: str, models: Collection[str]) -> dict[str, metrics.Reading]:
        """The metrics of those of the models that are shown."""
        found = self._metrics(workspace, job_id, models)
        silent = [model for model in models if model not in found]
        # Either they have no metrics, or they were not there: now they may be, with what they have.
        for start in range(0, len(silent), _NAMED):
            which = _any_of(silent[start : start + _NAMED])
            shown = self._pachd.folders(workspace, names.TRAIN, job_id, f"/{which}")
            if shown:
                found |= {model: metrics.Reading({}) for model in shown}
                found |= self._metrics(workspace, job_id, shown)
        return found

    def _metrics(self, workspace: str, job_id: str, models: Collection[str]) -> dict[str, metrics.Reading]:
        """Metrics by model id, from one stream of these models' metrics files."""
        which = _any_of(models) if len(models) <= _NAMED else "*"
        wanted = frozenset(models)
        tar = self._pachd.read_tar(workspace, names.TRAIN, job_id, f"/{which}/**metrics*.json")
        maps = cache(partial(truenames.of_models, self._pachd, workspace, job_id))

        def true_path(model: str, path: str) -> str:
            # All escaped names have a %, and few metrics files have one.
            held = maps().get(model) if "%" in path else None
            return path if held is None else held.path(path)

        try:
            # A tar of Pachyderm's comes in order of paths: one model's files follow one another.
            by_model = itertools.groupby(_files(tar, wanted, true_path), key=lambda found: found[0])
            return {model: metrics.read(file for _, file in files) for model, files in by_model}
        except errors.NotFound:
            return {}


def _files(
    tar: Iterator[bytes], wanted: Collection[str], true_path: Callable[[str, str], str]
) -> Iterator[tuple[str, metrics.File]]:
    """(model id, file) of each metrics file of the wanted models in a tar of models."""
    reader = TarReader(IteratorSource(tar))
    current, room = "", 0
    for member in reader:
        model, _, path = member.name.strip("/").partition("/")
        if member.kind != "file" or model not in wanted or not metrics.is_metrics_file(path):
            continue
        if model != current:
            current, room = model, metrics.MAX_MODEL_BYTES
        readable = member.size <= min(room, metrics.MAX_METRICS_BYTES)
        room -= member.size if readable else 0
        content = b"".join(reader.payload()) if readable else None
        yield model, metrics.File(true_path(model, path), member.size, content)


def _any_of(models: Collection[str]) -> str:
    """A glob for these models' names, which are digits and dashes."""
    return "{" + ",".join(sorted(models)) + "}" if len(models) != 1 else next(iter(models))
