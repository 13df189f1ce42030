"""What runs at once never exceeds the machine (here: 2 cores, 4 GiB), whoever asks."""

from __future__ import annotations

from pathlib import Path

import pytest
from pachyderm_sdk import Client
from pachyderm_sdk.api import pfs, pps

from kaos_backend.engine.jobs.schedule.machine import Machine
from kaos_backend.engine.main import start
from kaos_backend.engine.workers.process.runtime import ProcessRuntime
from kaos_formats import kaos_v1
from tests.integration.engine.conftest import Engine
from tests.support.waiting import eventually

# Begins the first so many together, and is long enough for one too many to be seen.
SPAN = """
echo "+ $(date +%s%N)" >> $SIDE/spans
until [ $(grep -c + $SIDE/spans) -ge LIMIT ]; do sleep 0.01; done
sleep 0.15
echo "- $(date +%s%N)" >> $SIDE/spans
"""


def most_at_once(engine: Engine) -> int:
    now = most = 0
    for _, sign in sorted((int(at), sign) for sign, at in (line.split() for line in engine.runs("spans"))):
        now += 1 if sign == "+" else -1
        most = max(most, now)
    return most


@pytest.mark.parametrize(
    ("resources", "limit"),
    [
        (pps.ResourceSpec(cpu=1), 2),
        (pps.ResourceSpec(cpu=0.5), 4),
        (pps.ResourceSpec(cpu=2), 1),
        (pps.ResourceSpec(cpu=0.1, memory="3Gi"), 1),
    ],
    ids=["whole", "half", "both", "memory"],
)
def test_two_pipelines_together_stay_within_the_machine(
    engine: Engine, resources: pps.ResourceSpec, limit: int
) -> None:
    engine.repo("a", {f"/{i}": b"" for i in range(6)})
    for name in ("p", "q"):
        engine.pipeline(
            name,
            SPAN.replace("LIMIT", str(limit)),
            {"a": "/*"},
            resource_limits=resources,
            parallelism_spec=pps.ParallelismSpec(constant=6),
        )
    for name in ("p", "q"):
        assert engine.wait(name).data_processed == 6
    assert len(engine.runs("spans")) == 2 * 6 * 2
    assert most_at_once(engine) == limit


def test_parallelism_bounds_what_the_machine_would_hold(engine: Engine) -> None:
    engine.repo("a", {f"/{i}": b"" for i in range(4)})
    engine.pipeline(
        "p", SPAN.replace("LIMIT", "1"), {"a": "/*"}, parallelism_spec=pps.ParallelismSpec(constant=1)
    )
    engine.wait("p")
    assert most_at_once(engine) == 1


HELD = """
echo $PACH_DATUM_ID >> $SIDE/begun
until [ -e $SIDE/$PACH_DATUM_ID ] || [ -e $SIDE/all ]; do sleep 0.01; done
"""


@pytest.mark.parametrize("cpu", [1, 2])
def test_a_grid_does_not_keep_a_trial_of_another_workspace_waiting(engine: Engine, cpu: int) -> None:
    assert engine.handle is not None
    admission = engine.handle.jobs.admission
    engine.repo("a", {f"/{i:02}": b"" for i in range(30)})
    engine.pipeline("grid", HELD, {"a": "/*"}, parallelism_spec=pps.ParallelismSpec(constant=30))
    eventually(lambda: len(engine.runs("begun")) == 2, "the grid has both cores")
    other = pfs.Project(name="other")
    engine.client.pfs.create_project(project=other)
    engine.client.pps.create_pipeline(
        pipeline=pps.Pipeline(name="one", project=other),
        transform=pps.Transform(cmd=["touch", str(engine.side / "all")]),
        input=pps.Input(pfs=pps.PfsInput(project="default", repo="a", glob="/00")),
        resource_limits=pps.ResourceSpec(cpu=cpu),
    )
    eventually(lambda: "other" in {one.workspace for one in admission.waiting()}, "the other's trial waits")
    # As many end as it takes; had the grid what they give back, it would hold that for ever.
    for datum in engine.runs("begun")[:cpu]:
        (engine.side / datum).touch()
    engine.ran("all")
    engine.wait("grid")


def test_each_gpu_is_handed_to_one_trial_and_the_queue_tells_to_whom(tmp_path: Path) -> None:
    machine = Machine(cpus=4, memory_bytes=4 << 30, gpus=2)
    handle = start(
        tmp_path / "e", "127.0.0.1", 0, "t", ProcessRuntime(tmp_path / "e", isolate=False), machine
    )
    try:
        port = int(handle.address.rpartition(":")[2])
        client = Client(host="127.0.0.1", port=port, auth_token="t")
        engine = Engine(client, tmp_path / "side", handle)
        engine.repo("a", {f"/{i}": b"" for i in range(4)})
        script = "echo $CUDA_VISIBLE_DEVICES >> $SIDE/gpus\nuntil [ -e $SIDE/all ]; do sleep 0.01; done"
        gpu = pps.ResourceSpec(cpu=1, gpu=pps.GpuSpec(type="nvidia.com/gpu", number=1))
        places = pps.ParallelismSpec(constant=4)
        engine.pipeline("p", script, {"a": "/*"}, resource_limits=gpu, parallelism_spec=places)
        eventually(lambda: len(engine.runs("gpus")) == 2, "both GPUs are taken")
        call = client._channel.unary_unary(kaos_v1.method("Queue"), bytes, kaos_v1.QueueResponse.FromString)
        waits = "2 datums wait for 1 gpu (0 of 2 free)"
        job = eventually(lambda: waits in (j := engine.last_job("p")).reason and j, "the others wait")
        told = call(kaos_v1.QueueRequest())
        assert [(gpu.device, gpu.job) for gpu in told.gpus] == [("0", job.job.id), ("1", job.job.id)]
        assert [(one.pipeline, one.total, one.running, one.at_once) for one in told.jobs] == [("p", 4, 2, 2)]
        assert engine.runs("gpus") == ["0", "1"]
        (engine.side / "all").touch()
        assert engine.wait("p").data_processed == 4
        assert call(kaos_v1.QueueRequest()).jobs == []
    finally:
        handle.stop()
