"""Specs of pipelines: what is taken, refused, filled in and told."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any

import pytest
from pachyderm_sdk.api import pfs, pps

from tests.parity.pachd import INVALID, UNKNOWN, Pachd, refused


@pytest.fixture(autouse=True)
def data(pachd: Pachd) -> None:
    pachd.repo("data", {"/1": b"one", "/2": b"two"})


def spec(pachd: Pachd, **more: object) -> str:
    return json.dumps(
        {
            "pipeline": {"project": {"name": pachd.project.name}, "name": "p"},
            "transform": {"image": pachd.image, "cmd": ["sh", "-c", "true"]},
            "input": {"pfs": {"project": pachd.project.name, "repo": "data", "glob": "/*"}},
            **more,
        }
    )


@pytest.mark.workers("waits for a job")
def test_what_a_pipeline_says_of_itself(pachd: Pachd) -> None:
    """§14: InspectPipeline, details only on request; defaults are filled in (§10.2, §11.1)."""
    pipeline = pachd.pipeline("p", "true", {"data": "/*"}, description="mine")
    job = pachd.succeeded(pipeline)
    brief = pachd.client.pps.inspect_pipeline(pipeline=pipeline)
    assert (brief.version, brief.stopped, brief.last_job_state) == (1, False, job.state)
    assert brief.type == pps.PipelineInfoPipelineType.PIPELINE_TYPE_TRANSFORM
    assert not brief.is_set("details")
    details = pachd.client.pps.inspect_pipeline(pipeline=pipeline, details=True).details
    assert (details.description, details.output_branch, details.datum_tries) == ("mine", "master", 1)
    assert (details.input.pfs.name, details.input.pfs.branch) == ("data", "master")
    assert details.transform.image == pachd.image


def test_the_spec_is_kept_as_given_and_as_in_force(pachd: Pachd) -> None:
    """§10.2: user_spec_json and effective_spec_json, the latter with the built-in defaults."""
    pachd.client.pps.create_pipeline_v2(create_pipeline_request_json=spec(pachd))
    info = pachd.client.pps.inspect_pipeline(pipeline=pps.Pipeline(name="p", project=pachd.project))
    effective = json.loads(info.effective_spec_json)
    assert effective["outputBranch"] == "master"
    assert int(effective["datumTries"]) == 3
    assert "datumTries" not in json.loads(info.user_spec_json)


def test_a_dry_run_does_nothing(pachd: Pachd) -> None:
    """§10.2: it answers with the effective spec."""
    answer = pachd.client.pps.create_pipeline_v2(create_pipeline_request_json=spec(pachd), dry_run=True)
    assert "datumTries" in json.loads(answer.effective_create_pipeline_request_json)
    assert not pachd.client.pps.pipeline_exists(pps.Pipeline(name="p", project=pachd.project))


@pytest.mark.parametrize("text", ["{", '{"no_such_field": 1}'])
def test_specs_that_cannot_be_read(pachd: Pachd, text: str) -> None:
    """§10.2: INVALID_ARGUMENT."""
    with refused(INVALID):
        pachd.client.pps.create_pipeline_v2(create_pipeline_request_json=text)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"name": "out"}, "input cannot be named out"),
        ({"glob": ""}, "input must specify a glob"),
        ({"repo": ""}, "input must specify a repo"),
    ],
)
def test_inputs_that_are_refused(pachd: Pachd, change: dict[str, str], text: str) -> None:
    """§10.2: validation texts."""
    node = pps.Input(
        pfs=pps.PfsInput(**{"project": pachd.project.name, "repo": "data", "glob": "/*", **change})
    )
    with refused(UNKNOWN, text):
        pachd.pipeline("p", "true", node)


def test_names_of_inputs_differ(pachd: Pachd) -> None:
    """§10.2: `was used more than once`."""
    node = pps.Input(cross=[pachd.input("data", "/1"), pachd.input("data", "/2")])
    with refused(UNKNOWN, "was used more than once"):
        pachd.pipeline("p", "true", node)


def test_names_of_pipelines(pachd: Pachd) -> None:
    """§4: alphanumeric first, and short enough for Kubernetes with the project's."""
    with refused(UNKNOWN):
        pachd.pipeline("-p", "true", {"data": "/*"})
    with refused(UNKNOWN):
        pachd.pipeline("p" * 52, "true", {"data": "/*"})
    with refused(UNKNOWN, "invalid: only alphanumeric characters"):
        pachd.pipeline("a b", "true", {"data": "/*"})


def test_defaults_of_a_project(pachd: Pachd) -> None:
    """§10.2: they come between the cluster's and the request."""
    text = json.dumps({"createPipelineRequest": {"datumTries": 7}})
    pachd.client.pps.set_project_defaults(project=pachd.project, project_defaults_json=text)
    pachd.client.pps.create_pipeline_v2(create_pipeline_request_json=spec(pachd))
    pipeline = pps.Pipeline(name="p", project=pachd.project)
    assert pachd.client.pps.inspect_pipeline(pipeline=pipeline, details=True).details.datum_tries == 7


