from __future__ import annotations

import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.bundles import write_data, write_source
from tests.support.gate import Gate
from tests.support.home import Home


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    """One running kaos for all tests that do not kill it; each of them works in a workspace of its own."""
    kaos = Home(
        tmp_path_factory.mktemp("kaos") / "home", env={"KAOS_ENGINE_CPUS": "2", "KAOS_ENGINE_GPUS": "2"}
    )
    yield kaos
    kaos.down()


@pytest.fixture
def gate() -> Iterator[Gate]:
    gate = Gate()
    yield gate
    gate.close()


@pytest.fixture
def workspace(home: Home) -> str:
    name = f"t-{uuid.uuid4().hex[:8]}"
    home.run("workspace", "create", name)
    return name


@pytest.fixture
def src(tmp_path: Path) -> Path:
    return write_source(tmp_path / "src")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_data(tmp_path / "data")
