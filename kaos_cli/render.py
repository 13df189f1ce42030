"""Tables: values in, text out. The only user of rich's and tabulate's tables, imported when needed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from kaos_cli.errors import KaosError
from kaos_cli.terminal import Terminal

STATE_STYLES = {
    "success": "green",
    "skipped": "green",
    "partial": "yellow",
    "running": "cyan",
    "waiting": "dim",
    "failed": "red",
    "unrunnable": "red",
    "killed": "magenta",
}
GAP = 2
SHRUNK = 12
"""The least that a column which shrinks keeps, in characters."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column: ``right`` for numbers; columns of the highest ``drop`` go first when the terminal is narrow
    (0 never goes); ``state``: cells are coloured by what they say; ``shrink``: cut to the room left."""

    name: str
    right: bool = False
    drop: int = 0
    state: bool = False
    shrink: bool = False


@dataclass(frozen=True, slots=True)
class Table:
    columns: Sequence[Column]
    rows: Sequence[Sequence[str]]
    title: str = ""
    hidden: tuple[str, ...] = field(default=())

    def fitted(self, width: int) -> Table:
        """The same table within ``width`` characters; ``hidden`` names the columns that had no room."""
        keep = list(range(len(self.columns)))
        widths = self.widths()
        while sum(widths[i] for i in keep) + GAP * (len(keep) - 1) > width:
            candidates = [i for i in keep if self.columns[i].drop]
            if not candidates:
                break
            # Of equally dispensable ones the rightmost.
            keep.remove(max(candidates, key=lambda i: (self.columns[i].drop, i)))
        over = sum(widths[i] for i in keep) + GAP * (len(keep) - 1) - width
        room = {i: max(SHRUNK, widths[i] - over) for i in keep if over > 0 and self.columns[i].shrink}
        if len(keep) == len(self.columns) and not room:
            return self
        return Table(
            [self.columns[i] for i in keep],
            [[_cut(row[i], room.get(i)) for i in keep] for row in self.rows],
            self.title,
            tuple(c.name for i, c in enumerate(self.columns) if i not in keep),
        )

    def widths(self) -> list[int]:
        cells = [[c.name for c in self.columns], *self.rows]
        return [max(len(row[i]) for row in cells) for i in range(len(self.columns))]


def _cut(cell: str, width: int | None) -> str:
    return cell if width is None or len(cell) <= width else cell[: width - 1].rstrip() + "…"


def show(table: Table, terminal: Terminal, fmt: str | None = None, all_columns: bool = False) -> None:
    """Print ``table`` on stdout: in a tabulate format when one was asked for, else for whoever reads."""
    if fmt is not None:
        print(as_format(table, fmt))
        return
    fitted = table if all_columns else table.fitted(terminal.width)
    if terminal.rich:
        _print_rich(fitted, terminal)
    else:
        print(as_text(fitted))
    if fitted.hidden:
        terminal.say(f"not shown for want of room: {', '.join(fitted.hidden)} (--all shows them)")


def as_text(table: Table) -> str:
    """Aligned columns, two blanks apart. Our own, as importing tabulate costs more than a whole redeploy."""
    widths = table.widths()
    lines = []
    for row in [[c.name for c in table.columns], *table.rows]:
        cells = [
            cell.rjust(width) if column.right else cell.ljust(width)
            for cell, width, column in zip(row, widths, table.columns, strict=True)
        ]
        lines.append((" " * GAP).join(cells).rstrip())
    return "\n".join(([table.title] if table.title else []) + lines)


def as_format(table: Table, fmt: str) -> str:
    """The whole table in one of tabulate's formats; raises KaosError for one it does not know."""
    import tabulate

    if fmt not in tabulate.tabulate_formats:
        from kaos_cli.errors import did_you_mean

        raise KaosError(
            "usage", f"{fmt!r} is no table format", hint=did_you_mean(fmt, tabulate.tabulate_formats)
        )
    return tabulate.tabulate(
        [list(row) for row in table.rows],
        headers=[c.name for c in table.columns],
        tablefmt=fmt,
        disable_numparse=True,
        colalign=[("right" if c.right else "left") for c in table.columns] if table.rows else None,
    )


def _print_rich(table: Table, terminal: Terminal) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.console import Console
    from rich.table import Table as RichTable
    from rich.text import Text

    # Two blanks between columns and none around, which is what `fitted` reckons with.
    rich_table = RichTable(
        box=SIMPLE_HEAD,
        title=Text(table.title) if table.title else None,
        title_justify="left",
        show_edge=False,
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )
    for column in table.columns:
        rich_table.add_column(
            Text(column.name), justify="right" if column.right else "left", no_wrap=not _is_long(column)
        )
    for row in table.rows:
        # Text and not str: a cell is never markup, whatever a parameter's value looks like.
        cells = [
            Text(cell, style=STATE_STYLES.get(cell.split(" ")[0], "") if column.state else "")
            for cell, column in zip(row, table.columns, strict=True)
        ]
        rich_table.add_row(*cells)
    console = Console(
        width=terminal.width, force_terminal=True, no_color=not terminal.colour, highlight=False
    )
    console.print(rich_table)


def _is_long(column: Column) -> bool:
    return column.name in ("reason", "description", "values")
