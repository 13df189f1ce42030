from __future__ import annotations

from pathlib import Path

import pytest

from kaos_cli.config import Home
from kaos_cli.errors import KaosError
from kaos_formats.errors import InvalidName


def test_token_is_private_and_stays(home: Home) -> None:
    token = home.token()
    assert len(token) == 64
    assert home.token() == token
    assert (home.path / "token").stat().st_mode & 0o777 == 0o600
    assert home.path.stat().st_mode & 0o777 == 0o700
    assert [p.name for p in home.path.iterdir()] == ["token"]


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
