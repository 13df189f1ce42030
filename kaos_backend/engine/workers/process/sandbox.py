"""What a sandboxed trial sees, as the argument vector of bubblewrap. Pure, but for `probe`.

The sandbox's root is the worker's private, writable copy of the image's files; over it is mounted what
`kaos_formats.sandbox` says.
"""

from __future__ import annotations

import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from kaos_formats.sandbox import NAMESPACES, RUN_PATHS, below, cover

# Where things of the sandbox's own are mounted.
OWN = ("/dev", "/pfs", "/proc", *RUN_PATHS)
GPU_NODES = ("nvidia", "dri", "kfd", "dxg")


@dataclass(frozen=True, slots=True)
class View:
    """A trial's sight of the machine; host paths are absolute.

    `pfs` has a folder for each of `inputs`, and one called `out`. `covered`: `identities` of what of the
    host's own is hidden.
    """

    root: Path
    binds: Sequence[str]
    hidden: Sequence[Path]
    extra: Sequence[Path]
    pfs: Path
    inputs: Mapping[str, Path]
    out: Path
    devices: Sequence[str] = ()
    shm_bytes: int | None = None
    secrets: Mapping[str, Path] = field(default_factory=dict)
    covered: tuple[int, ...] = ()


def argv(bwrap: str, view: View) -> tuple[str, ...]:
    """The command line that makes this view of the machine for the command that is put behind it."""
    line = [bwrap, *NAMESPACES, "--bind", str(view.root), "/"]
    for path in view.binds:
        line += ["--ro-bind", path, path]
    line += cover(view.hidden, view.binds)
    line += ["--proc", "/proc", "--dev", "/dev"]
    if view.shm_bytes is not None:
        line += ["--size", str(view.shm_bytes), "--tmpfs", "/dev/shm"]  # noqa: S108
    for device in view.devices:
        line += ["--dev-bind", device, device]
    for name in RUN_PATHS:
        line += ["--ro-bind-try", name, name]
    for needed in view.extra:
        if not below(needed, view.binds) or below(needed, view.hidden):
            line += ["--ro-bind", str(needed), str(needed)]
    for path, source in sorted(view.secrets.items()):
        line += ["--ro-bind", str(source), path]
    line += ["--ro-bind", str(view.pfs), "/pfs"]
    for name, source in sorted(view.inputs.items()):
        line += ["--ro-bind", str(source), f"/pfs/{name}"]
    if view.covered:
        # Does nothing; but with others in their place this is another sandbox, and not the one that stands.
        line += ["--unsetenv", f"KAOS_COVERED_{'_'.join(map(str, view.covered))}"]
    return (*line, "--bind", str(view.out), "/pfs/out")


def gpu_devices() -> tuple[str, ...]:
    """Device nodes that GPU libraries open. All or none: they number devices by what they can open."""
    return tuple(sorted(str(node) for node in Path("/dev").iterdir() if node.name.startswith(GPU_NODES)))


def probe(bwrap: str | None, shm: bool = True) -> str | None:
    """None when bubblewrap can make sandboxes here, else the reason why not, in a line."""
    if bwrap is None:
        return "bubblewrap (bwrap) is not installed"
    line = [bwrap, *NAMESPACES, "--ro-bind", "/", "/", "--proc", "/proc", "--dev", "/dev"]
    if shm:
        line += ["--size", "1048576", "--tmpfs", "/dev/shm"]  # noqa: S108
    try:
        done = subprocess.run(
            [*line, "--", "/bin/sh", "-c", ":"], capture_output=True, timeout=10, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return f"bubblewrap does not run here: {error}"
    if done.returncode == 0:
        return None
    said = done.stderr.decode("utf-8", "replace").strip().splitlines()
    return f"bubblewrap does not work here: {said[-1] if said else f'exit code {done.returncode}'}"
