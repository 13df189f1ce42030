from __future__ import annotations

import pytest
from kaos_pipelines import specs
from pachyderm_sdk.api import pps

from kaos_formats.arguments import parse_arguments


def test_build_spec_is_understood_by_the_sdk() -> None:
    spec = specs.build_spec("Ws", "a" * 32)
    request = pps.CreatePipelineRequest().from_dict(spec)
    assert (request.pipeline.project.name, request.pipeline.name) == ("Ws", "build")
    assert request.transform.env["KAOS_IMAGE"] == f"kaos/ws:{'a' * 32}"
    assert request.input.pfs.glob == "/"
    assert request.datum_tries == 1


def test_build_arguments_are_in_the_spec_and_in_the_images_name() -> None:
    def env(arguments: dict[str, str]) -> dict[str, str]:
        found: dict[str, str] = specs.build_spec("ws", "a" * 32, "docker", arguments)["transform"]["env"]
        return found

    assert env({}) == specs.build_spec("ws", "a" * 32, "docker")["transform"]["env"]
    one, same, other = env({"A": "1", "B": "é"}), env({"B": "é", "A": "1"}), env({"A": "1"})
    assert one == same
    assert parse_arguments(one["KAOS_BUILD_ARGS"]) == {"A": "1", "B": "é"}
    assert one["KAOS_IMAGE"].startswith(f"kaos/ws:{'a' * 32}-docker-")
    assert len({one["KAOS_IMAGE"], other["KAOS_IMAGE"], env({})["KAOS_IMAGE"]}) == 3


def test_train_spec_is_understood_by_the_sdk() -> None:
    spec = specs.train_spec("ws", "kaos/ws:1", parallelism=3, cpu=1.5, memory_bytes=512 << 20, gpu=2)
    request = pps.CreatePipelineRequest().from_dict(spec)
    assert [i.pfs.name for i in request.input.cross] == ["build", "data", "hyper"]
    assert [i.pfs.glob for i in request.input.cross] == ["/*", "/" + "?" * 32, "/*"]
    assert request.resource_limits.cpu == 1.5
    assert request.resource_limits.memory == str(512 << 20)
    assert (request.resource_limits.gpu.type, request.resource_limits.gpu.number) == ("nvidia.com/gpu", 2)
    assert request.parallelism_spec.constant == 3
    assert request.transform.err_cmd == ["true"]
    assert request.transform.env["KAOS_MEMORY"] == str(512 << 20)
    assert request.transform.stdin == specs.train_script()


def test_defaults_are_one_core_and_nothing_else() -> None:
    spec = specs.train_spec("ws", "i")
    assert spec["resourceLimits"] == {"cpu": 1.0}
    assert spec == specs.train_spec("ws", "i", cpu=1.0, gpu=0, tries=1)
    assert "KAOS_TIMEOUT" not in spec["transform"]["env"]


def test_tries_and_time_are_kept_in_the_spec() -> None:
    spec = specs.train_spec("ws", "i", tries=3, timeout_s=90.0)
    assert (spec["datumTries"], spec["transform"]["env"]["KAOS_TIMEOUT"]) == (3, "90")
    assert specs.train_spec("ws", "i", timeout_s=0.001)["transform"]["env"]["KAOS_TIMEOUT"] == "0.001"
    for bad in ({"tries": 0}, {"timeout_s": 0.0}):
        with pytest.raises(ValueError, match="could run"):
            specs.train_spec("ws", "i", **bad)  # type: ignore[arg-type]


@pytest.mark.parametrize("bad", [{"parallelism": 0}, {"cpu": 0}, {"memory_bytes": 0}, {"gpu": -1}])
def test_amounts_that_cannot_be_granted(bad: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="grantable"):
        specs.train_spec("ws", "i", **bad)  # type: ignore[arg-type]
