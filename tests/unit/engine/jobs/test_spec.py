from __future__ import annotations

from typing import Any

import pytest
from pachyderm_sdk.api import pps

from kaos_backend.engine.errors import EngineError, InvalidArgument
from kaos_backend.engine.facade.pps.convert import ancestry
from kaos_backend.engine.jobs.db.pipelines import with_defaults
from kaos_backend.engine.jobs.spec.inputs import input_branches
from kaos_backend.engine.jobs.spec.spec import (
    canonical,
    defaults,
    effective,
    from_json,
    merge_patch,
    parse,
    to_json,
)
from kaos_backend.engine.jobs.spec.validate import check, complete


def spec(**more: Any) -> dict[str, Any]:
    return {
        "pipeline": {"name": "p", "project": {"name": "w"}},
        "transform": {"cmd": ["true"]},
        "input": {"pfs": {"repo": "r", "glob": "/*"}},
        **more,
    }


def checked(**more: Any) -> None:
    check(complete(parse(effective(canonical(spec(**more)))), 0))


@pytest.mark.parametrize(
    ("target", "patch", "result"),
    # The examples of RFC 7396, appendix A.
    [
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        (["a", "b"], ["c", "d"], ["c", "d"]),
        ({"a": "b"}, ["c"], ["c"]),
        ({"a": "foo"}, None, None),
        ({"a": "foo"}, "bar", "bar"),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ],
)
def test_merge_patch_follows_the_rfc(target: Any, patch: Any, result: Any) -> None:
    assert merge_patch(target, patch) == result


def test_snake_and_camel_case_are_the_same_and_map_keys_are_left_alone() -> None:
    snake = canonical(spec(datum_tries=2, transform={"err_cmd": ["x"], "env": {"my_var": "1", "myVar": "2"}}))
    camel = canonical(spec(datumTries=2, transform={"errCmd": ["x"], "env": {"my_var": "1", "myVar": "2"}}))
    assert snake == camel
    assert snake["transform"]["env"] == {"my_var": "1", "myVar": "2"}


@pytest.mark.parametrize(
    "bad",
    [
        {"nonsense": 1},
        {"transform": {"cmmd": []}},
        {"input": {"pfs": {"rep": "x"}}},
        {"input": {"cross": {"pfs": {}}}},
        {"transform": 3},
        {"datumTries": "three"},
        {"datum_tries": 1, "datumTries": 1},
    ],
)
def test_what_is_no_spec_is_an_invalid_argument(bad: dict[str, Any]) -> None:
    with pytest.raises(InvalidArgument, match="could not make effective spec"):
        parse(effective(canonical(spec(**bad))))


def test_defaults_lie_under_the_request_cluster_first() -> None:
    creation = with_defaults(
        spec(transform={"cmd": ["a"], "image": None}),
        '{"createPipelineRequest": {"datumTries": 7, "description": "cluster"}}',
        '{"create_pipeline_request": {"description": "project"}}',
        update=False,
        reprocess=False,
    )
    assert creation.effective["datumTries"] == 7
    assert creation.effective["description"] == "project"
    assert creation.effective["outputBranch"] == "master"
    assert "image" not in creation.effective["transform"]
    assert "datumTries" not in creation.user
    assert parse(creation.effective).datum_tries == 7


def test_numbers_may_be_strings_and_switches_are_not_stored() -> None:
    creation = with_defaults(
        spec(datumTries="2", update=True, dryRun=True), "{}", "{}", update=True, reprocess=False
    )
    assert parse(creation.effective).datum_tries == 2
    assert not {"update", "dryRun", "reprocess"} & (set(creation.effective) | set(creation.user))


def test_a_stored_spec_comes_back_as_it_was() -> None:
    full = complete(
        parse(
            effective(
                canonical(
                    spec(
                        resource_limits={
                            "cpu": 1.5,
                            "memory": "4G",
                            "gpu": {"type": "nvidia.com/gpu", "number": 1},
                        },
                        tolerations=[{"key": "k", "operator": "EXISTS", "tolerationSeconds": 3}],
                        egress={"URL": "s3://x"},
                        input={
                            "cross": [
                                {"pfs": {"repo": "a", "glob": "/"}},
                                {"pfs": {"repo": "b", "glob": "*"}},
                            ]
                        },
                    )
                )
            )
        ),
        0,
    )
    assert from_json(to_json(full)) == full


