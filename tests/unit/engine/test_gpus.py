"""GPUs as the driver tells of them. There is none here: the driver's library is played at its edge."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from types import SimpleNamespace

import pytest

from kaos_backend.engine import gpus
from kaos_backend.engine.detect import detect_machine
from kaos_backend.engine.gpus import Gpu

GIB = 1 << 30


class NvmlError(Exception):
    def __init__(self, value: int) -> None:
        self.value = value


@dataclass
class Device:
    """A board, or an instance of one."""

    uuid: str
    pids: list[int] = field(default_factory=list)
    used: int = 0
    instances: list[Device] | None = None
    error: int | None = None


class FakeNvml:
    """The calls of `pynvml` that kaos makes, as NVML's reference describes them."""

    NVMLError = NvmlError
    NVML_ERROR_GPU_IS_LOST = 15

    def __init__(self, *boards: Device) -> None:
        self.boards = boards

    def nvmlInit(self) -> None:
        pass

    def nvmlDeviceGetCount(self) -> int:
        return len(self.boards)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> Device:
        return self.boards[index]

    def nvmlDeviceGetUUID(self, device: Device) -> str:
        return device.uuid

    def nvmlDeviceGetName(self, _: Device) -> str:
        return "NVIDIA H100"

    def nvmlDeviceGetMigMode(self, board: Device) -> list[int]:
        if board.instances is None:
            raise NvmlError(3)  # not supported
        return [1, 1]

    def nvmlDeviceGetMaxMigDeviceCount(self, _: Device) -> int:
        return 7

    def nvmlDeviceGetMigDeviceHandleByIndex(self, board: Device, number: int) -> Device:
        if board.instances is None or number >= len(board.instances):
            raise NvmlError(6)  # not found
        return board.instances[number]

    def nvmlDeviceGetMemoryInfo(self, device: Device) -> SimpleNamespace:
        return SimpleNamespace(total=80 * GIB, used=device.used)

    def nvmlDeviceGetComputeRunningProcesses(self, device: Device) -> list[SimpleNamespace]:
        if device.error is not None:
            raise NvmlError(device.error)
        return [SimpleNamespace(pid=pid) for pid in device.pids]


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    def install(*boards: Device) -> None:
        monkeypatch.setitem(sys.modules, "pynvml", FakeNvml(*boards))

    return install


def names(env: dict[str, str]) -> list[str]:
    return [gpu.device for gpu in gpus.find(env).gpus]


def test_gpus_are_found_with_what_they_are(driver: Callable[..., None]) -> None:
    driver(Device("GPU-a"), Device("GPU-b"))
    assert gpus.find({}).gpus == (Gpu("0", "NVIDIA H100", 80 * GIB), Gpu("1", "NVIDIA H100", 80 * GIB))


def test_a_divided_gpu_is_handed_out_by_its_instances(driver: Callable[..., None]) -> None:
    driver(Device("GPU-a", instances=[Device("MIG-x"), Device("MIG-y")]), Device("GPU-b"))
    assert names({}) == ["MIG-x", "MIG-y", "1"]
    assert names({"CUDA_VISIBLE_DEVICES": "MIG-y"}) == ["MIG-y"]
    assert names({"CUDA_VISIBLE_DEVICES": "0"}) == ["MIG-x", "MIG-y"]


@pytest.mark.parametrize(
    ("visible", "found"),
    [
        ("", []),
        ("-1", []),
        ("NoDevFiles", []),
        ("2,0", ["0", "2"]),
        ("1,9,0", ["1"]),  # as CUDA: what follows nonsense is hidden
        ("GPU-c", ["2"]),
        ("1,1", ["1"]),
    ],
)
def test_what_is_hidden_from_the_engine_is_not_handed_out(
    driver: Callable[..., None], visible: str, found: list[str]
) -> None:
    driver(Device("GPU-a"), Device("GPU-b"), Device("GPU-c"))
    assert names({"CUDA_VISIBLE_DEVICES": visible}) == found


def test_those_of_other_programs_are_told_with_their_names(driver: Callable[..., None]) -> None:
    hidden = Device("GPU-c", used=60 * GIB)
    desktop = Device("GPU-d", used=1 * GIB)
    lost, refused = Device("GPU-e", error=15), Device("GPU-f", error=3)
    driver(
        Device("GPU-a", pids=[os.getpid(), 2**30]), Device("GPU-b", pids=[1]), hidden, desktop, lost, refused
    )
    others = gpus.find({}).others(ours=frozenset({1}))
    assert sorted(others) == [0, 2, 4]
    assert f"(pid {os.getpid()}), pid {2**30}" in others[0]
    assert "cannot be seen" in others[2]
    assert "lost" in others[4]
    # What was left out moves no other: the engine counts from 0.
    assert gpus.find({"CUDA_VISIBLE_DEVICES": "0"}).others(frozenset()).keys() == {0}


def test_the_service_that_shares_a_gpu_does_not_take_it(
    driver: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    driver(Device("GPU-a", pids=[7]), Device("GPU-b", pids=[7, 8]))
    monkeypatch.setattr(gpus, "_program", {7: "nvidia-cuda-mps", 8: "blender"}.get)
    assert gpus.find({}).others(frozenset()) == {1: "blender (pid 8)"}


def test_a_number_given_takes_the_first_or_only_counts(driver: Callable[..., None]) -> None:
    driver(Device("GPU-a", pids=[1]), Device("GPU-b"))
    for count, devices, taken in ((1, ("0",), {0}), (3, ("0", "1", "2"), set())):
        machine, found = detect_machine({"KAOS_ENGINE_GPUS": str(count)}, gpus.Path("/tmp/none"))
        assert (machine.gpus, machine.devices) == (count, devices)
        assert set(found.others(frozenset())) == taken


def test_without_a_driver_there_are_none_and_nothing_fails() -> None:
    # The library itself is here, and says that there is no driver.
    assert all(gpu.model == "" for gpu in gpus.find({}).gpus)
