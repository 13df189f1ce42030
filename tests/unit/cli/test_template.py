from __future__ import annotations

from pathlib import Path

import pytest

from kaos_cli import templates
from tests.unit.cli.conftest import Cli


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def test_list_needs_no_backend(cli: Cli, tmp_path: Path) -> None:
    done = cli("template", "list")
    assert done.out.startswith("name ")
    assert "mnist" in done.out
    assert max(map(len, done.out.splitlines())) <= 80
    assert cli("template", "list", "--json").json["templates"][0].keys() == {"name", "title", "description"}
    assert not (tmp_path / "home").exists()


def test_get_copies_and_says_what_to_type(cli: Cli, tmp_path: Path) -> None:
    out = tmp_path / "digits"
    done = cli("template", "get", "--name", "mnist", "--out", out)
    assert done.code == 0, done.err
    assert f"-s {out}/model-train -d {out}/data -h {out}/hyperopt/params.json --wait" in done.err
    train = out / "model-train/mnist/model/train"
    assert train.stat().st_mode & 0o111
    original = templates.folder() / "mnist"
    assert files(out) == {
        path: content
        for path, content in files(original).items()
        if path != templates.MANIFEST and "__pycache__" not in path
    }


def test_get_again_keeps_what_was_changed(cli: Cli, tmp_path: Path) -> None:
    out = tmp_path / "m"
    cli("template", "get", "mnist", "--out", out)
    params = out / "hyperopt/params.json"
    original = params.read_bytes()
    assert cli("template", "get", "mnist", "--out", out).code == 0
    params.write_text("mine")
    done = cli("template", "get", "mnist", "--out", out)
    assert done.code == 2
    assert "hyperopt/params.json" in done.err
    assert params.read_text() == "mine"
    assert cli("template", "get", "mnist", "--out", out, "--force").code == 0
    assert params.read_bytes() == original


def test_get_goes_beside_you_by_default(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert cli("template", "get", "mnist", "--json").json["out"] == str(tmp_path / "mnist")


@pytest.mark.parametrize(
    ("arguments", "told", "exits"),
    [(["--name", "mnits"], "did you mean 'mnist'", 3), (["zzz"], "mnist", 3), ([], "which template", 2)],
)
def test_unknown_template(cli: Cli, arguments: list[str], told: str, exits: int) -> None:
    done = cli("template", "get", *arguments)
    assert done.code == exits
    assert told in done.err
