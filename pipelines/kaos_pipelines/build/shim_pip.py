"""Stands where a RUN looks for the package `pip` first: `python -m pip` is carried out by the builder too.

In any other environment than the builder's (one that the Dockerfile made) it is that environment's own pip.
"""

from __future__ import annotations

import os
import sys
from importlib.machinery import PathFinder

_HERE = os.path.dirname(os.path.dirname(__file__))  # noqa: PTH120
if sys.prefix != os.environ.get("KAOS_VENV"):
    _own = PathFinder.find_spec("pip", [place for place in sys.path if place != _HERE])
    if _own is not None and _own.submodule_search_locations:
        __path__ = list(_own.submodule_search_locations)
        if _own.origin:
            with open(_own.origin, encoding="utf-8") as _source:  # noqa: PTH123
                exec(compile(_source.read(), _own.origin, "exec"))  # noqa: S102
