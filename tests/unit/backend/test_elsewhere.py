"""What only the embedded engine has, asked of a pachd that is another one."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from kaos_backend.engine.facade.misc import VersionService
from kaos_backend.engine.facade.server import build_server
from kaos_backend.errors import NeedsEmbeddedEngine
from kaos_backend.pachd.connection import Endpoint
from kaos_backend.pachd.sdk import SdkPachd


class Somewhere:
    """A pachd that is there."""

    def __init__(self, port: int) -> None:
        self._endpoint = Endpoint(f"127.0.0.1:{port}", "secret", 1, embedded=True)

    def current(self) -> Endpoint:
        return self._endpoint

    def ensure(self) -> Endpoint:
        return self._endpoint


@pytest.fixture
def pachd() -> Iterator[SdkPachd]:
    server, port = build_server([VersionService()], "secret")
    server.start()
    yield SdkPachd(Somewhere(port))
    server.stop(grace=0).wait(5)


def test_a_check_says_that_it_needs_the_embedded_engine(pachd: SdkPachd) -> None:
    with pytest.raises(NeedsEmbeddedEngine, match="Check") as told:
        list(pachd.check(repair=False))
    assert "KAOS_ENGINE_ADDRESS" in told.value.hint


def test_nothing_is_known_to_be_damaged(pachd: SdkPachd) -> None:
    assert pachd.damaged("default", "data", "master", "/") == []


def test_one_trial_cannot_be_stopped(pachd: SdkPachd) -> None:
    with pytest.raises(NeedsEmbeddedEngine):
        pachd.stop_datum("default", "train", "0" * 32, "/x.json", "why")


def test_an_older_job_cannot_be_run_again(pachd: SdkPachd) -> None:
    with pytest.raises(NeedsEmbeddedEngine):
        pachd.rerun_job("default", ["train"], "0" * 32, only_failed=False)


def test_nothing_is_paused(pachd: SdkPachd) -> None:
    assert not pachd.paused().everywhere
    with pytest.raises(NeedsEmbeddedEngine):
        pachd.pause("default", paused=True)
