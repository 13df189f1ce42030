"""The variables that name a network's proxies: in capitals or not, as programs read either."""

from __future__ import annotations

import re
from collections.abc import Mapping

PATTERN = r"(?i:(?:https?|ftp|no|all)_proxy)"
_NAME = re.compile(PATTERN)


def is_proxy(name: str) -> bool:
    """Whether a variable of this name is one of them."""
    return _NAME.fullmatch(name) is not None


def proxies_of(env: Mapping[str, str]) -> dict[str, str]:
    """Those that are set in ``env``."""
    return {name: value for name, value in env.items() if is_proxy(name)}
