"""What a queue tells: what each job waits for, and how long it will take."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kaos_backend.domain.models import OpenJob
from kaos_backend.domain.queue import is_held, left_s, waits_for


def job(**more: Any) -> OpenJob:
    nothing: dict[str, Any] = {"total": 10, "done": 0, "failed": 0, "ran": 0, "spent_s": 0.0}
    return OpenJob("default", "train", "f" * 32, **(nothing | more))


@pytest.mark.parametrize(
    ("reason", "names"),
    [
        ("", []),
        ("2 trials wait for 1 cpu (0 of 2 free), in use by job 1a2b3c4d of default/train", ["cpu"]),
        ("1 trial waits for 4 cpu (1 of 8 free), 4 GiB of memory (1 GiB of 8 GiB free)", ["cpu", "memory"]),
        ("1 trial waits for 1 gpu (0 of 2 free, 1 taken by other programs)", ["gpu"]),
        ("1 trial waits for 3 GiB of disk (1 GiB free)", ["disk"]),
        ("1 trial waits for its turn, after job 1a2b3c4d of a/train, which waits for 2 cpu (1 of 2 free)", [
            "turn", "cpu",
        ]),
        ("waits for job 1a2b3c4d of the same pipeline, which comes first", ["turn"]),
        ("2 trials wait for a place in its pipeline (1 at a time)", ["parallelism"]),
        ("waits for a resume: workspace one is paused", ["resume"]),
        ("waits for build to finish", ["stage"]),
        ("waits for the build", ["stage"]),
        ("1 trial waits for inputs to be laid out", ["inputs"]),
        ("1 trial waits for their outputs to be stored", ["outputs"]),
        ("image kaos/x:1 not found: no build made it yet", ["image"]),
        ("waits: no Docker engine answers at unix:///var/run/docker.sock: No such file", ["docker"]),
        ("waits a moment after an error of the engine, which engine.log describes", ["engine"]),
    ],
)  # fmt: skip
def test_what_is_waited_for_has_a_name(reason: str, names: list[str]) -> None:
    assert waits_for(reason) == names


def test_what_does_not_pass_by_itself() -> None:
    assert is_held(["turn", "resume"])
    assert not is_held(["turn", "cpu", "gpu", "stage"])


def test_how_long_a_job_will_take() -> None:
    assert left_s(job(), 10) is None
    # As in an earlier job, two at a time.
    assert left_s(job(usual_s=3.0, at_once=2), 10) == 15.0
    assert left_s(job(total=0, usual_s=3.0), 4) == 12.0
    # Its own trials say more: 4 took 2 s each, 6 are left, of which 2 have run for half their time.
    running = job(done=4, ran=4, spent_s=8.0, running=2, elapsed_s=2.0, usual_s=100.0, at_once=2)
    assert left_s(running, 10) == (4 * 2.0 + 2.0) / 2
    # The last ones take longer than any did: nobody knows how long.
    assert left_s(job(total=1, running=1, elapsed_s=5.0, usual_s=0.1, at_once=1), 1) is None
    assert left_s(job(done=9, ran=9, spent_s=9.0, running=1, elapsed_s=60.0), 10) is None
    # Those that come after them will not be faster.
    assert left_s(job(total=3, running=1, elapsed_s=5.0, usual_s=0.1, at_once=1), 3) == 10.0
    # Those that were skipped took nothing.
    assert left_s(job(done=8, ran=2, spent_s=4.0, at_once=1), 10) == 4.0
    assert left_s(job(done=10, ran=10, spent_s=5.0), 10) == 0.0
    # What has just ended was still counted a moment ago.
    assert left_s(job(total=2, done=1, ran=1, spent_s=2.0, elapsed_s=2.0, at_once=1), 2) == 2.0


@given(
    st.builds(
        job,
        total=st.integers(0, 100),
        done=st.integers(0, 100),
        ran=st.integers(0, 100),
        spent_s=st.floats(0, 1e9),
        running=st.integers(0, 100),
        elapsed_s=st.floats(0, 1e9),
        at_once=st.integers(0, 100),
        usual_s=st.none() | st.floats(0, 1e6),
    ),
    st.integers(0, 100),
)
def test_an_estimate_is_never_negative(one: OpenJob, expected: int) -> None:
    left = left_s(one, expected)
    assert left is None or left >= 0
