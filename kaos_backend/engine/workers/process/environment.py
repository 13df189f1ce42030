"""The environment of a process worker: pure functions of what the engine, the image and the spec say."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from kaos_backend.engine.workers.process.images import Image
from kaos_formats.images import place_of_environment
from kaos_formats.sandbox import HOST

DEFAULT_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def container(
    host: Mapping[str, str], image: Image, spec: Mapping[str, str], home: str, locate: Callable[[str], str]
) -> dict[str, str]:
    """The part that is constant for a worker's life.

    `locate` maps an image path to where it is for the command; it is applied to each ":"-separated element of
    the image's own variables, so that `ENV PYTHONPATH=/app/src` means the same with and without a sandbox.
    """
    env = {name: value for name, value in host.items() if HOST.fullmatch(name)}
    env |= {"HOME": home}
    env |= {name: ":".join(locate(item) for item in value.split(":")) for name, value in image.env.items()}
    named = image.env.get("PATH", "").split(":")
    path = [*map(locate, named), *host.get("PATH", DEFAULT_PATH).split(":")]
    if image.venv is not None:
        path.insert(place_of_environment(named), str(image.venv / "bin"))
        env.setdefault("VIRTUAL_ENV", str(image.venv))
    elements = [item for item in path if item.startswith("/")]
    env["PATH"] = ":".join(dict.fromkeys(elements))
    return env | {"PYTHONUNBUFFERED": "1"} | dict(spec)


def builder(
    host: Mapping[str, str], spec: Mapping[str, str], engine_dir: Path, python_path: str
) -> dict[str, str]:
    """The builder's: all of the host's, so that pip finds its configuration, less what holds kaos secrets."""
    env = {name: value for name, value in host.items() if not name.startswith(("KAOS_", "PACH_", "PACHD_"))}
    env = {name: value for name, value in env.items() if name not in ("PYTHONHOME", "PYTHONSTARTUP")}
    env |= {"PYTHONPATH": python_path, "PYTHONUNBUFFERED": "1", "KAOS_IMAGE_STORE": str(engine_dir)}
    return env | dict(spec)
