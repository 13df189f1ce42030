"""Is there room for what a deploy would send? Asked before a byte of it is."""

from __future__ import annotations

from collections.abc import Callable

from kaos_cli import text
from kaos_cli.bundle import Bundle
from kaos_cli.client import KaosClient
from kaos_cli.errors import KaosError

_AT_A_TIME = 20_000


def refuse_what_cannot_fit(
    client: KaosClient, kind: str, size_bytes: int, bundle: Callable[[], Bundle]
) -> None:
    """Raise KaosError (disk_full) for a bundle of which more is new than the disk has room for.

    ``bundle`` is asked for only where not even all of its ``size_bytes`` would fit: then it counts what of it
    is stored already, under whatever name. Elsewhere than on the embedded engine nobody knows of disks.
    """
    try:
        free = client.room(size_bytes)["free_bytes"]
        if size_bytes <= free:
            return
        contents = list({entry.hash: entry.file.size for entry in bundle().entries}.items())
        parts = (dict(contents[at : at + _AT_A_TIME]) for at in range(0, len(contents), _AT_A_TIME))
        new = sum(client.room(0, part)["missing_bytes"] for part in parts)
    except KaosError as error:
        if error.code == "needs_embedded_engine":
            return
        raise
    if new > free:
        raise KaosError(
            "disk_full",
            f"{text.size(new)} of the {kind} are not stored yet, and the disk of KAOS_HOME has"
            f" {text.size(free)} free: nothing was sent",
            hint="free some space there, or move KAOS_HOME to a larger disk",
            needed_bytes=new,
            free_bytes=free,
        )
