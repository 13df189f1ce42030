"""The message classes of pachyderm-sdk, whose first use is slow."""

from __future__ import annotations

from functools import cache
from typing import Any

import betterproto


def remember_types() -> None:
    """Have each message class find out the types of its fields once. Idempotent.

    betterproto evaluates the annotations of all fields anew for each of them when a class is first used, and
    again whenever a message becomes a dictionary: 10 ms for a class of forty fields.
    """
    message: Any = betterproto.Message
    of_class = message._type_hints.__func__
    if not hasattr(of_class, "cache_info"):
        remembered: Any = cache(of_class)
        message._type_hints = classmethod(remembered)
