from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.backend import Backend, running_backend

_numbers = itertools.count()


@pytest.fixture(scope="module")
def backend(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backend]:
    """One backend with a real engine for all tests of a module; tests take workspaces of their own."""
    with running_backend(tmp_path_factory.mktemp("home")) as running:
        yield running


@pytest.fixture
def workspace(backend: Backend) -> str:
    return backend.workspace(f"w{next(_numbers)}")


@pytest.fixture
def home(tmp_path: Path) -> Path:
    return tmp_path / "home"
