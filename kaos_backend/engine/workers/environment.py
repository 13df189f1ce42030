"""The environment variables of a datum, whatever runs it."""

from __future__ import annotations

import math
from collections.abc import Mapping

from kaos_backend.engine.workers.port import DatumRun

THREADS = (
    "OMP_NUM_THREADS",
    "MKL_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "NUMEXPR_MAX_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "TORCH_NUM_THREADS",
    "RAYON_NUM_THREADS",
)
GPU_LISTS = ("CUDA_VISIBLE_DEVICES", "HIP_VISIBLE_DEVICES", "ROCR_VISIBLE_DEVICES")


def datum_env(container_env: Mapping[str, str], run: DatumRun, pfs: str) -> dict[str, str]:
    """All variables of one run; `pfs` is where its /pfs is."""
    threads = str(max(1, math.ceil(run.grant.cpu)))
    env = dict.fromkeys(THREADS, threads) | dict(container_env) | dict(run.env)
    env |= {name: f"{pfs}/{name}{path}" for name, path in run.input_paths.items()}
    env |= dict.fromkeys(GPU_LISTS, ",".join(run.grant.gpus))
    return env | {"PACH_PFS": pfs, "CUDA_DEVICE_ORDER": "PCI_BUS_ID"}
