from __future__ import annotations

from dataclasses import replace
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from kaos_backend.domain import deploys
from kaos_backend.domain.deploys import Current, Plan, Wanted, settings_of
from kaos_backend.domain.models import Job, JobState, Pipeline
from kaos_backend.domain.resources import Resources
from kaos_backend.domain.stages import Stage

BUILD = Stage("build", "building", ("source",), ("source",), lambda _: {}, image=True)
TRAIN = Stage("train", "training", ("build", "data", "hyper"), ("source",), lambda _: {}, trials=True)
STAGES = (BUILD, TRAIN)


def plan(now: Current, want: Wanted) -> Plan:
    return deploys.plan(STAGES, now, want)


def job(state: str, pipeline: str = "train", job_id: str = "j1", **counts: int) -> Job:
    numbers = {"total": 1, "processed": 1, "skipped": 0, "failed": 0, "recovered": 0} | counts
    return Job(
        "p", pipeline, job_id, JobState(state), "", created=None, started=None, finished=None, **numbers
    )


def pipeline(name: str, spec: dict[str, Any]) -> Pipeline:
    return Pipeline(name, 1, False, "running", "", spec)


def inputs(source: str | None, data: str | None, hyper: str | None) -> dict[str, str | None]:
    return {"source": source, "data": data, "hyper": hyper}


SPECS = {"build": {"build": "s1"}, "train": {"train": "s1"}}
EMPTY = Current(inputs(None, None, None), {}, {})
DONE = Current(
    inputs("s1", "d1", "h1"),
    {name: pipeline(name, spec) for name, spec in SPECS.items()},
    {name: job("success", name) for name in SPECS},
)
SAME = Wanted(inputs("s1", "d1", "h1"), SPECS, settings_given=False, retry=False)


def wanting(**repos: str) -> Wanted:
    return replace(SAME, inputs={**SAME.inputs, **repos})


def after(**jobs: Job) -> Current:
    return replace(DONE, jobs={**DONE.jobs, **jobs})


def does(made: Plan) -> tuple[list[str], list[str], str]:
    return list(made.changed), list(made.put), made.status


def test_the_first_deploy_makes_everything() -> None:
    made = plan(EMPTY, SAME)
    assert does(made) == (["source", "data", "hyper"], ["build", "train"], "started")
    assert made.runs(STAGES) == ["build", "train"]


def test_the_same_again_does_nothing_and_names_the_job() -> None:
    made = plan(DONE, SAME)
    assert not made.acts
    assert (made.status, made.job) == ("unchanged", "j1")
    assert plan(DONE, replace(SAME, inputs=inputs(None, None, None))).status == "unchanged"


def test_source_alone_waits_for_data() -> None:
    made = plan(EMPTY, Wanted(inputs("s1", None, None), {"build": SPECS["build"]}, False, False))
    assert does(made) == (["source"], ["build"], "waiting")
    assert made.runs(STAGES[:1]) == ["build"]
    assert "training waits for data" in made.message
    assert "-d" in made.hint


def test_data_alone_waits_for_source() -> None:
    made = plan(EMPTY, Wanted(inputs(None, "d1", None), {}, False, False))
    assert does(made) == (["data"], [], "waiting")
    assert "source" in made.message


def test_only_data_changes_no_pipeline() -> None:
    made = plan(DONE, wanting(data="d2"))
    assert does(made) == (["data"], [], "started")
    assert made.runs(STAGES) == ["train"]


def test_only_the_grid_changes_no_pipeline() -> None:
    assert does(plan(DONE, wanting(hyper="h2"))) == (["hyper"], [], "started")


def test_new_source_puts_every_pipeline_that_names_it() -> None:
    want = replace(wanting(source="s2"), specs={"build": {"build": "s2"}, "train": {"train": "s2"}})
    assert does(plan(DONE, want)) == (["source"], ["build", "train"], "started")


def test_other_settings_put_the_pipeline_of_trials_alone() -> None:
    specs = {"build": {"build": "other"}, "train": {"train": "s1", "p": 2}}
    assert does(plan(DONE, replace(SAME, specs=specs, settings_given=True))) == ([], ["train"], "started")
    assert plan(DONE, replace(SAME, settings_given=True)).status == "unchanged"


