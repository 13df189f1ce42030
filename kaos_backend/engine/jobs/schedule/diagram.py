"""The diagrams of docs/jobs.md, drawn from the tables of moves; `make docs` runs this module on the page."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kaos_backend.engine.jobs.schedule.states import DATUM_MOVES, JOB_MOVES, PIPELINE_MOVES

_MACHINES: Mapping[str, Mapping[Any, frozenset[Any]]] = {
    "job": JOB_MOVES,
    "datum": DATUM_MOVES,
    "pipeline": PIPELINE_MOVES,
}


def draw(moves: Mapping[Any, frozenset[Any]]) -> str:
    """A state machine as a Mermaid diagram: one arrow for each legal move, in the order of the protocol."""
    arrows = [f"    {old.name} --> {new.name}" for old in sorted(moves) for new in sorted(moves[old])]
    ends = [f"    {old.name} --> [*]" for old in sorted(moves) if not moves[old]]
    first = f"    [*] --> {min(moves).name}"
    return "\n".join(["```mermaid", "stateDiagram-v2", first, *arrows, *ends, "```"])


def redraw(text: str) -> str:
    """`text` with every diagram between its marks made anew."""
    for name, moves in _MACHINES.items():
        begin, end = f"<!-- moves of a {name} -->", f"<!-- end of the moves of a {name} -->"
        block = f"{begin}\n{draw(moves)}\n{end}"
        text = re.sub(f"{re.escape(begin)}.*?{re.escape(end)}", block, text, flags=re.DOTALL)
    return text


if __name__ == "__main__":
    page = Path(sys.argv[1])
    page.write_text(redraw(page.read_text()))
