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

    KAOS_RUNTIME: `process`, the default. KAOS_ENGINE_ISOLATION, for processes: `auto` (default), `none`, or
    `bubblewrap` (do not start without it).

    Raises:
        InvalidArgument: naming the variable that makes no sense.
        Unknown: what was asked for does not work here.
    """
    kinds = {"process": _process}
    return _of(env, "KAOS_RUNTIME", "process", kinds)(env, engine_dir, home)


def _process(env: Mapping[str, str], engine_dir: Path, home: Path) -> Pair:
    isolate = _of(env, "KAOS_ENGINE_ISOLATION", "auto", {"auto": None, "none": False, "bubblewrap": True})
    return Pair(ProcessRuntime(engine_dir, home=home, isolate=isolate), VenvBuilder(engine_dir))


def _of(env: Mapping[str, str], name: str, default: str, choices: Mapping[str, _T]) -> _T:
    text = env.get(name) or default
    if text not in choices:
        raise InvalidArgument(f"{name} is {text!r}: must be one of {', '.join(choices)}")
    return choices[text]
