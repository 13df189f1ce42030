"""Files of secrets for processes: in memory (a tmpfs), as on Kubernetes, and gone with their worker."""

from __future__ import annotations

import hashlib
import logging
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

from kaos_backend.engine.errors import Unknown
from kaos_formats.folders import clean_up

log = logging.getLogger(__name__)

_SHM = Path("/dev/shm")  # noqa: S108 - a folder of our own in it, of mode 0700


class SecretFolders:
    """The folders of one home's workers. What an earlier life of the home left is removed when this is made.

    Args:
        owner: names the home.
    """

    def __init__(self, owner: Path, memory: Path = _SHM) -> None:
        name = hashlib.sha256(os.fsencode(owner.resolve())).hexdigest()[:16]
        self._memory, self._prefix = memory, f"kaos-{os.geteuid()}-{name}-"
        for left in memory.glob(f"{self._prefix}*"):
            # Anybody may make a folder there, and call it as we would.
            if left.lstat().st_uid == os.geteuid():
                clean_up(left)

    def make(self, secrets: Mapping[str, Mapping[str, bytes]]) -> tuple[Path, dict[str, Path]]:
        """(a folder that the caller removes, the folders in it by the path that they are for).

        Raises:
            Unknown: this machine has no tmpfs to keep them in.
            OSError: no room in it.
        """
        if not os.access(self._memory, os.W_OK):
            raise Unknown(f"{self._memory} cannot be written, and secrets go to no disk: use env_var")
        top = Path(tempfile.mkdtemp(prefix=self._prefix, dir=self._memory))
        try:
            folders = {path: top / str(number) for number, path in enumerate(secrets)}
            for path, folder in folders.items():
                folder.mkdir()
                for name, value in secrets[path].items():
                    (folder / name).write_bytes(value)
                    (folder / name).chmod(0o400)
        except BaseException:
            clean_up(top)
            raise
        return top, folders
