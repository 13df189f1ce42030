from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from kaos_backend import home
from kaos_backend.settings import SettingsError, from_environment


def test_the_token_is_made_once_and_is_private(tmp_path: Path) -> None:
    path = tmp_path / "token"
    found: list[str] = []
    threads = [threading.Thread(target=lambda: found.append(home.ensure_token(path))) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(set(found)) == 1
    assert len(found[0]) == 64
    assert path.stat().st_mode & 0o777 == 0o600
    assert [p.name for p in tmp_path.iterdir()] == ["token"]


def test_files_are_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "x.json"
    home.write_atomically(path, '{"a": 1}')
    home.write_atomically(path, '{"a": 2}')
    assert home.read_json(path) == {"a": 2}
    assert path.stat().st_mode & 0o777 == 0o600
    assert [p.name for p in tmp_path.iterdir()] == ["x.json"]


@pytest.mark.parametrize("text", ["", "{", "[1]", "3"])
def test_what_is_no_object_reads_as_empty(tmp_path: Path, text: str) -> None:
    (tmp_path / "x").write_text(text)
    assert home.read_json(tmp_path / "x") == {}
    assert home.read_json(tmp_path / "missing") == {}


def test_a_lock_is_held_by_one(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    assert not home.is_locked(path)
    fd = home.try_lock(path)
    assert fd is not None
    assert home.is_locked(path)
    assert home.try_lock(path) is None
    os.close(fd)
    assert not home.is_locked(path)


def test_processes(tmp_path: Path) -> None:
    assert home.process_lives(os.getpid())
    for no_process in (None, "1", 0, -1, 2**22 + 1):
        assert not home.process_lives(no_process)


def test_settings_come_from_the_environment() -> None:
    chosen = from_environment({"KAOS_HOME": "/x", "KAOS_PORT": "80", "KAOS_ENGINE_ADDRESS": "grpc://h:1"})
    assert (chosen.home, chosen.port, chosen.engine_address) == (Path("/x"), 80, "grpc://h:1")
    plain = from_environment({"KAOS_PORT": ""})
    assert (plain.home, plain.port, plain.engine_port) == (Path("~/.kaos").expanduser(), None, None)


@pytest.mark.parametrize("port", ["http", "-1", "65536", "1.5"])
def test_ports_that_are_none(port: str) -> None:
    with pytest.raises(SettingsError, match="KAOS_ENGINE_PORT"):
        from_environment({"KAOS_ENGINE_PORT": port})
