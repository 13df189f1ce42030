"""Carries out a plan with a real shell, in as many attempts as it takes to find its environment.

What pip and its like are asked for decides the environment, and that only the RUNs themselves tell, one call
after the other (`shell`). So a Dockerfile is carried out in the environment that it took last time, as long
as it asks for the same, and else from the start again: in another that is there, or in a new one.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from contextlib import ExitStack, nullcontext
from pathlib import Path

from kaos_formats.folders import clean_up
from kaos_pipelines.build.context import Context
from kaos_pipelines.build.executor import Say, check_train, execute
from kaos_pipelines.build.layers import Layers, Lost
from kaos_pipelines.build.plan import Plan
from kaos_pipelines.build.pythons import Python
from kaos_pipelines.build.sandbox import Sandbox
from kaos_pipelines.build.shell import Given, Other, Steps
from kaos_pipelines.build.venvs import Recipe, VenvStore

MAX_REPEATED = 100_000
"""As many lines of an attempt are recognised in the next one."""


def carry_out(
    plan: Plan,
    context: Context,
    python: Python,
    venvs: VenvStore,
    folder: Path,
    sandbox: Sandbox,
    say: Say,
    asked: str,
    layers: Layers | None = None,
) -> tuple[Path, str]:
    """The image's files, made in `folder`, and the key of its environment. Raises BuildError.

    `asked`: what the plan was made from. The environment that it took last time is what it begins with.
    `layers`: what its RUNs made before.
    """
    log = _Log(say)
    last: Recipe

    def attempt(given: Given, find: Callable[[str], bool] = lambda _: False) -> Path:
        try:
            return attempt_with(layers, given, find)
        except Lost as lost:
            say(f" ---> {lost}: from the start, without any")
            return attempt_with(None, given, find)

    def attempt_with(layers: Layers | None, given: Given, find: Callable[[str], bool]) -> Path:
        nonlocal last
        log.again(str(given.path))
        root = folder / "root"
        clean_up(root)
        root.mkdir()
        with tempfile.TemporaryDirectory(dir=folder, prefix="run-") as scratch:
            steps = Steps(python, given, find, context, sandbox, Path(scratch), log, layers)
            execute(plan, context, root, steps, log)
        check_train(plan, root)
        last = steps.recipe
        return root

    def make(wanted: str) -> tuple[Path, str]:
        """In a new environment. `wanted`: the key of a step that there is none with, and which it is the
        caller's turn to make; "" where nothing is known yet.
        """
        with ExitStack() as turns, venvs.making(python) as path:

            def find(key: str) -> bool:
                if wanted:
                    return False
                turns.enter_context(venvs.turn(key, say))
                return venvs.find(key, exact=False) is not None

            root = attempt(Given(path, None), find)
            held = wanted or next(iter(last.keys), "")
            return root, venvs.adopt(path, last, root, held)

    found = venvs.last_for(asked)
    wanted, exact = "", False
    while True:
        try:
            if found is None:
                with venvs.turn(wanted, say) if wanted else nullcontext():
                    found = venvs.find(wanted, exact=exact) if wanted else None
                    if found is None:
                        root, key = make(wanted)
                        venvs.remember(asked, key)
                        return root, key
            root = attempt(Given(venvs.path(found[-1]), found))
        except Other as other:
            wanted, exact = other.key, False
        else:
            if last.key == found[-1]:
                venvs.remember(asked, last.key)
                return root, last.key
            wanted, exact = last.key, True
        found = None


class _Log:
    """Says nothing twice: an attempt that repeats what the last one said is silent up to where it differs."""

    def __init__(self, say: Say) -> None:
        self._say = say
        self._said: list[int] = []
        self._at = 0
        self._own = ""

    def again(self, own: str) -> None:
        """Another attempt begins, which may also name its `own` environment."""
        self._at, self._own = 0, own

    def __call__(self, line: str) -> None:
        same = hash(line.replace(self._own, ""))
        if self._said[self._at : self._at + 1] == [same]:
            self._at += 1
            return
        del self._said[self._at :]
        if self._at < MAX_REPEATED:
            self._said.append(same)
            self._at += 1
        self._say(line)
