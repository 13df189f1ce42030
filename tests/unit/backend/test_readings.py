"""Metrics are read once of each content, and of what is shown only."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable, Iterator, Mapping
from fnmatch import fnmatchcase
from typing import Any, cast

from kaos_backend.domain.metrics import Reading
from kaos_backend.domain.models import Cluster, Datum, DatumState
from kaos_backend.errors import NotFound
from kaos_backend.services.readings import Readings


class Server:
    """As much of the port as is asked: the models that a job's output shows, by name their files."""

    def __init__(self, embedded: bool = True) -> None:
        self.embedded = embedded
        self.models: dict[str, dict[str, str]] = {}
        self.read: list[str] = []

    def cluster(self) -> Cluster:
        return Cluster("a", "server", {})

    def folders(self, _workspace: str, _repo: str, _job: str, glob: str) -> dict[str, str]:
        return {
            name: f"of {files}" for name, files in self.models.items() if name in _among(self.models, glob)
        }

    def read_tar(self, _workspace: str, _repo: str, _job: str, glob: str) -> Iterator[bytes]:
        target = io.BytesIO()
        with tarfile.open(fileobj=target, mode="w") as tar:
            for name in _among(self.models, glob.split("/")[1]):
                for path, text in self.models[name].items():
                    if fnmatchcase(path, "*metrics*.json"):
                        self.read.append(name)
                        info = tarfile.TarInfo(f"/{name}/{path}")
                        info.size = len(text)
                        tar.addfile(info, io.BytesIO(text.encode()))
        if not self.read:
            raise NotFound("nothing matches")
        yield target.getvalue()

    def wrote(self, *names: str) -> dict[str, Datum]:
        """The datums as the server lists them."""
        return {name: self._datum(name) for name in names}

    def _datum(self, name: str) -> Datum:
        datum = Datum(name, "j", DatumState.SUCCESS, (), 1.0)
        if not self.embedded:
            return datum
        output = f"of {self.models[name]}" if name in self.models else f"will be {name}"
        return Datum(name, "j", DatumState.SUCCESS, (), 1.0, output=output, bytes=1)


def _among(names: Iterable[str], glob: str) -> list[str]:
    wanted = glob.strip("/").strip("{}").split(",")
    return [name for name in names if wanted == ["*"] or name in wanted]


class Memory:
    def __init__(self) -> None:
        self.known: dict[str, Reading] = {}

    def get(self, _server: str, contents: Iterable[str]) -> Mapping[str, Reading]:
        return {content: self.known[content] for content in contents if content in self.known}

    def put(self, _server: str, readings: Mapping[str, Reading]) -> None:
        self.known |= readings


def metrics_of(server: Server, memory: Memory, *names: str, job: str = "j") -> dict[str, Any]:
    found = Readings(cast(Any, server), memory).of("w", job, server.wrote(*names))
    return {name: reading.metrics for name, reading in found.items()}


def test_a_content_is_read_once_in_whichever_job_it_is() -> None:
    server, memory = Server(), Memory()
    server.models = {"a": {"metrics.json": '{"x": 1}'}, "b": {"metrics.json": '{"x": 2}'}, "c": {"f": ""}}
    for job in ("one", "two"):
        found = metrics_of(server, memory, "a", "b", "c", job=job)
        assert found == {"a": {"x": 1}, "b": {"x": 2}, "c": {}}
    assert server.read == ["a", "b"]
    # Two more: those alone are read.
    server.models["d"] = {"metrics.json": '{"x": 4}'}
    assert metrics_of(server, memory, "a", "d")["d"] == {"x": 4}
    assert server.read == ["a", "b", "d"]


def test_without_the_cache_it_is_the_same() -> None:
    server = Server()
    server.models = {"a": {"metrics.json": '{"x": 1}'}, "b": {"metrics.json": "["}}
    memory = Memory()
    first = metrics_of(server, memory, "a", "b")
    assert first == metrics_of(server, memory, "a", "b") == metrics_of(server, Memory(), "a", "b")


def test_another_content_of_the_same_name_is_read() -> None:
    for embedded in (True, False):
        server, memory = Server(embedded), Memory()
        server.models = {"a": {"metrics.json": '{"x": 1}'}}
        assert metrics_of(server, memory, "a") == {"a": {"x": 1}}
        server.models = {"a": {"metrics.json": '{"x": 2}'}}
        assert metrics_of(server, memory, "a") == {"a": {"x": 2}}
        server.models = {"a": {"metrics.json": '{"x": 1}'}}
        assert metrics_of(server, memory, "a") == {"a": {"x": 1}}


def test_what_is_not_shown_yet_is_not_taken_for_one_without_metrics() -> None:
    for embedded in (True, False):
        server, memory = Server(embedded), Memory()
        server.models = {"a": {"metrics.json": '{"x": 1}'}}
        assert metrics_of(server, memory, "a", "b") == {"a": {"x": 1}}
        server.models["b"] = {"metrics.json": '{"x": 2}'}
        assert metrics_of(server, memory, "a", "b") == {"a": {"x": 1}, "b": {"x": 2}}


def test_many_are_read_at_once() -> None:
    server, memory = Server(), Memory()
    server.models = {f"{n}": {"metrics.json": f'{{"x": {n}}}'} for n in range(250)}
    server.models |= {f"no-{n}": {"model": ""} for n in range(150)}
    found = metrics_of(server, memory, *server.models)
    assert found == {f"{n}": {"x": n} for n in range(250)} | {f"no-{n}": {} for n in range(150)}
    assert metrics_of(server, memory, *server.models) == found
    assert len(server.read) == 250
