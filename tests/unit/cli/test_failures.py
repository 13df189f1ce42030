"""What is told of trials that failed: why, once for each kind."""

from __future__ import annotations

from tests.unit.cli.conftest import Cli
from tests.unit.cli.fake import FakeBackend
from tests.unit.cli.samples import job, trial


def test_many_that_fail_alike_are_told_once(cli: Cli, backend: FakeBackend) -> None:
    failed = [trial(n, "failed", None, lr=n) | {"reason": "exit code 1: no GPU\x1b[2J"} for n in range(90)]
    backend.jobs["default"] = [job("failed", failed)]
    done = cli("train", "info")
    told = "trials 0, 1, 2, 3, 4, 5, … (90 in all) failed: exit code 1: no GPU\\x1b[2J\n"
    assert done.out.endswith(told)
    assert done.err == "  → kaos train logs 4f1c0de2 --trial 0 shows all of it\n"
    assert not any(request.endswith("/logs") for request in backend.requests)


def test_each_kind_has_a_line(cli: Cli, backend: FakeBackend) -> None:
    memory = [trial(n, "failed", None) | {"reason": "out of memory: used 5G of 4G"} for n in (0, 2)]
    backend.jobs["default"] = [job("failed", [*memory, trial(1, "failed", None)])]
    out = cli("train", "info").out
    assert out.endswith("trials 0, 2 failed: out of memory: used 5G of 4G\ntrial 1 failed: exit code 1\n")
