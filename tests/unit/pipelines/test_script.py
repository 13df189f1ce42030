"""Conditions in a RUN, without a shell: what is carried out, and what the same says in sh."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from kaos_pipelines.build.context import Context
from kaos_pipelines.build.dockerfile import parse
from kaos_pipelines.build.errors import BuildError
from kaos_pipelines.build.executor import execute
from kaos_pipelines.build.plan import compile_plan

SET_UP = "mkdir d && echo text > file && touch empty && ln -s file link && ln -s nowhere broken"


def carried_out(tmp_path: Path, script: str) -> tuple[bool, str, list[str]]:
    """(whether the build went on, what is in /app/out, the log) of a RUN in a folder with a few files."""
    root = tmp_path / "root"
    root.mkdir()
    plan = compile_plan(parse(f"FROM python\nENV SET=yes\nWORKDIR /app\nRUN {SET_UP}\nRUN {script}\n"))
    log: list[str] = []
    pips: list[str] = []
    try:
        execute(plan, Context([]), root, lambda command, _: pips.append(command.text), log.append)
    except BuildError as error:
        return False, "", [*log, str(error)]
    out = root / "app" / "out"
    return True, (out.read_text() if out.exists() else "") + "".join(pips), log


def in_a_shell(tmp_path: Path, script: str) -> tuple[bool, str]:
    app = tmp_path / "app"
    app.mkdir()
    done = subprocess.run(
        ["sh", "-c", f"{SET_UP} && {{\n{script}\n}}"], cwd=app, env={"SET": "yes", "PATH": "/bin"}
    )
    out = app / "out"
    return done.returncode == 0, out.read_text() if out.exists() else ""


@pytest.mark.parametrize(
    "script",
    [
        "if [ -f file ]; then echo a > out; fi",
        "if [ -f nothing ] ; then echo a > out ; else echo b > out ; fi",
        "if [ -d file ]; then echo a > out; elif [ -d d ]; then echo b > out; else echo c > out; fi",
        "if [ ! -e nothing ] && [ -s file ]; then echo a > out; echo b >> out; fi",
        "if ! [ -s empty ]; then echo a > out; fi; echo z >> out",
        "if [ -f file ]; then if [ -f link ]; then echo both > out; fi; fi",
        'if [ "$SET" = yes ]; then echo a > out; fi',
        'if [ "$SET" != yes ]; then echo a > out; fi',
        'if [ -z "$UNSET" ] && [ -n "$SET" ]; then echo a > out; fi',
        "if [ -n $UNSET ]; then echo a > out; fi",
        "if test -x file; then echo a > out; fi",
        "if [ -L link ] && [ ! -e broken ]; then echo a > out; fi",
        "[ -f file ] && echo a > out",
        "[ -f nothing ] && echo a > out",
        "[ -f nothing ] && echo a > out; echo b > out",
        "[ -f nothing ] || echo a > out",
        "[ -f file ] || echo a > out",
        "[ -f file ] && echo a > out || echo b > out",
        "[ -f nothing ] && echo a > out || echo b > out",
        "mkdir more && [ -d more ] && echo a > out",
        "rm nothing || true; echo a > out",
        "rmdir file 2>/dev/null || :",
        "[ -f file ]",
        "[ -f nothing ]",
        "if [ -f file ]\nthen\n  echo a > out\nfi",
    ],
)
def test_it_does_what_a_shell_does(tmp_path: Path, script: str) -> None:
    expected = in_a_shell(tmp_path, script)
    went_on, out, log = carried_out(tmp_path, script.replace("\n", " ; ").replace("then ;", "then"))
    assert (went_on, out) == (expected[0], expected[1] if expected[0] else ""), log


def test_the_line_of_the_original_bundles(tmp_path: Path) -> None:
    script = "if [ -f {} ] ; then pip3 install -r {}; fi"
    assert carried_out(tmp_path, script.format("file", "file"))[1] == "pip install -r file"
    (tmp_path / "again").mkdir()
    went_on, out, log = carried_out(tmp_path / "again", script.format("requirements.txt", "requirements.txt"))
    assert (went_on, out) == (True, "")
    assert log[-1] == " ---> [ -f requirements.txt ]: no"


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("if [ -f file ]; then echo a", "an if goes on without"),
        ("if [ -f file; then echo a; fi", "[ is never closed"),
        ("if grep -q x file; then echo a; fi", "takes tests such as [ -f file ]"),
        ("if [ -f file ]; then cd d; fi", "cd in a branch"),
        ("if [ 1 -lt 2 ]; then echo a; fi", "takes a real shell"),
        ("[ -f file ] || [ -f d ]", "takes a real shell"),
        ("pip install tiny || true", "takes a real shell"),
        ("rm file || echo a > out", "takes a real shell"),
        ("! rm file", "! takes a test"),
        ("fi", "fi cannot be carried out"),
        ("&& echo a", "a command is missing"),
    ],
)
def test_what_takes_a_shell_is_refused_with_its_line(tmp_path: Path, script: str, reason: str) -> None:
    with pytest.raises(BuildError) as error:
        carried_out(tmp_path, script)
    assert str(error.value).startswith("Dockerfile:5: RUN ")
    assert reason in str(error.value)
