"""Why trials and jobs end, by name: a text for people, which begins with a phrase of this table, and a code
for programs, which is read back from the text. So it travels wherever pachd's protocol carries a reason.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from enum import StrEnum

from kaos_formats.lastwords import clean, last_words


class Code(StrEnum):
    """Scripts lean on these: none changes its meaning."""

    EXIT_CODE = "exit_code"
    SIGNAL = "signal"
    OUT_OF_MEMORY = "out_of_memory"
    MACHINE_OUT_OF_MEMORY = "machine_out_of_memory"
    GPU_OUT_OF_MEMORY = "gpu_out_of_memory"
    TIMEOUT = "timeout"
    DISK_FULL = "disk_full"
    INPUT_MISSING = "input_missing"
    OUTPUT_REFUSED = "output_refused"
    OUTPUT_TOO_LARGE = "output_too_large"
    OUTPUT_CONFLICT = "output_conflict"
    WORKER_LOST = "worker_lost"
    ENGINE_ERROR = "engine_error"
    KILLED = "killed"
    BUILD_FAILED = "build_failed"
    FETCH_FAILED = "fetch_failed"
    IMAGE_MISSING = "image_missing"
    UNRUNNABLE = "unrunnable"
    FAILED = "failed"


# How the text of an ending begins; the first that fits tells its code.
PHRASES: tuple[tuple[str, Code], ...] = (
    ("exit code ", Code.EXIT_CODE),
    ("killed by signal ", Code.SIGNAL),
    ("out of memory", Code.OUT_OF_MEMORY),
    ("the machine ran out of memory", Code.MACHINE_OUT_OF_MEMORY),
    ("out of GPU memory", Code.GPU_OUT_OF_MEMORY),
    ("timed out", Code.TIMEOUT),
    ("disk full", Code.DISK_FULL),
    ("its inputs could not be ", Code.INPUT_MISSING),
    ("output refused", Code.OUTPUT_REFUSED),
    ("output too large", Code.OUTPUT_TOO_LARGE),
    ("worker lost", Code.WORKER_LOST),
    ("engine error", Code.ENGINE_ERROR),
    ("stopped by ", Code.KILLED),
    ("image missing: ", Code.IMAGE_MISSING),
)
_CONFLICT = "duplicate path output by different datums"
# How many kinds of endings a line tells.
_KINDS = 3
# A datum's end within a job's reason, as pachd begins it.
_OF_A_DATUM = re.compile(r"datum [0-9a-f]+ failed(?:: )?")
_TIMED_OUT = re.compile(r"timed out after [0-9.]+ s")
_TIMEOUT_CODE = 124

# What PyTorch (CUDA and HIP), JAX and XLA, TensorFlow and CUDA itself say when a device has no memory left.
_GPU_MEMORY = re.compile(
    r"CUDA out of memory|HIP out of memory|CUDA error: out of memory|CUDA_ERROR_OUT_OF_MEMORY"
    r"|cudaErrorMemoryAllocation|hipErrorOutOfMemory|torch\.(?:cuda\.)?OutOfMemoryError"
    r"|RESOURCE_EXHAUSTED: Out of memory|OOM when allocating tensor.* on /job:\S*device:GPU"
    r"|CUBLAS_STATUS_ALLOC_FAILED|cuMemAlloc\w* failed",
)
_MEMORY = re.compile(r"(?:\w+\.)*_?(?:Array)?MemoryError\b|Cannot allocate memory|std::bad_alloc")
# What a shell says of a command that a signal ended, which the ending's own name says as well.
_OF_A_SHELL = re.compile(
    r"(?:Killed|Aborted|Segmentation fault|Bus error|Illegal instruction)(?: \(core dumped\))?"
)
_DISK = re.compile(r"No space left on device|Disk quota exceeded")


def code_of(reason: str) -> str:
    """The code of an ending's text; ``failed`` for what other servers say, "" where nothing is said."""
    reason = detail(reason)
    if not reason:
        return ""
    if _CONFLICT in reason:
        return Code.OUTPUT_CONFLICT
    return next((code for phrase, code in PHRASES if reason.startswith(phrase)), Code.FAILED)


def detail(reason: str) -> str:
    """A job's reason without the datum that it names."""
    return _OF_A_DATUM.sub("", reason, count=1)


def of_program(ending: str, said: Sequence[str], code: int | None = None) -> str:
    """``ending`` ("exit code 1") with what the program said last, or by its own name where that tells it."""
    words = last_words(said)
    if code == _TIMEOUT_CODE and _TIMED_OUT.fullmatch(words):
        return words
    device = next((line for line in reversed(said) if _GPU_MEMORY.search(line)), None)
    if device is not None:
        return f"out of GPU memory: {words if _GPU_MEMORY.search(words) else clean(device)}"
    if _MEMORY.match(words):
        return f"out of memory: {words}"
    if _DISK.search(words):
        return f"disk full: {words}"
    return f"{ending}: {words}" if words and not _OF_A_SHELL.fullmatch(words) else ending


def alike(reason: str) -> str:
    """What reasons that differ only in their numbers have in common."""
    return re.sub(r"[0-9]+(?:\.[0-9]+)?", "#", reason)


def summary(reasons: Sequence[str]) -> str:
    """Several endings in a line: the reason they share, or their kinds, the most common first."""
    if not reasons:
        return ""
    if len({alike(reason) for reason in reasons}) == 1:
        return reasons[0]
    kinds = Counter(reason.partition(":")[0] for reason in reasons)
    if len(kinds) == 1:
        return next(iter(kinds))
    told = [f"{kind} ({count})" for kind, count in kinds.most_common(_KINDS)]
    others = len(reasons) - sum(count for _, count in kinds.most_common(_KINDS))
    return ", ".join([*told, *([f"others ({others})"] if others else [])])