def test_what_the_sdk_writes_is_understood() -> None:
    message = pps.CreatePipelineRequest(
        pipeline=pps.Pipeline(name="p"),
        transform=pps.Transform(cmd=["sh"], accept_return_code=[3], stdin=["true"]),
        parallelism_spec=pps.ParallelismSpec(constant=4),
        egress=pps.Egress(url="s3://x"),
        resource_limits=pps.ResourceSpec(cpu=0.5, memory="64M", gpu=pps.GpuSpec(type="t", number=2)),
        input=pps.Input(union=[pps.Input(pfs=pps.PfsInput(repo="a", glob="/*", name="x"))]),
        s3_out=True,
        datum_tries=1,
    )
    parsed = parse(effective(canonical(dict(message.to_dict()))))
    assert parsed.parallelism == 4
    assert parsed.transform is not None
    assert parsed.transform.accept_return_code == (3,)
    assert parsed.egress is not None
    assert parsed.egress.url == "s3://x"
    assert parsed.resource_limits is not None
    assert parsed.resource_limits.gpu is not None
    assert parsed.resource_limits.gpu.number == 2
    assert parsed.s3_out


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"transform": None}, "must specify a transform"),
        ({"pipeline": {"name": "a b"}}, "only alphanumeric characters"),
        ({"pipeline": {"name": "-a"}}, "start with an alphanumeric"),
        ({"pipeline": {"name": "a" * 52}}, "limit is 51"),
        ({"pipeline": {"name": "a\n"}}, "invalid"),
        ({"input": {"pfs": {"repo": "r", "name": "a\n", "glob": "/"}}}, "invalid"),
        ({"pipeline": {"name": "a" * 30, "project": {"name": "b" * 40}}}, "too long"),
        ({"input": {}}, "no input set"),
        ({"input": {"pfs": {"glob": "/"}}}, "must specify a repo"),
        ({"input": {"pfs": {"repo": "r"}}}, "must specify a glob"),
        ({"input": {"pfs": {"repo": "out", "glob": "/"}}}, "cannot be named out"),
        ({"input": {"pfs": {"repo": "r", "name": "out", "glob": "/"}}}, "cannot be named out"),
        ({"input": {"pfs": {"repo": "r", "glob": "/", "commit": "c"}}}, "cannot come from a commit"),
        ({"input": {"cross": [{"pfs": {"repo": "r", "glob": "/"}}, {}]}}, "no input set"),
        (
            {"input": {"cross": [{"pfs": {"repo": "r", "glob": "/"}}, {"pfs": {"repo": "r", "glob": "/a"}}]}},
            "used more than once",
        ),
        (
            {"input": {"pfs": {"repo": "r", "glob": "/"}, "cross": [{"pfs": {"repo": "s", "glob": "/"}}]}},
            "multiple input types set",
        ),
        ({"reprocess_spec": "sometimes"}, "reprocess_spec"),
        ({"datum_timeout": "soon"}, "datum_timeout"),
        ({"job_timeout": "-3s"}, "must be positive"),
        ({"resource_limits": {"memory": "lots"}}, "no quantity"),
        ({"resource_limits": {"cpu": -1}}, "must not be negative"),
        ({"spout": {}}, "must not have an input"),
        ({"spout": {}, "service": {"internal_port": 80}}, "cannot be a service and a spout"),
        ({"service": {}}, "internal_port is 0"),
        ({"service": {"internal_port": 80, "external_port": 1 << 16}}, "external_port is 65536"),
        ({"datum_set_spec": {"number": -1}}, "must not be negative"),
        ({"egress": {"URL": "s3://x"}}, "does not have egress"),
        ({"s3_out": True}, "does not have s3_out"),
        ({"transform": {"cmd": ["x"], "datum_batching": True}}, "does not have datum_batching"),
        ({"input": {"pfs": {"repo": "r", "glob": "/", "s3": True}}}, "no S3 gateway"),
        ({"input": {"cron": {"name": "c", "spec": "often"}}}, "error parsing cron-spec"),
        ({"input": {"cron": {"name": "c", "spec": "@daily", "start": "now"}}}, "is no time"),
        (
            {
                "input": {
                    "join": [{"pfs": {"repo": "r", "glob": "/(*)", "join_on": "$1"}}, {"cron": {"name": "c"}}]
                }
            },
            "cannot be in a join",
        ),
    ],
)
def test_a_spec_that_cannot_run_is_refused_by_name(change: dict[str, Any], text: str) -> None:
    with pytest.raises(EngineError, match=text):
        checked(**change)


def test_alternatives_of_a_union_may_share_a_name() -> None:
    checked(
        input={
            "union": [
                {"pfs": {"repo": "r", "name": "x", "glob": "/"}},
                {"pfs": {"repo": "s", "name": "x", "glob": "/"}},
            ]
        }
    )


def test_defaults_are_written_into_the_input_and_children_sorted() -> None:
    done = complete(
        parse(
            canonical(
                spec(
                    input={
                        "cross": [
                            {"pfs": {"repo": "z", "glob": "*/"}},
                            {"pfs": {"repo": "a", "glob": "/", "propagation_spec": {"never": True}}},
                        ]
                    }
                )
            )
        ),
        0,
    )
    assert done.input is not None
    first, second = (child.pfs for child in done.input.cross)
    assert first is not None
    assert second is not None
    assert (first.name, first.branch, first.project, first.repo_type, first.glob) == (
        "a",
        "master",
        "w",
        "user",
        "/",
    )
    assert second.glob == "/*"
    assert [(b.repo, b.never) for b in input_branches(done.input)] == [("a", True), ("z", False)]


def test_a_history_of_a_pipeline_is_a_number_that_fits() -> None:
    assert ancestry("p^2") == ("p", 2, None)
    assert ancestry("p.3") == ("p", 0, 3)
    for name in ("p^2\n", "p.3\n", "p^" + "9" * 5000):
        assert ancestry(name) == (name, 0, None)


def test_unknown_default_fields_are_refused() -> None:
    with pytest.raises(InvalidArgument, match="unknown field"):
        defaults('{"createPipelineRequests": {}}')