def test_what_only_a_cluster_acts_on_is_kept(pachd: Pachd) -> None:
    """§10.3: and told by InspectPipeline with details."""
    given = {
        "resource_requests": pps.ResourceSpec(cpu=0.25, memory="64M", disk="1G"),
        "resource_limits": pps.ResourceSpec(cpu=0.5, memory="128M"),
        "sidecar_resource_limits": pps.ResourceSpec(memory="64M"),
        "datum_set_spec": pps.DatumSetSpec(number=3, size_bytes=1000, per_worker=2),
        "datum_timeout": timedelta(seconds=90),
        "job_timeout": timedelta(hours=1),
        "scheduling_spec": pps.SchedulingSpec(node_selector={"disk": "ssd"}, priority_class_name="high"),
        "tolerations": [pps.Toleration(key="k", operator=pps.TolerationOperator.EXISTS)],
        "pod_patch": '[{"op": "add", "path": "/priority", "value": 1}]',
        "metadata": pps.Metadata(annotations={"a": "b"}, labels={"c": "d"}),
        "output_branch": "other",
        "description": "words",
        "autoscaling": True,
    }
    pipeline = pachd.pipeline("p", "true", {"data": "/none*"}, **given)
    info = pachd.client.pps.inspect_pipeline(pipeline=pipeline, details=True)
    assert {name: getattr(info.details, name) for name in given} == given


@pytest.mark.parametrize(
    ("more", "text"),
    [
        ({"pod_spec": "{"}, "malformed PodSpec"),
        ({"pod_patch": "{"}, "malformed PodPatch"),
        ({"reprocess_spec": "sometimes"}, "reprocess_spec"),
    ],
)
def test_fields_that_make_no_sense(pachd: Pachd, more: dict[str, str], text: str) -> None:
    """§10.2: validation texts."""
    with refused(UNKNOWN, text):
        pachd.pipeline("p", "true", {"data": "/*"}, **more)


def test_defaults_are_told_as_they_were_set(pachd: Pachd) -> None:
    """§14: GetProjectDefaults and GetClusterDefaults; JSON that is none is refused (§10.2)."""
    text = json.dumps({"createPipelineRequest": {"datumTries": 7}})
    pachd.client.pps.set_project_defaults(project=pachd.project, project_defaults_json=text)
    found = pachd.client.pps.get_project_defaults(project=pachd.project).project_defaults_json
    assert json.loads(found) == json.loads(text)
    cluster = json.loads(pachd.client.pps.get_cluster_defaults().cluster_defaults_json)
    assert cluster["createPipelineRequest"]["reprocessSpec"] == "until_success"
    for bad in ("{", '{"createPipelineRequest": {"nothing": 1}}'):
        with refused(INVALID):
            pachd.client.pps.set_project_defaults(project=pachd.project, project_defaults_json=bad)


@pytest.mark.workers("waits for a job")
def test_defaults_that_change_pipelines(pachd: Pachd) -> None:
    """§10.2: dry_run tells whom they touch, regenerate updates those; what a request says stays."""
    pipeline = pachd.pipeline("p", "true", {"data": "/1"}, datum_tries=0)
    pachd.succeeded(pipeline)
    pachd.succeeded(pachd.pipeline("q", "true", {"data": "/1"}, datum_tries=2))
    text = json.dumps({"createPipelineRequest": {"datumTries": 7}})
    call = pachd.client.pps.set_project_defaults

    def tries(name: str) -> tuple[int, int]:
        one = pps.Pipeline(name=name, project=pachd.project)
        info = pachd.client.pps.inspect_pipeline(pipeline=one, details=True)
        return info.details.datum_tries, info.version

    told = call(project=pachd.project, project_defaults_json=text, regenerate=True, dry_run=True)
    assert "p" in {one.name for one in told.affected_pipelines}
    assert tries("p") == (3, 1)
    call(project=pachd.project, project_defaults_json=text, regenerate=True)
    assert tries("p") == (7, 2)
    assert tries("q")[0] == 2


@pytest.mark.unbuilt
@pytest.mark.parametrize(
    "more",
    [
        {"egress": pps.Egress(object_storage=pfs.ObjectStorageEgress(url="s3://bucket/path"))},
        {"s3_out": True},
        {"transform": {"datum_batching": True}},
    ],
    ids=["egress", "s3_out", "datum_batching"],
)
def test_what_one_machine_has_no_use_for(pachd: Pachd, more: dict[str, Any]) -> None:
    """§10.3: egress, s3_out and datum_batching are taken."""
    pachd.pipeline("p", "true", {"data": "/none*"}, **more)


@pytest.mark.unbuilt
def test_an_s3_input(pachd: Pachd) -> None:
    """§11.1: s3, with the glob `/`."""
    pachd.pipeline("p", "true", pachd.input("data", "/", s3=True))


@pytest.mark.workers("waits for a job")
def test_the_transform_of_a_pipeline(pachd: Pachd) -> None:
    """§10.3: env and working_dir."""
    script = 'echo "$GREETING" > $OUT/env; basename "$(pwd)" > $OUT/where'
    transform = {"env": {"GREETING": "hello = you"}, "working_dir": "/tmp"}
    pachd.succeeded(pachd.pipeline("p", script, {"data": "/1"}, transform=transform))
    assert pachd.files(pachd.commit("p")) == {"/env": b"hello = you\n", "/where": b"tmp\n"}
