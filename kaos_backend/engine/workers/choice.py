"""Which runtime and builder this machine uses: the one place that knows the adapters."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TypeVar

from kaos_backend.engine.errors import InvalidArgument
from kaos_backend.engine.workers.pair import Pair
from kaos_backend.engine.workers.process.builder import VenvBuilder
from kaos_backend.engine.workers.process.runtime import ProcessRuntime

_T = TypeVar("_T")


def choose(env: Mapping[str, str], engine_dir: Path, home: Path) -> Pair:
    """The workers that `env` asks for; `home` (KAOS_HOME) stays out of every sandbox.

    KAOS_RUNTIME: `process`, the default. For processes KAOS_ENGINE_ISOLATION: `auto` (default), `none`, or
    `bubblewrap` (do not start without it); KAOS_ENGINE_LIMITS: `auto` (default), `sampling`, or `cgroup` (do
    not start without them).

    Raises:
        InvalidArgument: naming the variable that makes no sense.
        Unknown: what was asked for does not work here.
    """
    kinds = {"process": _process}
    return _of(env, "KAOS_RUNTIME", "process", kinds)(env, engine_dir, home)


def _process(env: Mapping[str, str], engine_dir: Path, home: Path) -> Pair:
    isolate = _of(env, "KAOS_ENGINE_ISOLATION", "auto", {"auto": None, "none": False, "bubblewrap": True})
    control = _of(env, "KAOS_ENGINE_LIMITS", "auto", {"auto": None, "sampling": False, "cgroup": True})
    runtime = ProcessRuntime(engine_dir, home=home, isolate=isolate, control=control)
    return Pair(runtime, VenvBuilder(engine_dir))


def _of(env: Mapping[str, str], name: str, default: str, choices: Mapping[str, _T]) -> _T:
    text = env.get(name) or default
    if text not in choices:
        raise InvalidArgument(f"{name} is {text!r}: must be one of {', '.join(choices)}")
    return choices[text]
