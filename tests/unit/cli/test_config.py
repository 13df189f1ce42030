from __future__ import annotations

import threading
from pathlib import Path

import pytest

from kaos_cli.config import Home, write_atomic
from kaos_cli.errors import KaosError
from kaos_formats.errors import InvalidName


def test_home_is_where_the_environment_says(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert Home.of({"KAOS_HOME": "rel"}).path == tmp_path / "rel"
    assert Home.of({}).path == Path.home() / ".kaos"
    assert Home.of({"KAOS_HOME": ""}).path == Path.home() / ".kaos"


def test_token_is_private_and_stays(home: Home) -> None:
    token = home.token()
    assert len(token) == 64
    assert home.token() == token
    assert (home.path / "token").stat().st_mode & 0o777 == 0o600
    assert home.path.stat().st_mode & 0o777 == 0o700
    assert [p.name for p in home.path.iterdir()] == ["token"]


def test_all_who_come_first_get_one_token(home: Home) -> None:
    home.create()
    barrier = threading.Barrier(8)
    tokens = set()

    def come() -> None:
        barrier.wait()
        tokens.add(home.token())

    threads = [threading.Thread(target=come) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(tokens) == 1


def test_empty_token_of_a_crash_is_made_anew(home: Home) -> None:
    home.create()
    (home.path / "token").write_text("")
    assert len(home.token()) == 64


def test_workspace_order_is_flag_setting_default(home: Home) -> None:
    assert home.workspace(None) == "default"
    home.set_workspace("mine")
    assert home.workspace(None) == "mine"
    assert home.workspace("other") == "other"
    home.set_workspace(None)
    assert home.workspace(None) == "default"


@pytest.mark.parametrize("name", ["no/slash", "a b", "", "-x", "ä", "..", "a\n"])
def test_what_can_be_no_workspace(home: Home, name: str) -> None:
    home.set_workspace(name)
    if name:
        with pytest.raises(InvalidName, match="invalid workspace name"):
            home.workspace(None)


def test_broken_settings_are_told_with_their_path(home: Home) -> None:
    home.create()
    (home.path / "config.json").write_text("{")
    with pytest.raises(KaosError, match=r"config\.json"):
        home.settings()


def test_folder_that_cannot_be_made_is_told(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(KaosError, match="cannot create"):
        Home(tmp_path / "file/below").token()


def test_atomic_write_leaves_the_old_file_on_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "f"
    write_atomic(path, b"old")

    def full(self: Path, content: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OSError, match="No space"):
        write_atomic(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]
