"""What has ended since so many datums had: each once, whenever one asks, and after a restart too."""

from __future__ import annotations

from typing import Any

from pachyderm_sdk.api import pps

from kaos_formats import kaos_v1
from tests.integration.engine.conftest import Engine, EngineProcess
from tests.support.waiting import eventually

# Each datum waits until the test lets it go on.
ONE_BY_ONE = """
while [ ! -e $SIDE/go-$(basename $a) ]; do sleep 0.02; done
cat $a > $OUT/$(basename $a)
[ $(basename $a) != bad ]
"""
# In which order they begin nobody knows.
ALL_AT_ONCE: dict[str, Any] = {
    "parallelism_spec": pps.ParallelismSpec(constant=4),
    "resource_requests": pps.ResourceSpec(cpu=0.25),
}


def ended(engine: Engine, job: str, since: int = 0, path: str = "") -> dict[str, kaos_v1.Datum]:
    """File name of the input → the datum that has ended."""
    request = kaos_v1.DatumsRequest(project="default", pipeline="p", job=job, since=since, path=path)
    call = engine.client._channel.unary_stream(
        kaos_v1.method("Datums"),
        request_serializer=bytes,
        response_deserializer=kaos_v1.DatumsResponse.FromString,
    )
    found = [datum for part in call(request) for datum in part.datums]
    named = {datum.inputs[0].path.strip("/"): datum for datum in found}
    assert len(named) == len(found)
    return named


def test_each_end_has_its_number(engine_process: EngineProcess) -> None:
    engine = engine_process.start()
    engine.repo("a", {f"/{name}": name.encode() for name in ("first", "second", "bad", "last")})
    engine.pipeline("p", ONE_BY_ONE, {"a": "/*"}, err=True, **ALL_AT_ONCE)
    job = eventually(lambda: engine.last_job("p"), "there is a job").job.id
    assert ended(engine, job) == {}
    for number, name in enumerate(("first", "second", "bad"), 1):
        (engine.side / f"go-{name}").touch()
        since = eventually(lambda n=number: ended(engine, job, n - 1), f"{name} ends")
        assert list(since) == [name]
        assert since[name].ended == number
    bad = ended(engine, job)["bad"]
    assert bad.reason.startswith("exit code 1")
    assert bad.finished_us >= bad.started_us > 0

    engine_process.kill()
    engine = engine_process.start()
    assert {name: one.ended for name, one in ended(engine, job).items()} == {
        "first": 1, "second": 2, "bad": 3,
    }  # fmt: skip
    assert list(ended(engine, job, path="/second")) == ["second"]
    (engine.side / "go-last").touch()
    engine.wait("p")
    assert {name: one.ended for name, one in ended(engine, job, 3).items()} == {"last": 4}

    # What an earlier job has done counts from the beginning; the same content has the same name.
    old = ended(engine, job)
    engine.put("a", {"/new": b"new"})
    (engine.side / "go-new").touch()
    again = eventually(lambda: engine.last_job("p"), "there is a job").job.id
    engine.wait("p", again)
    now = ended(engine, again)
    assert sorted(one.ended for one in now.values()) == [1, 2, 3, 4, 5]
    assert {now[name].output for name in ("first", "second", "last")} == {
        old[name].output for name in ("first", "second", "last")
    }
    assert {now[name].ended for name in ("first", "second", "last")} == {1, 2, 3}
