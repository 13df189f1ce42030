"""Which files of a source bundle are its Dockerfile, build context and ``train`` program."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from kaos_formats.errors import InvalidBundle

SHAPES = """a source bundle looks like one of these (train must be executable):
  DIR/Dockerfile           DIR/<name>/Dockerfile
  DIR/train                DIR/<name>/model/train     (the image is built from model/)
or DIR/train beside a requirements.txt, uv.lock, poetry.lock, pylock.toml or environment.yml"""


@dataclass(frozen=True, slots=True)
class Shape:
    """Paths relative to the bundle; ``context`` is "" for the bundle itself."""

    dockerfile: str
    context: str
    train: str

    @property
    def name(self) -> str | None:
        """The bundle's name where the shape gives one: ``<name>/Dockerfile``."""
        return self.dockerfile.rpartition("/")[0] or None


def find_shape(paths: Iterable[str]) -> Shape:
    """The shape of a bundle with these file paths ("a/b.txt", no leading slash).

    Accepts DIR/Dockerfile + DIR/train, DIR/<name>/Dockerfile + DIR/<name>/model/train (the context is then
    ``model/``) and the mixes of the two; a Dockerfile without a train is none of them. Raises InvalidBundle,
    whose message says what was found and shows the shapes.
    """
    files = set(paths)
    bases = sorted({path.rpartition("Dockerfile")[0] for path in files if is_dockerfile(path)})
    found: list[Shape] = []
    for base in bases:
        for context in ("", "model/"):
            if f"{base}{context}train" in files:
                folder = f"{base}{context}"
                found.append(Shape(f"{base}Dockerfile", folder.rstrip("/"), f"{folder}train"))
                break
    if found and (len(found) == 1 or found[0].dockerfile == "Dockerfile"):
        return found[0]
    if found:
        names = ", ".join(shape.dockerfile for shape in found)
        raise _refused(f"several training programs: {names}; deploy one at a time")
    if bases:
        where = ", ".join(f"{base}train or {base}model/train" for base in bases[:3])
        raise _refused(f"there is a Dockerfile but no train beside it (looked for {where})")
    raise _refused("there is no Dockerfile")


def is_dockerfile(path: str) -> bool:
    """Whether it is where a bundle has one: at its top or one folder below."""
    return path == "Dockerfile" or (path.endswith("/Dockerfile") and path.count("/") == 1)


def _refused(what: str) -> InvalidBundle:
    return InvalidBundle(f"{what}\n{SHAPES}", hint="give such a folder with -s")
