from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from kaos_backend.domain import deploys
from kaos_backend.domain.deploys import Current, Plan, Wanted, plan, settings_of
from kaos_backend.domain.models import Job, JobState, Pipeline
from kaos_backend.domain.resources import Resources


def job(state: str, pipeline: str = "train", job_id: str = "j1", **counts: int) -> Job:
    numbers = {"total": 1, "processed": 1, "skipped": 0, "failed": 0, "recovered": 0} | counts
    return Job(
        "p", pipeline, job_id, JobState(state), "", created=None, started=None, finished=None, **numbers
    )


def pipeline(name: str, spec: dict[str, Any]) -> Pipeline:
    return Pipeline(name, 1, False, "running", "", spec)


BUILD, TRAIN = {"build": "s1"}, {"train": "s1"}
EMPTY = Current(None, None, None, None, None, None, None)
DONE = Current(
    "s1", "d1", "h1", pipeline("build", BUILD), pipeline("train", TRAIN),
    job("success", "build"), job("success"),
)  # fmt: skip
SAME = Wanted("s1", "d1", "h1", BUILD, TRAIN, settings_given=False, retry=False)


def does(made: Plan) -> tuple[list[str], bool, bool, str]:
    return made.parts, made.put_build, made.put_train, made.status


def test_the_first_deploy_makes_everything() -> None:
    assert does(plan(EMPTY, SAME)) == (["source", "data", "hyper"], True, True, "started")


def test_the_same_again_does_nothing_and_names_the_job() -> None:
    made = plan(DONE, SAME)
    assert not made.acts
    assert (made.status, made.job) == ("unchanged", "j1")
    nothing_named = replace(SAME, source=None, data=None, hyper=None)
    assert plan(DONE, nothing_named).status == "unchanged"


def test_source_alone_waits_for_data() -> None:
    made = plan(EMPTY, Wanted("s1", None, None, BUILD, None, settings_given=False, retry=False))
    assert does(made) == (["source"], True, False, "waiting")
    assert "data" in made.message
    assert "-d" in made.hint


def test_data_alone_waits_for_source() -> None:
    made = plan(EMPTY, Wanted(None, "d1", None, None, None, settings_given=False, retry=False))
    assert does(made) == (["data"], False, False, "waiting")
    assert "source" in made.message


def test_only_data_changes_no_pipeline() -> None:
    assert does(plan(DONE, replace(SAME, data="d2"))) == (["data"], False, False, "started")


def test_only_the_grid_changes_no_pipeline() -> None:
    assert does(plan(DONE, replace(SAME, hyper="h2"))) == (["hyper"], False, False, "started")


def test_new_source_puts_both_pipelines() -> None:
    want = replace(SAME, source="s2", build_spec={"build": "s2"}, train_spec={"train": "s2"})
    assert does(plan(DONE, want)) == (["source"], True, True, "started")


def test_other_settings_put_the_train_pipeline() -> None:
    want = replace(SAME, train_spec={"train": "s1", "p": 2}, settings_given=True)
    assert does(plan(DONE, want)) == ([], False, True, "started")
    assert plan(DONE, replace(SAME, settings_given=True)).status == "unchanged"


def test_a_newer_kaos_with_another_spec_alone_starts_nothing() -> None:
    assert (
        plan(DONE, replace(SAME, train_spec={"train": "newer"}, build_spec={"build": "newer"})).status
        == "unchanged"
    )


def test_while_it_runs_nothing_new_starts() -> None:
    made = plan(replace(DONE, train_job=job("running")), replace(SAME, retry=True))
    assert (made.status, made.job, made.acts) == ("unchanged", "j1", False)


def test_what_was_killed_or_failed_starts_again() -> None:
    for state in ("killed", "failure", "unrunnable"):
        assert does(plan(replace(DONE, train_job=job(state)), SAME)) == ([], False, True, "started")


def test_a_failed_build_is_built_again() -> None:
    broken = replace(DONE, build_job=job("failure", "build"), train_job=job("unrunnable"))
    assert does(plan(broken, SAME)) == ([], True, True, "started")
    assert does(plan(broken, replace(SAME, data="d2"))) == (["data"], True, False, "started")


def test_failed_trials_run_again_only_with_retry() -> None:
    partial = replace(DONE, train_job=job("success", total=3, recovered=1))
    assert plan(partial, SAME).status == "unchanged"
    assert "--retry" in plan(partial, SAME).hint
    assert does(plan(partial, replace(SAME, retry=True))) == ([], False, True, "started")


STATES = st.sampled_from([s.value for s in JobState])
IDS = st.sampled_from([None, "1", "2"])


@given(IDS, IDS, IDS, IDS, IDS, IDS, STATES, STATES, st.booleans(), st.booleans())
def test_a_plan_is_consistent(
    s: str | None, d: str | None, h: str | None, ws: str | None, wd: str | None, wh: str | None,
    build_state: str, train_state: str, settings: bool, retry: bool,
) -> None:  # fmt: skip
    source, data = ws or s, wd or d
    now = Current(
        s, d, h,
        pipeline("build", {"s": s}) if s else None,
        pipeline("train", {"s": s}) if s and d else None,
        job(build_state, "build") if s else None,
        job(train_state) if s and d else None,
    )  # fmt: skip
    spec = {"s": source} if source else None
    made = plan(now, Wanted(ws, wd, wh, spec, spec if data else None, settings, retry))
    trains = source is not None and data is not None
    assert (made.status == "waiting") == (not trains)
    assert made.acts or made.status != "started"
    assert not (made.put_train and not trains)
    assert not (made.put_build and source is None)
    if made.status == "unchanged":
        assert made.job is not None
        assert not made.acts


def test_settings_are_read_back_from_the_spec() -> None:
    spec = {
        "parallelismSpec": {"constant": 3},
        "resourceLimits": {"cpu": 0.5, "memory": "1000", "gpu": {"type": "nvidia.com/gpu", "number": 2}},
        "metadata": {"annotations": {deploys.ANNOTATION: deploys.AUTO}},
    }
    found = settings_of(pipeline("train", spec))
    assert found == deploys.Settings(3, False, Resources(0.5, 1000, 2))
    assert settings_of(None).parallelism is None
