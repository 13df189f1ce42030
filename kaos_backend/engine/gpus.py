"""The GPUs of this machine, and which of them programs of others are on, as NVIDIA's driver tells it (NVML).

Reference: https://docs.nvidia.com/deploy/nvml-api/. Devices are numbered as on the PCI bus, which is how CUDA
numbers them where CUDA_DEVICE_ORDER says so (trials are told that), and how Docker does.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

log = logging.getLogger(__name__)

# CUDA's Multi-Process Service, which computes nothing of its own.
_MPS = "nvidia-cuda-mps"


@dataclass(frozen=True, slots=True)
class Gpu:
    """One that is handed out as a whole: a GPU, or a MIG instance of one.

    `device` is what CUDA_VISIBLE_DEVICES and Docker call it. `memory_bytes` is None where nobody knows.
    """

    device: str
    model: str = ""
    memory_bytes: int | None = None


@dataclass(frozen=True, slots=True)
class Inventory:
    """GPUs by index; `who` tells which programs compute on one, "" for none, or where nobody knows."""

    gpus: tuple[Gpu, ...] = ()
    who: Callable[[int], str] = lambda _: ""

    def others(self, ours: frozenset[int]) -> dict[int, str]:
        """Who is on the GPUs that are not in `ours`: index → words."""
        found = ((index, self.who(index)) for index in range(len(self.gpus)) if index not in ours)
        return {index: who for index, who in found if who}

    def first(self, count: int) -> Inventory:
        """The first so many; more than there are known to be are only counted."""
        return counted(count) if count > len(self.gpus) else Inventory(self.gpus[:count], self.who)


def counted(count: int) -> Inventory:
    """So many GPUs, of which nothing else is known."""
    return Inventory(tuple(Gpu(str(index)) for index in range(count)))


def find(env: Mapping[str, str]) -> Inventory:
    """The GPUs that this process may use: what CUDA_VISIBLE_DEVICES hides is not handed out."""
    try:
        nvml = importlib.import_module("pynvml")
        nvml.nvmlInit()
    except Exception as error:  # without a driver there are many ways to fail, none of which is trouble
        nodes = sorted(Path("/dev").glob("nvidia[0-9]*"))
        log.info("no NVML: %s; %d GPUs by their device nodes", error, len(nodes))
        everything = counted(len(nodes))
        chosen = _visible(env, [(gpu.device, i, str(i)) for i, gpu in enumerate(everything.gpus)])
        return Inventory(tuple(everything.gpus[i] for i in chosen))
    devices = list(_devices(nvml))
    chosen = _visible(env, [(uuid, parent, parent_uuid) for _, _, uuid, parent, parent_uuid in devices])
    kept = [devices[i] for i in chosen]
    handles = [one[1] for one in kept]
    return Inventory(tuple(one[0] for one in kept), lambda index: _who(nvml, handles[index]))


def _who(nvml: Any, handle: Any) -> str:
    """Who computes on a device; "" for nobody. A desktop that only draws on it does not count."""
    try:
        pids = sorted({one.pid for one in nvml.nvmlDeviceGetComputeRunningProcesses(handle)})
        if named := [_named(pid) for pid in pids if _program(pid) != _MPS]:
            return ", ".join(named)
        # A container is not told of processes outside it, but of their memory.
        memory = nvml.nvmlDeviceGetMemoryInfo(handle)
    except nvml.NVMLError as error:
        lost = error.value == nvml.NVML_ERROR_GPU_IS_LOST
        return "nobody: the driver has lost it" if lost else ""
    return "programs that cannot be seen from here" if 2 * memory.used > memory.total else ""


def _devices(nvml: Any) -> Iterator[tuple[Gpu, Any, str, int, str]]:
    """(GPU, handle, its UUID, index of the board, UUID of the board) of each; MIG instances in place of a
    board that is divided."""
    for index in range(nvml.nvmlDeviceGetCount()):
        try:
            board = nvml.nvmlDeviceGetHandleByIndex(index)
            board_uuid = nvml.nvmlDeviceGetUUID(board)
            for handle in list(_instances(nvml, board)) if _divided(nvml, board) else [board]:
                uuid = nvml.nvmlDeviceGetUUID(handle)
                device = str(index) if handle is board else uuid
                model = str(nvml.nvmlDeviceGetName(handle))
                memory = int(nvml.nvmlDeviceGetMemoryInfo(handle).total)
                yield Gpu(device, model, memory), handle, uuid, index, board_uuid
        except nvml.NVMLError as error:
            log.warning("GPU %d is left out: %s", index, error)


def _divided(nvml: Any, board: Any) -> bool:
    with contextlib.suppress(nvml.NVMLError):
        return bool(nvml.nvmlDeviceGetMigMode(board)[0])
    return False


def _instances(nvml: Any, board: Any) -> Iterator[Any]:
    for number in range(nvml.nvmlDeviceGetMaxMigDeviceCount(board)):
        with contextlib.suppress(nvml.NVMLError):
            yield nvml.nvmlDeviceGetMigDeviceHandleByIndex(board, number)


def _visible(env: Mapping[str, str], devices: Sequence[tuple[str, int, str]]) -> list[int]:
    """Which of `devices` (UUID, index and UUID of the board) CUDA_VISIBLE_DEVICES leaves; as CUDA reads it,
    what follows an entry that names nothing is hidden as well."""
    text = env.get("CUDA_VISIBLE_DEVICES")
    if text is None:
        return list(range(len(devices)))
    chosen: list[int] = []
    for entry in (part.strip() for part in text.split(",")):
        named = [
            i
            for i, (uuid, board, board_uuid) in enumerate(devices)
            if (entry.isdigit() and int(entry) == board)
            or (
                entry.startswith(("GPU-", "MIG-"))
                and (uuid.startswith(entry) or board_uuid.startswith(entry))
            )
        ]
        if not named:
            break
        chosen += [i for i in named if i not in chosen]
    return sorted(chosen)


def _named(pid: int) -> str:
    program = _program(pid)
    return f"{program} (pid {pid})" if program else f"pid {pid}"


def _program(pid: int) -> str:
    """The name of a process, as the kernel cuts it; "" where it cannot be seen from here."""
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return ""
