from __future__ import annotations

from pathlib import Path

import pytest

from kaos_cli import inputs
from kaos_cli.errors import USAGE, KaosError


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "is empty"),
        ("  \n", "is empty"),
        ("{", "line 1, column 2"),
        ('{\n"x": [1,]}', "line 2"),
        ("[1]", "object"),
        ("3", "object"),
        ("{}", "empty object"),
        ('{"x": []}', "the axis 'x' has no points"),
        ('{"x": [[1]]}', "point 0 of 'x' is a list"),
        ('{"x": [1, {"a": 1}]}', "point 1 of 'x' is an object"),
        ('{"x": {"a": 1}}', "'x' is an object"),
        ('{"x": [1, 1]}', "1 twice"),
        ('{"x": 1, "x": 2}', "'x' twice"),
        ('{"x": NaN}', "NaN"),
        ('{"x": 1e999}', "finite"),
        ("[" * 100_000, "too deep"),
        (
            '{"x": ' + str(list(range(400))) + ', "y": ' + str(list(range(400))) + "}",
            "100,000 trials",
        ),
        ("\xff", "UTF-8"),
    ],
)
def test_wrong_grids_are_told_with_their_file(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "grid.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(KaosError) as caught:
        inputs.read_grid(path)
    assert told in caught.value.message
    assert str(path) in caught.value.message
    assert caught.value.exit_code == USAGE


def test_missing_file_and_folder_are_told(tmp_path: Path) -> None:
    for path in (tmp_path / "nowhere.json", tmp_path):
        with pytest.raises(KaosError, match="cannot be read"):
            inputs.read_grid(path)


def test_good_grid_comes_back_as_written(tmp_path: Path) -> None:
    (tmp_path / "g.json").write_text('{"lr": [0.1, 0.01], "name": "ä", "flag": [true, false], "none": null}')
    assert inputs.read_grid(tmp_path / "g.json") == {
        "lr": [0.1, 0.01], "name": "ä", "flag": [True, False], "none": None
    }  # fmt: skip


def test_true_and_one_are_two_points(tmp_path: Path) -> None:
    (tmp_path / "g.json").write_text('{"x": [1, true, 1.0, "1"]}')
    assert len(inputs.read_grid(tmp_path / "g.json")["x"]) == 4


@pytest.mark.parametrize("memory", ["lots", "", "4 G", "-1", "4GB", "0", "0.0Gi", "G", "9" * 5000])
def test_what_is_no_quantity(memory: str) -> None:
    with pytest.raises(KaosError, match="memory"):
        inputs.check_resources(None, None, memory, None, None)


@pytest.mark.parametrize("memory", ["1", "512Mi", "1.5Gi", "4G", "1e9", "500m", "100k", ".5G"])
def test_quantities(memory: str) -> None:
    inputs.check_resources(1, 0.5, memory, 0, 1)


@pytest.mark.parametrize(
    "amounts",
    [
        (0, None, None, None),
        (None, 0.0, None, None),
        (None, float("nan"), None, None),
        (None, float("inf"), None, None),
        (None, None, -1, None),
        (None, None, None, 0),
    ],
)
def test_amounts_that_no_machine_has(
    amounts: tuple[int | None, float | None, int | None, int | None],
) -> None:
    parallelism, cpu, gpu, tries = amounts
    with pytest.raises(KaosError) as caught:
        inputs.check_resources(parallelism, cpu, None, gpu, tries)
    assert caught.value.code == "invalid_resources"


def test_settings_of_a_run() -> None:
    given = ["lr=0.1", "name=a=b", "on=true", 'text="1"', "none=NaN"]
    assert inputs.parse_settings(given) == {"lr": 0.1, "name": "a=b", "on": True, "text": "1", "none": "NaN"}


@pytest.mark.parametrize(
    "wrong",
    [["lr"], ["=1"], ["a=1", "a=2"], ["a=1e999"], ['a={"b": 1}'], ["a=" + "[" * 50_000], ["a=\udcff"]],
)
def test_what_is_no_setting(wrong: list[str]) -> None:
    with pytest.raises(KaosError) as caught:
        inputs.parse_settings(wrong)
    assert caught.value.exit_code == USAGE
