"""What open jobs wait for and how long they will take. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection

from kaos_backend.domain.models import OpenJob

# What the embedded engine says, and the names of what is waited for; scripts lean on these.
_WAITS = (
    ("turn", r"waits for job [0-9a-f]+ |\bits turn\b"),
    ("cpu", r"[0-9] cpu \("),
    ("memory", r" of memory \("),
    ("gpu", r"[0-9] gpu \("),
    ("disk", r" of disk \(|no space left|disk is full"),
    ("parallelism", r"a place in its pipeline"),
    ("resume", r"a resume: "),
    ("stage", r"waits for the \w+$|waits for [\w, -]+ to finish"),
    ("inputs", r"inputs to be (laid out|listed)"),
    ("outputs", r"outputs to be stored|to store what it has finished"),
    ("image", r"\bimage kaos/|\bimage \S+ (is not|cannot|not found)"),
    ("docker", r"Docker engine"),
    ("engine", r"an error of the engine"),
)


# What ends when somebody does something about it, which nobody can tell beforehand.
_HELD = frozenset({"resume", "image", "docker", "engine"})


def waits_for(reason: str) -> list[str]:
    """What a job's reason says that it waits for, by stable names; [] for nothing that has one."""
    return [name for name, pattern in _WAITS if re.search(pattern, reason)]


def is_held(waits: Collection[str]) -> bool:
    """Whether something of what is waited for (``waits_for``) will not pass by itself."""
    return not _HELD.isdisjoint(waits)


def left_s(job: OpenJob, expected: int) -> float | None:
    """Seconds until a job ends if it goes on as it does; None where nothing tells.

    ``expected``: how many datums it will have, as long as it has not been planned. Each is reckoned to take
    as long as those of this job did on average, or those of an earlier one; and if those that run take
    longer than that, as long as they have taken so far.
    """
    each_s = job.spent_s / job.ran if job.ran else job.usual_s
    to_do = max(0, (job.total or expected) - job.done)
    if each_s is None:
        return 0.0 if not to_do else None
    waiting = max(0, to_do - job.running)
    # Of its running datums nobody knows which have gone on for longer than that.
    rest_s = job.running * each_s - job.elapsed_s if job.running else 0.0
    if job.running and rest_s <= 0:
        if not waiting:
            return None
        each_s, rest_s = job.elapsed_s / job.running, 0.0
    beside = job.running if job.running else min(job.at_once, to_do)
    return (waiting * each_s + rest_s) / max(1, beside)
