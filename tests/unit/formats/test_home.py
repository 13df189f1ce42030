from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from kaos_formats import home
from kaos_formats.home import Home, Running
from tests.support.stubborn import stubborn


def test_the_token_is_made_once_and_is_private(tmp_path: Path) -> None:
    path = tmp_path / "token"
    for _ in range(2):
        with ThreadPoolExecutor(8) as pool:
            found = set(pool.map(home.ensure_token, [path] * 8))
        assert len(found) == 1
        assert len(found.pop()) == 64
        assert path.stat().st_mode & 0o777 == 0o600
        assert [p.name for p in tmp_path.iterdir()] == ["token"]
        path.write_text("")  # as a crash might leave it


def test_home_is_where_the_environment_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert Home.of({"KAOS_HOME": "rel"}).path == tmp_path / "rel"
    assert Home.of({}).path == Home.of({"KAOS_HOME": ""}).path == Path.home() / ".kaos"


def test_what_a_process_says_is_read_back(tmp_path: Path) -> None:
    where = Home(tmp_path)
    for said in (Running(7, "0.1", url="http://h:1"), Running(8, "0.1", host="127.0.0.1", port=9)):
        home.write_running(where, "engine", said)
        assert home.read_running(where, "engine") == said
    assert home.read_running(where, "backend") is None


def test_the_files_are_those_of_older_versions(tmp_path: Path) -> None:
    where = Home(tmp_path)
    (tmp_path / "backend.json").write_text('{"url": "http://h:1", "pid": 7, "version": "0.1.0"}\n')
    (tmp_path / "engine.json").write_text('{"host": "h", "port": 9, "pid": 8, "version": "0.1.0"}')
    assert home.read_running(where, "backend") == Running(7, "0.1.0", url="http://h:1")
    assert home.read_running(where, "engine") == Running(8, "0.1.0", host="h", port=9)
    assert {where.token_file.name, where.lock("engine").name, where.log("backend").name} == {
        "token", "engine.lock", "backend.log"
    }  # fmt: skip


@pytest.mark.parametrize(
    "text", ["", "{", "[1]", "{}", '{"pid": "x"}', '{"pid": null}', '{"pid": 1, "port": []}']
)
def test_what_says_nothing(tmp_path: Path, text: str) -> None:
    (tmp_path / "engine.json").write_text(text)
    assert home.read_running(Home(tmp_path), "engine") is None


def test_a_lock_is_held_by_one(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    assert not home.is_locked(path)
    assert not path.exists()
    fd = home.try_lock(path)
    assert fd is not None
    assert home.is_locked(path)
    assert home.try_lock(path) is None
    os.close(fd)
    assert not home.is_locked(path)
    with home.locked(path):
        assert home.is_locked(path)
    assert not home.is_locked(path)


def test_processes(tmp_path: Path) -> None:
    assert home.process_lives(os.getpid())
    for no_process in (None, "1", 0, -1, 2**22 + 1):
        assert not home.process_lives(no_process)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"a b", b"a\nb", b"\x07", None])
def test_a_token_that_cannot_be_one_is_made_again(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "token"
    if content is None:
        (path / "x").mkdir(parents=True)
    else:
        path.write_bytes(content)
    assert len(home.ensure_token(path)) == 64
    assert home.ensure_token(path) == path.read_text().strip()


def test_a_folder_in_place_of_a_file_is_put_aside(tmp_path: Path) -> None:
    where = Home(tmp_path)
    for path in (where.running_file("engine"), where.lock("engine"), where.log("engine")):
        (path / "x").mkdir(parents=True)
    home.write_running(where, "engine", Running(1))
    assert home.read_running(where, "engine") == Running(1)
    assert not home.is_locked(where.lock("engine"))
    with home.locked(where.lock("engine")):
        assert home.is_locked(where.lock("engine"))
        assert home.try_lock(where.lock("engine")) is None
    assert home.log_file(where, "engine") == where.log("engine")
    assert {path.name for path in tmp_path.iterdir()} == {"engine.json", "engine.lock", "logs"}


def test_a_log_that_cannot_be_written_has_another_beside_it(tmp_path: Path) -> None:
    where = Home(tmp_path)
    where.logs.mkdir()
    where.log("engine").write_text("old")
    with stubborn(tmp_path) as held:
        held.immutable(where.log("engine"))
        assert home.log_file(where, "engine").name == "engine.log.1"
    assert home.log_file(where, "engine").read_text() == "old"
