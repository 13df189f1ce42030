"""The image store of the process runtime: what its builder writes and the runtime reads (docs/builder.md).

images/<directory name>/config.json   what the Dockerfile said, and which virtual environment it needs
images/<directory name>/root/…        the files it put into the image, at their image paths
venvs/<key>/                          virtual environments, shared by all images that need the same one
"""

from __future__ import annotations

import hashlib
import re

CONFIG = "config.json"
ROOT = "root"
VENV_READY = ".kaos-ready"
"""The mark of a complete environment."""


def directory_name(image: str) -> str:
    """Folder of an image below images/: readable, and distinct for distinct names."""
    readable = re.sub(r"[^A-Za-z0-9._-]+", "-", image).strip("-.")[:64]
    return f"{readable}-{hashlib.sha256(image.encode()).hexdigest()[:16]}"
