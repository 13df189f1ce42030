from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from kaos_cli import main
from kaos_cli.config import Home
from tests.unit.cli.fake import TOKEN, FakeBackend
from tests.unit.cli.samples import job, stage, trial

OTHER_ID = "77" * 16


@dataclass
class Result:
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Cli = Callable[..., Result]


@pytest.fixture(autouse=True)
def clean_env(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No test sees the user's own kaos, terminal or colours."""
    for name in list(os.environ):
        if name.startswith(("KAOS_", "PACH")) or name in ("NO_COLOR", "FORCE_COLOR", "COLUMNS", "TERM"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("KAOS_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("COLUMNS", "80")


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path / "home")


@pytest.fixture
def backend(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeBackend]:
    fake = FakeBackend()
    monkeypatch.setenv("KAOS_ENDPOINT", fake.url)
    monkeypatch.setenv("KAOS_TOKEN", TOKEN)
    yield fake
    fake.close()
    assert fake.differences == []


@pytest.fixture
def two(backend: FakeBackend) -> FakeBackend:
    """With two jobs in the default workspace: one that runs, one that failed in part."""
    trials = [trial(0, lr=0.1, epochs=5), trial(1, "failed", None, lr=0.01, epochs=5)]
    backend.jobs["default"] = [
        job("running", id=OTHER_ID, stages=[stage("running", 9, 4, 1, 2)], duration_s=None),
        job("partial", trials, stages=[stage("success", 2, 1, 1)]),
    ]
    return backend


@pytest.fixture
def cli(capfd: pytest.CaptureFixture[str]) -> Cli:
    def call(*args: object) -> Result:
        given = [str(arg) for arg in args]
        capfd.readouterr()
        code = main.run(given, as_json="--json" in given, debug=False)
        out, err = capfd.readouterr()
        return Result(code, out, err)

    return call
