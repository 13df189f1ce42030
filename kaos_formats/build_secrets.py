"""Build-time secrets (`docker build --secret`), and credentials of fetches: what may be one, and how their
values reach the build and the fetch.

They are one Pachyderm secret per workspace, whose keys are the ids; either's worker is given each as a
variable. Specs name them, and nothing but that secret has a value.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from kaos_formats.errors import InvalidResources
from kaos_formats.utf8 import is_utf8

MAX_TOTAL_BYTES = 64 << 10
_ID = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_PREFIX = "KAOS_BUILD_SECRET_"


def check_build_secrets(secrets: Mapping[str, str]) -> Mapping[str, str]:
    """``secrets`` themselves if a build can be given them; raises InvalidResources, which quotes no value."""
    for name, value in secrets.items():
        if not _ID.fullmatch(name):
            raise InvalidResources(
                f"{name!r} is no id of a build secret",
                hint="letters, digits, '_', '-' and '.', as in RUN --mount=type=secret,id=…",
                secret=name,
            )
        if "\0" in value or not is_utf8(value):
            raise InvalidResources(
                f"build secret {name} is not UTF-8 text", hint="encode what is binary, in base64 for example"
            )
    if sum(len(value.encode()) for value in secrets.values()) > MAX_TOTAL_BYTES:
        raise InvalidResources(f"the build secrets are larger than {MAX_TOTAL_BYTES >> 10} KiB together")
    return secrets


def secret_name(workspace: str) -> str:
    """The Pachyderm secret with the build secrets of a workspace."""
    return f"kaos-build-{hashlib.sha256(workspace.encode()).hexdigest()[:24]}"


def mounts(workspace: str, ids: Iterable[str]) -> list[dict[str, str]]:
    """What `transform.secrets` of the pipelines of builds and fetches says."""
    name = secret_name(workspace)
    return [{"name": name, "key": one, "envVar": variable(one)} for one in sorted(ids)]


def ids_of(spec: Mapping[str, Any] | None) -> tuple[str, ...]:
    """The ids in the spec of a pipeline of builds or fetches, or in the details of its job."""
    found: Sequence[Mapping[str, str]] = ((spec or {}).get("transform") or {}).get("secrets") or ()
    return tuple(str(one.get("key") or "") for one in found if (one.get("envVar") or "").startswith(_PREFIX))


def variable(id: str) -> str:
    """The variable in which either's program finds a secret; an id may be no name of one."""
    return _PREFIX + id.encode().hex()


def in_environment(env: Mapping[str, str]) -> dict[str, str]:
    """The secrets that either's program was given: their values by id."""
    found = {name.removeprefix(_PREFIX): value for name, value in env.items() if name.startswith(_PREFIX)}
    return {bytes.fromhex(name).decode(): value for name, value in sorted(found.items())}
