from __future__ import annotations

import pytest

from kaos_backend.engine.jobs.run.attempt import failure, stdin_of
from kaos_backend.engine.jobs.schedule.decide import Do, InputState, Step, next_step
from kaos_backend.engine.jobs.schedule.states import JobState, PipelineState
from kaos_backend.engine.workers.port import Exit

OPEN = InputState("a", False, "")
GOOD = InputState("b", True, "")
BAD = InputState("c", True, "broken")


@pytest.mark.parametrize(
    ("job", "pipeline", "inputs", "ready", "do"),
    [
        (JobState.CREATED, PipelineState.RUNNING, [], True, Do.START),
        (JobState.CREATED, PipelineState.FAILURE, [OPEN], False, Do.START),
        (JobState.STARTING, PipelineState.RUNNING, [GOOD, OPEN], True, Do.WAIT),
        (JobState.STARTING, PipelineState.RUNNING, [BAD, OPEN], True, Do.WAIT),
        (JobState.STARTING, PipelineState.RUNNING, [GOOD, BAD], True, Do.GIVE_UP),
        (JobState.STARTING, PipelineState.CRASHING, [BAD], False, Do.GIVE_UP),
        (JobState.STARTING, PipelineState.RUNNING, [GOOD], True, Do.RUN),
        (JobState.STARTING, PipelineState.STARTING, [GOOD], False, Do.CRASH),
        (JobState.STARTING, PipelineState.FAILURE, [GOOD], True, Do.WAIT),
        (JobState.RUNNING, PipelineState.RUNNING, [], True, Do.RUN),
        (JobState.RUNNING, PipelineState.RUNNING, [], False, Do.CRASH),
    ],
)
def test_the_next_step(
    job: JobState, pipeline: PipelineState, inputs: list[InputState], ready: bool, do: Do
) -> None:
    assert next_step(job, pipeline, inputs, "" if ready else "no image").do is do


@pytest.mark.parametrize("job", [JobState.STARTING, JobState.RUNNING])
def test_a_job_whose_image_never_comes_back_ends(job: JobState) -> None:
    assert next_step(job, PipelineState.RUNNING, [GOOD], "no img", image_lost=True) == Step(Do.FAIL, "no img")
    assert next_step(job, PipelineState.FAILURE, [GOOD], "no img", image_lost=True).do is Do.WAIT


def test_reasons_name_the_culprit() -> None:
    assert next_step(JobState.STARTING, PipelineState.RUNNING, [BAD], "").reason.endswith(": c")
    assert next_step(JobState.STARTING, PipelineState.RUNNING, [GOOD], "no img").reason == "no img"


@pytest.mark.parametrize(
    ("exit", "text"),
    [
        (Exit(0, None, "exited", "", 0, 1.0), ""),
        (Exit(3, None, "exited", "", 0, 1.0), ""),
        (Exit(1, None, "exited", "", 0, 1.0), "exit code 1"),
        (Exit(None, 11, "signal", "", 0, 1.0), "killed by signal SIGSEGV"),
        (Exit(None, 9, "oom", "", 300 << 20, 1.0), "out of memory: used 300 MiB of 100 MiB"),
        (Exit(None, 9, "timeout", "", 0, 1.0), "timed out after 2.5 s"),
        (Exit(None, None, "error", "the launcher died", 0, 1.0), "worker lost: the launcher died"),
    ],
)
def test_failures_have_names(exit: Exit, text: str) -> None:
    assert failure(exit, [3], 100 << 20, 2.5) == text


def test_stdin_is_a_script() -> None:
    assert stdin_of(["a", "b"]) == b"a\nb\n"
    assert stdin_of([]) == b""