def test_other_build_arguments_put_every_pipeline_and_build_again() -> None:
    specs = {"build": {"build": "s1 A=1"}, "train": {"train": "s1 A=1"}}
    made = plan(DONE, replace(SAME, specs=specs, other_arguments=True))
    assert does(made) == ([], ["build", "train"], "started")
    assert made.again == ["build"]
    made = plan(EMPTY, replace(SAME, specs=specs, other_arguments=True))
    assert made.again == []


def test_build_arguments_are_read_back_from_the_spec() -> None:
    spec = {"transform": {"env": {"KAOS_BUILD_ARGS": '{"A":"1","B":""}'}}}
    assert deploys.arguments_of(spec) == {"A": "1", "B": ""}
    for other in (None, {}, {"transform": {"env": {"KAOS_BUILD_ARGS": "["}}}):
        assert deploys.arguments_of(other) == {}


def test_a_newer_kaos_with_another_spec_alone_starts_nothing() -> None:
    newer = replace(SAME, specs={"build": {"build": "newer"}, "train": {"train": "newer"}})
    assert plan(DONE, newer).status == "unchanged"


def test_while_it_runs_nothing_new_starts() -> None:
    made = plan(after(train=job("running")), replace(SAME, retry=True))
    assert (made.status, made.job, made.acts) == ("unchanged", "j1", False)


def test_what_was_killed_or_failed_starts_again() -> None:
    for state in ("killed", "failure", "unrunnable"):
        assert does(plan(after(train=job(state)), SAME)) == ([], ["train"], "started")


def test_a_failed_build_is_built_again() -> None:
    broken = after(build=job("failure", "build"), train=job("unrunnable"))
    assert does(plan(broken, SAME)) == ([], ["build", "train"], "started")
    made = plan(broken, wanting(data="d2"))
    assert does(made) == (["data"], ["build"], "started")
    assert made.runs(STAGES) == ["build", "train"]


def test_failed_trials_run_again_only_with_retry() -> None:
    partial = after(train=job("success", total=3, recovered=1))
    assert plan(partial, SAME).status == "unchanged"
    assert "--retry" in plan(partial, SAME).hint
    assert does(plan(partial, replace(SAME, retry=True))) == ([], ["train"], "started")


def test_a_workspace_may_have_other_stages() -> None:
    """A stage that fetches what data names, and one that trains on that: planned by the same rules."""
    fetch = Stage("fetch", "fetching", ("data",), ("data",), lambda _: {})
    train = Stage("train", "training", ("build", "fetch", "hyper"), ("source",), lambda _: {}, trials=True)
    stages = (BUILD, fetch, train)
    specs = {**SPECS, "fetch": {"fetch": "d1"}}
    now = Current(
        inputs("s1", "d1", "h1"),
        {name: pipeline(name, spec) for name, spec in specs.items()},
        {name: job("success", name) for name in specs},
    )
    same = replace(SAME, specs=specs)
    assert deploys.plan(stages, now, same).status == "unchanged"
    made = deploys.plan(
        stages, now, replace(same, inputs=inputs(None, "d2", None), specs={**specs, "fetch": {"fetch": "d2"}})
    )
    assert does(made) == (["data"], ["fetch"], "started")
    assert made.runs(stages) == ["fetch", "train"]
    broken = replace(now, jobs={**now.jobs, "fetch": job("failure", "fetch"), "train": job("unrunnable")})
    assert does(deploys.plan(stages, broken, same)) == ([], ["fetch", "train"], "started")


STATES = st.sampled_from([s.value for s in JobState])
IDS = st.sampled_from([None, "1", "2"])


