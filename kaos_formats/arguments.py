"""Build arguments (`docker build --build-arg`): what may be one, and how specs and image names tell them."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping

from kaos_formats.errors import InvalidResources
from kaos_formats.utf8 import is_utf8

VARIABLE = "KAOS_BUILD_ARGS"
"""A variable in the spec of `build`: the arguments as JSON."""

MAX_TOTAL_BYTES = 64 << 10
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


def check_arguments(arguments: Mapping[str, str]) -> Mapping[str, str]:
    """``arguments`` themselves if a build can be given them; raises InvalidResources."""
    for name, value in arguments.items():
        if not _NAME.fullmatch(name):
            raise InvalidResources(
                f"{name!r} is no name of a build argument",
                hint="--build-arg NAME=VALUE, as an ARG of the Dockerfile is named",
                build_arg=name,
            )
        if "\0" in value or not is_utf8(value):
            raise InvalidResources(
                f"the value of build argument {name} is not UTF-8 text", hint="give text", build_arg=name
            )
    if len(format_arguments(arguments)) > MAX_TOTAL_BYTES:
        raise InvalidResources(
            f"the build arguments are longer than {MAX_TOTAL_BYTES >> 10} KiB",
            hint="put what is long into a file of the bundle",
        )
    return arguments


def format_arguments(arguments: Mapping[str, str]) -> str:
    """Build arguments as the value of VARIABLE: the same text for the same arguments; "" for none."""
    return json.dumps(dict(arguments), sort_keys=True, separators=(",", ":")) if arguments else ""


def parse_arguments(text: str) -> dict[str, str]:
    """The inverse of format_arguments. Raises ValueError."""
    found = json.loads(text or "{}")
    if not isinstance(found, dict) or not all(isinstance(value, str) for value in found.values()):
        raise ValueError("not a JSON object of strings")
    return found


def variant(arguments: Mapping[str, str]) -> str:
    """What tells the image made with these arguments from that without any; "" for none."""
    text = format_arguments(arguments)
    return hashlib.sha256(text.encode()).hexdigest()[:12] if text else ""
