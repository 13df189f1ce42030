"""The message classes of the SDK with their types remembered."""

from __future__ import annotations

import typing

import pytest
from pachyderm_sdk.api import pps

from kaos_formats.messages import remember_types


def test_annotations_are_evaluated_once_for_a_class(monkeypatch: pytest.MonkeyPatch) -> None:
    remember_types()
    remember_types()
    spec = {"pipeline": {"name": "p"}, "transform": {"cmd": ["true"], "env": {"A": "b"}}, "datumTries": "3"}
    message = pps.CreatePipelineRequest().from_dict(spec)
    assert pps.CreatePipelineRequest.FromString(bytes(message)).to_dict() == spec

    def never(*_: object) -> None:
        raise AssertionError("evaluated again")

    monkeypatch.setattr("betterproto.get_type_hints", never)
    assert message.to_dict() == spec
    assert pps.CreatePipelineRequest._type_hints()["salt"] is typing.get_type_hints(pps.Pipeline)["name"]
