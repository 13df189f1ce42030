"""jq programs are the caller's: none may hold the engine up."""

from __future__ import annotations

import pytest
from pachyderm_sdk.api import pps

from kaos_backend.engine.errors import Unknown
from kaos_backend.engine.facade import jq


def test_a_program_without_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jq, "_ANSWER_S", 0.3)
    with jq.jq_filter("def f: f; f") as keep, pytest.raises(Unknown, match="took more than"):
        keep(pps.JobInfo())


def test_a_program_that_eats_memory() -> None:
    with (
        jq.jq_filter('[range(30)] | reduce .[] as $i ("x" * 1000; . + . )') as keep,
        pytest.raises(Unknown, match="memory"),
    ):
        keep(pps.JobInfo())


def test_a_large_message() -> None:
    """Both sides of the pipes are read, however much there is."""
    with jq.jq_filter(".reason | length > 1000000") as keep:
        assert keep(pps.JobInfo(reason="x" * 2_000_000))
        assert not keep(pps.JobInfo(reason="x"))
