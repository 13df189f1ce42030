"""What a JSON body may be, checked before anything is made of it."""

from __future__ import annotations

import json
import re
from typing import Any

from kaos_backend.errors import BodyTooLarge, InvalidRequest
from kaos_backend.settings import Limits

_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")


def check_json(raw: bytes, limits: Limits) -> None:
    """Passes what any part of the program can take: UTF-8, whole characters, bounded in depth and number.

    Raises BodyTooLarge, InvalidRequest.
    """
    brackets = raw.count(b"[") + raw.count(b"{")
    # Counts those within strings, too, which parse to less than they seem to.
    if brackets + raw.count(b",") > limits.body_values:
        raise BodyTooLarge(f"the body has more than {limits.body_values} values")
    try:
        value = json.loads(raw.decode("utf-8"))
        if brackets > limits.body_depth:
            _check_depth(value, limits.body_depth)
        if _SURROGATE.search(raw):
            json.dumps(value, ensure_ascii=False).encode("utf-8")
    except RecursionError:
        raise _too_deep(limits.body_depth) from None
    except UnicodeEncodeError as error:
        raise InvalidRequest(
            f"the body has half a character: \\u{ord(error.object[error.start]):04x}",
            hint="escape characters beyond \\uffff by a pair of surrogates, or send them as UTF-8",
        ) from None
    except ValueError as error:
        # Also for numbers of more digits than Python converts, and bytes that are no UTF-8.
        raise InvalidRequest(f"the body is not JSON: {error}") from None


def _check_depth(value: Any, depth: int) -> None:
    level = [value]
    for _ in range(depth + 1):
        level = [
            below
            for one in level
            if isinstance(one, dict | list)
            for below in (one.values() if isinstance(one, dict) else one)
        ]
        if not level:
            return
    raise _too_deep(depth)


def _too_deep(depth: int) -> InvalidRequest:
    return InvalidRequest(f"the body is nested more than {depth} levels deep")
