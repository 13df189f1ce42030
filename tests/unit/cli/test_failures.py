"""What is told of trials that failed: their last words, once for each kind."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from kaos_cli.failures import MAX_WIDTH, last_words
from tests.unit.cli.conftest import Cli
from tests.unit.cli.fake import FakeBackend, job, trial

PROGRAMS = {
    "import nothing_like_it": ["ModuleNotFoundError: No module named 'nothing_like_it'  (train, line 1)"],
    "import sys\nprint('epoch 1', flush=True)\nsys.exit('the data has no labels')": [
        "epoch 1",
        "the data has no labels",
    ],
    # What the user wrote, not the library that raised it.
    "import json\ndef load():\n    return json.loads('x')\nload()": [
        "json.decoder.JSONDecodeError: Expecting value: line 1 column 1 (char 0)  (train, line 3)"
    ],
    # Of a chain the last: that is what ended it.
    "try:\n    1 / 0\nexcept ZeroDivisionError as e:\n    raise ValueError('no trials\\nat all') from e": [
        "ValueError: no trials  (train, line 4)"
    ],
    "def f(): f()\nf()": ["RecursionError: maximum recursion depth exceeded  (train, line 1)"],
    "x = = 2": ["    x = = 2", "        ^", "SyntaxError: invalid syntax"],
    "import os\nos._exit(3)": [],
    "print('\\n'.join(map(str, range(9))))\nprint('  ')\nexit(2)": ["6", "7", "8"],
}  # fmt: skip


@pytest.mark.parametrize("program", PROGRAMS)
def test_last_words_of_real_programs(tmp_path: Path, program: str) -> None:
    train = tmp_path / "train"
    train.write_text(program)
    with (tmp_path / "log").open("w") as log:
        subprocess.run([sys.executable, train], stdout=log, stderr=log, check=False)
    assert last_words((tmp_path / "log").read_text().splitlines()) == PROGRAMS[program]


def test_a_long_line_is_cut() -> None:
    assert last_words(["x" * 10_000]) == ["x" * (MAX_WIDTH - 1) + "…"]


def said(*texts: str) -> list[dict[str, object]]:
    line: dict[str, object] = {"stage": "train", "trial": 0, "model": "m", "ts": "2020"}
    own = [{**line, "user": True, "text": text} for text in texts]
    system = {**line, "user": False, "text": "datum failed: exit code 1"}
    return [*own, system, {"end": True, "state": "failed", "reason": ""}]


def test_many_that_fail_alike_are_told_once(cli: Cli, backend: FakeBackend) -> None:
    backend.jobs["default"] = [job("failed", [trial(n, "failed", None, lr=n) for n in range(4)])]
    backend.log_lines = said("no GPU\x1b[2J")
    done = cli("train", "info")
    assert done.out.endswith("trials 0, 1, 2, 3 failed: exit code 1\n    no GPU\\x1b[2J\n")
    assert done.err == "  → kaos train logs 4f1c0de2 --trial 0 shows all of it\n"


def test_a_reason_that_tells_all_needs_no_log(cli: Cli, backend: FakeBackend) -> None:
    failed = trial(0, "failed", None) | {"reason": "out of memory: used 5G of 4G"}
    backend.jobs["default"] = [job("failed", [failed])]
    assert cli("train", "info").out.endswith("trial 0 failed: out of memory: used 5G of 4G\n")
    assert not any(request.endswith("/logs") for request in backend.requests)


def test_few_logs_are_read_however_many_failed(cli: Cli, backend: FakeBackend) -> None:
    backend.jobs["default"] = [job("failed", [trial(n, "failed", None, lr=n) for n in range(90)])]
    backend.log_lines = said("no GPU")
    out = cli("train", "info").out
    assert "trials 0, 1, 2, 3, 4 failed: exit code 1\n    no GPU\n" in out
    assert "trials 5, 6, 7, 8, 9, 10, … (85 in all) failed: exit code 1\n" in out
    assert sum(request.endswith("/logs") for request in backend.requests) == 5
