from __future__ import annotations

import pytest

from kaos_cli.errors import KaosError
from kaos_cli.render import Column, Table, as_format, as_text, show
from kaos_cli.terminal import Terminal, detect

TABLE = Table(
    [Column("#", right=True), Column("name"), Column("note", drop=1)],
    [["0", "a", "x" * 30], ["10", "bb", ""]],
)


def test_plain_text_is_aligned_without_trailing_blanks() -> None:
    assert as_text(TABLE) == (
        " #  name  note\n"
        " 0  a     xxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\n"
        "10  bb"
    )  # fmt: skip


def test_columns_that_do_not_fit_go_and_are_named() -> None:
    fitted = TABLE.fitted(30)
    assert [column.name for column in fitted.columns] == ["#", "name"]
    assert fitted.hidden == ("note",)
    assert TABLE.fitted(80) is TABLE


def test_highest_drop_goes_first_and_then_the_rightmost() -> None:
    columns = [Column("a" * 10), Column("b" * 10, drop=1), Column("c" * 10, drop=2), Column("d" * 10, drop=2)]
    table = Table(columns, [])
    assert table.fitted(34).hidden == ("d" * 10,)
    assert table.fitted(22).hidden == ("c" * 10, "d" * 10)
    assert table.fitted(5).hidden == ("b" * 10, "c" * 10, "d" * 10)


def test_a_column_that_shrinks_is_cut() -> None:
    table = Table([Column("name"), Column("description", shrink=True)], [["a", "word " * 20]])
    assert as_text(table.fitted(30)).splitlines()[1] == "a     word word word word wor…"


def test_formats_of_tabulate() -> None:
    assert as_format(TABLE, "tsv").splitlines()[1].split("\t")[1].strip() == "a"
    assert as_format(TABLE, "github").startswith("|   # | name   |")
    assert as_format(Table(TABLE.columns, []), "github")


def test_numbers_are_left_as_they_are() -> None:
    """tabulate would turn an id such as 1e5 into a number."""
    assert "1e5" in as_format(Table([Column("id")], [["1e5"]]), "plain")


def test_unknown_format_suggests_one() -> None:
    with pytest.raises(KaosError, match="gitub") as caught:
        as_format(TABLE, "gitub")
    assert "github" in caught.value.hint


@pytest.mark.parametrize(
    ("env", "rich", "colour"),
    [
        ({}, False, False),
        ({"FORCE_COLOR": "1"}, True, True),
        ({"FORCE_COLOR": "1", "NO_COLOR": "1"}, False, False),
        ({"FORCE_COLOR": "1", "TERM": "dumb"}, False, False),
        ({"FORCE_COLOR": "0"}, False, False),
    ],
)
def test_colour_on_a_pipe(env: dict[str, str], rich: bool, colour: bool) -> None:
    terminal = detect(env, quiet=False, as_json=False)
    assert (terminal.rich, terminal.colour) == (rich, colour)


def test_rich_tables_show_brackets_and_fit(capfd: pytest.CaptureFixture[str]) -> None:
    terminal = Terminal(rich=True, bars=False, colour=False, width=60)
    table = Table([Column("name"), Column("state", state=True)], [["[red]x[/red]", "failed"]])
    show(table, terminal)
    out = capfd.readouterr().out
    assert "[red]x[/red]" in out
    assert max(map(len, out.splitlines())) <= 60
    assert "\x1b[31m" not in out
    show(table, Terminal(rich=True, bars=False, colour=True, width=60))
    assert "\x1b[31m" in capfd.readouterr().out


def test_rich_cuts_nothing_that_fits_to_the_character(capfd: pytest.CaptureFixture[str]) -> None:
    table = Table([Column("a"), Column("b", right=True), Column("c")], [["x" * 10, "y" * 20, "z" * 26]])
    assert table.fitted(60) is table
    show(table, Terminal(rich=True, bars=False, colour=False, width=60))
    assert capfd.readouterr().out.splitlines()[-1].rstrip() == "  ".join(["x" * 10, "y" * 20, "z" * 26])
