"""The images of kaos, as builders leave them and runtimes find them (docs/builder.md, docs/docker.md).

On a Docker engine, which several homes may share, an image that two of them need has one name and a claim of
each: another name of it. Without any claim it is nobody's.

The image store of the process runtime:

images/<directory name>/config.json   what the Dockerfile said, and which virtual environment it needs
images/<directory name>/root/…        the files it put into the image, at their image paths
images/<directory name>/layers.json   the keys of the layers that a build of it asked for
venvs/<key>/                          virtual environments, shared by all images that need the same one
layers/<key>/                         what RUNs made; one that no image names may go
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Sequence
from pathlib import Path

OWN_PREFIX = "kaos/"
"""Names of images that kaos' builders make, and nobody else does."""

BUILDER_IMAGE = "kaos/builder"
"""The image of pipelines whose command makes images: their workers are the builder's."""

BUILDING = ".building"
"""Below images/: what is not one yet, or not any more. Each has a lock; what nobody locks may go."""

MAKING = ".making"
"""Below venvs/ and layers/: what is not complete."""

CONFIG = "config.json"
LAYERS = "layers.json"
ROOT = "root"
VENV_READY = ".kaos-ready"
"""The mark of a complete environment."""

_CLAIM = re.compile(r"kaos-[0-9a-f]{12}/")


def home_label(engine_dir: Path) -> str:
    """What tells a home's things on a Docker engine from those of others."""
    return hashlib.sha256(os.fsencode(engine_dir.resolve())).hexdigest()[:32]


def claims(label: str) -> str:
    """How the names begin by which a home claims images."""
    return f"kaos-{label[:12]}/"


def claim(image: str, label: str) -> str:
    """The name by which a home claims the image of that name."""
    return claims(label) + image.removeprefix(OWN_PREFIX)


def pushed(image: str, registry: str) -> str:
    """What the image of that name is called in a registry (`host:port/prefix`)."""
    return f"{registry}/{image}" if registry else image


def claimed(name: str) -> str | None:
    """The image's name, if this is a claim of it."""
    found = _CLAIM.match(name)
    return None if found is None else OWN_PREFIX + name[found.end() :]


def directory_name(image: str) -> str:
    """Folder of an image below images/: readable, and distinct for distinct names."""
    readable = re.sub(r"[^A-Za-z0-9._-]+", "-", image).strip("-.")[:64]
    return f"{readable}-{hashlib.sha256(image.encode()).hexdigest()[:16]}"


def place_of_environment(path: Sequence[str]) -> int:
    """Where in the PATH of an image, by its elements, the programs of its environment go: where Python images
    have theirs. So what a Dockerfile puts before it (`ENV PATH=/opt/venv/bin:$PATH`) stays there.
    """
    return path.index("/usr/local/bin") if "/usr/local/bin" in path else 0
