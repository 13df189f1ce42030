"""What the controller does next with the oldest unfinished job of a pipeline. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum, auto

from kaos_backend.engine.jobs.schedule.states import JobState, PipelineState


class Do(Enum):
    """START: CREATED → STARTING. RUN: hand it to a thread. GIVE_UP: UNRUNNABLE. CRASH: mark the pipeline.
    FAIL: mark it, and FAILURE.
    """

    WAIT = auto()
    START = auto()
    RUN = auto()
    GIVE_UP = auto()
    CRASH = auto()
    FAIL = auto()


@dataclass(frozen=True, slots=True)
class InputState:
    """One commit the job's output depends on."""

    name: str
    finished: bool
    error: str


@dataclass(frozen=True, slots=True)
class Step:
    """`reason`: what the job waits for, or why it is given up."""

    do: Do
    reason: str = ""


def next_step(
    job: JobState,
    pipeline: PipelineState,
    inputs: Sequence[InputState],
    image_problem: str,
    image_lost: bool = False,
) -> Step:
    """The next step for a job that is the oldest unfinished one of its pipeline and has no thread.

    `image_problem` is why no worker could start from its image, empty when one could; `image_lost`: and none
    ever will.
    """
    if job is JobState.CREATED:
        return Step(Do.START)
    if job is JobState.STARTING:
        unfinished = [i.name for i in inputs if not i.finished]
        if unfinished:
            return Step(Do.WAIT, f"waits for {', '.join(unfinished)} to finish")
        bad = [i.name for i in inputs if i.error]
        if bad:
            return Step(
                Do.GIVE_UP, f"unrunnable because the following upstream pipelines failed: {', '.join(bad)}"
            )
    if pipeline is PipelineState.FAILURE:
        return Step(Do.WAIT, "waits for an update of its pipeline, which cannot run as it is")
    if image_problem:
        return Step(Do.FAIL if image_lost else Do.CRASH, image_problem)
    return Step(Do.RUN)