@given(IDS, IDS, IDS, IDS, IDS, IDS, STATES, STATES, st.booleans(), st.booleans())
def test_a_plan_is_consistent(
    s: str | None, d: str | None, h: str | None, ws: str | None, wd: str | None, wh: str | None,
    build_state: str, train_state: str, settings: bool, retry: bool,
) -> None:  # fmt: skip
    source, data = ws or s, wd or d
    there = [name for name, on in (("build", s), ("train", s and d)) if on]
    states = {"build": build_state, "train": train_state}
    now = Current(
        inputs(s, d, h),
        {name: pipeline(name, {"s": s}) for name in there},
        {name: job(states[name], name) for name in there},
    )
    able = ["build"] * bool(source) + ["train"] * bool(source and data)
    made = plan(now, Wanted(inputs(ws, wd, wh), {name: {"s": source} for name in able}, settings, retry))
    assert (made.status == "waiting") == (able != ["build", "train"])
    assert made.acts or made.status != "started"
    assert set(made.put) <= set(able)
    if made.status == "unchanged":
        assert made.job is not None
        assert not made.acts


def test_settings_are_read_back_from_the_spec() -> None:
    spec = {
        "parallelismSpec": {"constant": 3},
        "resourceLimits": {"cpu": 0.5, "memory": "1000", "gpu": {"type": "nvidia.com/gpu", "number": 2}},
        "metadata": {"annotations": {deploys.ANNOTATION: deploys.AUTO}},
        "datumTries": 4,
        "transform": {"env": {"KAOS_TIMEOUT": "1.5"}},
    }
    found = settings_of(spec)
    assert found == deploys.Settings(3, False, Resources(0.5, 1000, 2, 4, 1.5))
    assert settings_of(None).parallelism is None


def without_image(now: Current) -> Current:
    spec = {**SPECS["train"], "transform": {"image": "kaos/d:s1"}}
    lost = replace(pipeline("train", spec), state="crashing", reason="image kaos/d:s1 not found: …")
    return replace(now, pipelines={**now.pipelines, "train": lost})


def test_a_lost_image_is_built_again_whatever_else_is_deployed() -> None:
    waiting = without_image(after(train=job("starting")))
    made = plan(waiting, SAME)
    assert does(made) == ([], ["build"], "started")
    assert made.again == ["build"]
    assert made.runs(STAGES) == ["build", "train"]
    made = plan(waiting, wanting(hyper="h2"))
    assert (made.changed, made.again) == (["hyper"], ["build"])


def test_an_image_that_is_being_built_is_not_lost() -> None:
    now = without_image(after(build=job("running", "build"), train=job("starting")))
    assert not plan(now, SAME).acts


def test_a_pipeline_that_crashes_for_another_reason_rebuilds_nothing() -> None:
    full = replace(pipeline("train", {"transform": {"image": "kaos/d:s1"}}), state="crashing", reason="disk")
    now = after(train=job("running"))
    assert not plan(replace(now, pipelines={**now.pipelines, "train": full}), SAME).acts


def reads(*repos: str) -> dict[str, Any]:
    return {"input": {"cross": [{"pfs": {"repo": repo}} for repo in repos]}}


def test_a_pipeline_that_reads_other_repos_is_put_before_what_it_reads_is_made() -> None:
    fetch = Stage("fetch", "fetching", ("manifest",), ("manifest",), lambda _: {})
    train = replace(TRAIN, inputs=("fetch", "build", "hyper"))
    stages = (fetch, BUILD, train)
    specs = {"fetch": reads("manifest"), "build": reads("source"), "train": reads("fetch", "build", "hyper")}
    there = {name: pipeline(name, spec) for name, spec in specs.items()}
    held = {"source": "s1", "data": None, "manifest": None, "hyper": "h1"}
    want = Wanted({"source": None, "manifest": "m1", "hyper": None}, specs, False, False)

    def first(now: Current, want: Wanted) -> list[str]:
        return deploys.ahead(stages, now, want, deploys.plan(stages, now, want))

    on_data = {**there, "train": pipeline("train", reads("build", "data", "hyper"))}
    assert first(Current(held, on_data, {}), want) == ["train"]
    assert first(Current(held, there, {}), want) == []
    # What is new is made on the spot as well, before what reads it.
    del on_data["fetch"]
    assert first(Current(held, on_data, {}), want) == []
    code_too = replace(want, inputs={**want.inputs, "source": "s2"})
    assert first(Current(held, on_data, {}), code_too) == ["fetch", "train"]
    assert deploys.repos_read(specs["train"]) == {"fetch", "build", "hyper"}
    assert deploys.repos_read({"input": {"pfs": {"repo": "source"}}}) == {"source"}
