"""The parity suite knows a server by its protocol only, or it could not judge another one."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

SUITE = Path(__file__).parents[2] / "parity"
# betterproto is what the classes of pachyderm-sdk are made of.
ALLOWED = {*sys.stdlib_module_names, "betterproto", "grpc", "pachyderm_sdk", "pytest"}


@pytest.mark.parametrize("path", sorted(SUITE.glob("*.py")), ids=lambda path: path.name)
def test_the_suite_imports_nothing_of_the_program(path: Path) -> None:
    imported = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            imported |= {name.name for name in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add(node.module or ".")
    others = {name for name in imported if name.partition(".")[0] not in ALLOWED}
    assert others <= {"tests.parity.pachd"}
