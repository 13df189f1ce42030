"""The application without an engine: what it documents, and what it says when the engine is gone."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import re
import threading
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest

from kaos_backend import errors
from kaos_backend.api.streams import MAX_BUFFERED_BYTES, BodyPipe, encoded, json_line
from kaos_backend.app import create_app
from kaos_backend.domain.machine import machine_of, notes_of
from kaos_backend.domain.models import Cluster
from kaos_backend.pachd.endpoint import Endpoint
from kaos_backend.pachd.errors import CommitFinished, from_status, translate
from kaos_backend.services.batches import BrokenOff
from kaos_backend.services.locks import KeyedLocks
from kaos_backend.settings import KIB, MIB, TIB, Limits, Settings
from kaos_formats import reasons
from kaos_formats.home import Home

DOCS = Path(__file__).parents[3] / "docs" / "api.md"


class GoneEngine:
    """An engine that does not come up."""

    def current(self) -> Endpoint:
        raise errors.EngineUnavailable("the engine ended with exit code 1: no disk", hint="see engine.log")

    def ensure(self) -> Endpoint:
        return self.current()


def request(tmp_path: Path, method: str, path: str, **kwargs: Any) -> httpx.Response:
    app = create_app(Settings(home=Home(tmp_path)), GoneEngine())
    token = (tmp_path / "token").read_text().strip()

    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(app=app, raise_app_exceptions=False)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost") as client:
            return await client.request(method, path, headers={"Authorization": f"Bearer {token}"}, **kwargs)

    return asyncio.run(ask())


def test_without_an_engine_health_answers_and_the_rest_is_503(tmp_path: Path) -> None:
    assert request(tmp_path, "GET", "/v1/health").status_code == 200
    answer = request(tmp_path, "GET", "/v1/workspaces")
    assert answer.status_code == 503
    assert answer.json()["error"]["code"] == "engine_unavailable"
    assert "no disk" in answer.json()["error"]["message"]


def test_a_bug_is_answered_in_the_same_shape(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(GoneEngine, "ensure", lambda _self: 1 / 0)
    answer = request(tmp_path, "GET", "/v1/workspaces")
    assert (answer.status_code, answer.json()["error"]["code"]) == (500, "internal")
    assert answer.headers["X-Kaos-Version"]


def test_documentation_and_openapi_name_the_same_routes(tmp_path: Path) -> None:
    spec = create_app(Settings(home=Home(tmp_path)), GoneEngine()).openapi()
    served = {
        (method.upper(), re.sub(r"\{[^}]*\}", "{}", path.removeprefix("/v1")))
        for path, methods in spec["paths"].items()
        for method in methods
    }
    documented = {
        (method, re.sub(r"\{[^}]*\}", "{}", path.partition("?")[0].partition("[")[0]))
        for method, path in re.findall(
            r"^\| `(GET|POST|PUT|DELETE) ([^` ]+)`", DOCS.read_text(), re.MULTILINE
        )
    }
    assert documented == served


def test_documentation_names_every_limit(tmp_path: Path) -> None:
    documented = dict(re.findall(r"^\| `(\w+)` \| ([^|]+) \|", DOCS.read_text(), re.MULTILINE))
    units = {"KiB": KIB, "MiB": MIB, "TiB": TIB, "s": 1}
    for field in dataclasses.fields(Limits):
        number, _, unit = documented[field.name].replace(",", "").partition(" ")
        assert float(number) * units.get(unit, 1) == field.default, field.name


def test_documentation_names_every_query_parameter_and_field(tmp_path: Path) -> None:
    spec = create_app(Settings(home=Home(tmp_path)), GoneEngine()).openapi()
    text = DOCS.read_text()
    for path, methods in spec["paths"].items():
        for operation in methods.values():
            for parameter in operation.get("parameters", []):
                assert parameter["in"] == "header" or parameter["name"] in text or "{" in path, parameter
    for name, schema in spec["components"]["schemas"].items():
        for field in schema.get("properties", {}):
            if name not in ("HTTPValidationError", "ValidationError"):
                assert re.search(rf"\b{field}\b", text), (name, field)


@pytest.mark.parametrize(
    ("code", "details", "expected"),
    [
        (grpc.StatusCode.NOT_FOUND, "repo x not found", errors.NotFound),
        (grpc.StatusCode.ALREADY_EXISTS, "project x already exists", errors.Exists),
        (grpc.StatusCode.UNAVAILABLE, "Socket closed", errors.EngineUnavailable),
        (grpc.StatusCode.UNAUTHENTICATED, "no authentication token", errors.EngineUnavailable),
        (grpc.StatusCode.UNKNOWN, "write /x: no space left on device", errors.DiskFull),
        (grpc.StatusCode.UNKNOWN, "commit x has already finished", CommitFinished),
        (grpc.StatusCode.NOT_FOUND, "file no space left on device not found", errors.NotFound),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "message larger than max (5 vs. 4)", errors.Internal),
        (grpc.StatusCode.FAILED_PRECONDITION, "asks for 64 cpu but this machine has 2", errors.Internal),
        (grpc.StatusCode.FAILED_PRECONDITION, "cannot delete project", errors.Internal),
        (grpc.StatusCode.UNKNOWN, "parent commit x has not been finished", errors.Internal),
    ],
)
def test_every_status_becomes_one_error(
    code: grpc.StatusCode, details: str, expected: type[errors.KaosError]
) -> None:
    error = from_status(code, details)
    assert type(error) is expected
    assert details in error.message


@pytest.mark.parametrize(
    ("code", "reason", "expected"),
    [
        (grpc.StatusCode.RESOURCE_EXHAUSTED, reasons.DISK_FULL, errors.DiskFull),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, reasons.TOO_MANY_CALLS, errors.Busy),
        (grpc.StatusCode.FAILED_PRECONDITION, reasons.NEVER_FITS, errors.NeverFits),
        (grpc.StatusCode.UNKNOWN, reasons.COMMIT_FINISHED, CommitFinished),
        (grpc.StatusCode.NOT_FOUND, "a reason of a later engine", errors.NotFound),
    ],
)
def test_the_engines_reason_tells_errors_of_one_status_apart(
    code: grpc.StatusCode, reason: str, expected: type[errors.KaosError]
) -> None:
    error = from_status(code, "whatever it says", reason)
    assert type(error) is expected
    assert "whatever it says" in error.message


def test_other_exceptions() -> None:
    assert isinstance(translate(ConnectionError("x")), errors.EngineUnavailable)
    assert isinstance(translate(TypeError("x")), errors.Internal)
    known = errors.NoBundle("x")
    assert translate(known) is known


def test_the_machine_that_a_cluster_tells_of() -> None:
    told = Cluster("a", "id", {"kaos.machine": '{"cpus": 2}', "kaos.notes": '["no isolation"]'})
    assert machine_of(told) == {"cpus": 2}
    assert notes_of(told) == ["no isolation"]
    silent = Cluster("a", "id", {"kaos.machine": "[", "kaos.notes": "one\ntwo"})
    assert machine_of(silent) == {}
    assert notes_of(silent) == ["one", "two"]


async def _body(chunks: list[bytes], broken: bool = False) -> AsyncIterator[bytes]:
    for chunk in chunks:
        yield chunk
    if broken:
        raise ConnectionResetError


def test_a_body_passes_through_in_order_and_bounded() -> None:
    chunks = [bytes([n]) * (MAX_BUFFERED_BYTES // 3) for n in range(10)]

    async def run() -> bytes:
        pipe = BodyPipe()
        feeding = asyncio.create_task(pipe.feed(_body(chunks)))

        def drain() -> bytes:
            found = bytearray()
            while data := pipe.read(1000_000):
                assert len(data) <= 1000_000
                assert pipe._buffered <= 2 * MAX_BUFFERED_BYTES
                found += data
            return bytes(found)

        found = await asyncio.to_thread(drain)
        await feeding
        return found

    assert asyncio.run(run()) == b"".join(chunks)


def test_a_broken_body_breaks_its_reader() -> None:
    async def run() -> None:
        pipe = BodyPipe()
        with pytest.raises(ConnectionResetError):
            await pipe.feed(_body([b"x"], broken=True))
        assert pipe.read(10) == b"x"
        with pytest.raises(BrokenOff):
            pipe.read(10)

    asyncio.run(run())


def test_an_abandoned_body_is_not_waited_for() -> None:
    async def run() -> None:
        pipe = BodyPipe()
        feeding = asyncio.create_task(pipe.feed(_body([bytes(MAX_BUFFERED_BYTES)] * 3)))
        await asyncio.sleep(0)
        pipe.abandon()
        await asyncio.wait_for(feeding, 5)

    asyncio.run(run())


def test_a_reader_of_an_abandoned_body_is_woken() -> None:
    async def run() -> None:
        pipe = BodyPipe()
        reading = asyncio.create_task(asyncio.to_thread(pipe.read, 10))
        await asyncio.sleep(0)
        pipe.abandon()
        with pytest.raises(errors.InvalidBundle):
            await asyncio.wait_for(reading, 5)

    asyncio.run(run())


class Reading:
    """Counts up until it is closed, or fails."""

    def __init__(self, count: int, error: Exception | None = None) -> None:
        self.count, self.error, self.closed = count, error, threading.Event()

    def __iter__(self) -> Iterator[int]:
        for number in range(self.count):
            if self.closed.is_set():
                return
            yield number
        if self.error is not None:
            raise self.error

    def close(self) -> None:
        self.closed.set()


def stream(reading: Reading, gone: bool = False) -> list[dict[str, Any]]:
    async def disconnected() -> bool:
        return gone

    async def run() -> bytes:
        return b"".join([c async for c in encoded(reading, lambda n: json_line({"n": n}), disconnected)])

    return [json.loads(line) for line in asyncio.run(run()).splitlines()]


def test_lines_stream_in_order() -> None:
    reading = Reading(10_000)
    assert [line["n"] for line in stream(reading)] == list(range(10_000))
    assert reading.closed.is_set()


@pytest.mark.parametrize(
    ("error", "code"), [(errors.NoSuchJob("gone"), "no_such_job"), (ZeroDivisionError(), "internal")]
)
def test_an_error_on_the_way_is_the_last_line(error: Exception, code: str) -> None:
    found = stream(Reading(2, error))
    assert found[:2] == [{"n": 0}, {"n": 1}]
    assert (found[2]["end"], found[2]["state"], found[2]["error"]["code"]) == (True, None, code)


def test_a_lock_is_waited_for_so_long_and_no_longer() -> None:
    locks = KeyedLocks()
    with locks.hold("upload", "w", "data"):
        with pytest.raises(errors.Busy, match="w data"), locks.hold("upload", "w", "data", patience_s=0):
            pass
        assert locks.held("upload", "w", "data")
    with locks.hold("upload", "w", "data", patience_s=0):
        pass
    assert not locks._locks


def test_locks_are_per_key_and_forgotten() -> None:
    locks = KeyedLocks()
    order: list[int] = []
    inside = threading.Event()

    def second() -> None:
        inside.set()
        with locks.hold("a"):
            order.append(2)

    with locks.hold("a"), locks.hold("b"):
        assert locks.held("a")
        thread = threading.Thread(target=second)
        thread.start()
        inside.wait(5)
        order.append(1)
    thread.join(5)
    assert order == [1, 2]
    assert not locks.held("a")
    assert not locks._locks


def test_times_are_rfc_3339() -> None:
    from kaos_backend.domain.descriptions import rfc3339

    assert rfc3339(datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)) == "2026-01-02T03:04:05.000000Z"
    assert rfc3339(None) is None


def test_every_object_that_is_answered_tells_its_format(tmp_path: Path) -> None:
    spec = create_app(Settings(home=Home(tmp_path)), GoneEngine()).openapi()
    for path, methods in spec["paths"].items():
        for method, operation in methods.items():
            for status, response in operation["responses"].items():
                schema = response.get("content", {}).get("application/json", {}).get("schema", {})
                if "$ref" in schema and status != "422":
                    name = schema["$ref"].rpartition("/")[2]
                    version = spec["components"]["schemas"][name]["properties"]["version"]
                    assert version["const"] == 1, (method, path, status)
    assert request(tmp_path, "GET", "/v1/health").json()["version"] == 1
    assert request(tmp_path, "GET", "/v1/nowhere").json()["version"] == 1
