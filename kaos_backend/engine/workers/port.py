"""What the job scheduler knows of workers: plain values in, one `Exit` out.

An adapter is a folder beside this module (`process/`): a `Runtime`, which runs images, and a `Builder`,
which makes them; they share an image store. Nothing in here does I/O; `choice` alone knows the adapters.
Units: memory in bytes, times in seconds, cpu in cores (fractions allowed).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Literal, Protocol

from kaos_backend.engine.workers.terminal import Terminal

Reason = Literal["exited", "signal", "oom", "timeout", "canceled", "error"]


@dataclass(frozen=True, slots=True)
class Grant:
    """The share of the machine one datum may use. `memory_bytes=None` means no limit; `gpus` are devices as
    CUDA_VISIBLE_DEVICES and Docker call them: an index, or the UUID of a MIG instance.
    """

    cpu: float
    cores: tuple[int, ...]
    memory_bytes: int | None
    gpus: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class WorkerSpec:
    """What stays the same for a worker's whole life (Pachyderm: the pod of one pipeline version).

    `secrets`: absolute path → the files of a folder there, by name, which are on no disk. What may
    be secret (`env` too) is in no text made of this.
    """

    name: str
    image: str
    env: Mapping[str, str] = field(repr=False)
    user: str
    working_dir: str | None
    secrets: Mapping[str, Mapping[str, bytes]] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True, eq=False)
class SmallInput:
    """An input of few and small files: `files` has the content by path ("/x/params.json"). To write it where
    it is wanted costs less than to lay it out for others, too. Runs that share one share the object.
    """

    files: Mapping[str, bytes] = field(repr=False)


@dataclass(frozen=True, slots=True)
class DatumRun:
    """One execution of a pipeline's command.

    `inputs`: input name → what appears as `/pfs/<name>`: a read-only host directory, or a small input.
    `input_paths`: input name → path in the repo; the worker sets env `<name>` to `<pfs root>/<name><path>`.
    `out`: host directory that appears as `/pfs/out`, mostly an empty one. `log`: file that is appended to,
    one line `<unix µs> <u|s> <text>` per line the command prints. `terminal`: what the command's input and
    output are instead; `stdin` and `log` are nothing to it then.
    """

    cmd: tuple[str, ...]
    stdin: bytes
    env: Mapping[str, str]
    inputs: Mapping[str, Path | SmallInput]
    input_paths: Mapping[str, str]
    out: Path
    log: Path
    grant: Grant
    timeout_s: float | None
    terminal: Terminal | None = None


@dataclass(frozen=True, slots=True)
class InputPath:
    """A file of an input: the input's name and the path in its repo."""

    name: str
    path: str


@dataclass(frozen=True, slots=True)
class OutputFile:
    """A regular file of an output. `data` is open until the next one is asked for.

    `path` is where it lies below `out` ("/m/weights"). `origin` is set when the trial left a link to a file
    of an input, whose content need not be read again.
    """

    path: str
    data: BinaryIO
    origin: InputPath | None = None


class Output(Protocol):
    """What a run left in `out`, as the run saw it: links inside `out` and to inputs are what they lead to.

    It is held from before the run began, and stays readable while its worker runs the next datum.
    """

    def files(self) -> Iterator[OutputFile]:
        """Every file, in any order; may be called again. Nothing of the run is alive by then.

        Raises:
            Unknown: naming what cannot be kept: a link that leads anywhere else, a pipe, socket or device,
                what cannot be read, what is nested too deeply; or `out` itself was replaced.
            OSError: trouble of the engine's own, worth another try.
        """
        ...

    def close(self) -> None:
        """Let go of it. Idempotent."""
        ...


@dataclass(frozen=True, slots=True)
class Exit:
    """How a run ended.

    `code` by shell convention: 126 not executable, 127 not found, 128 + n ended by signal n (`signal` is n;
    a sandbox cannot tell these from a program that itself exits with 128 + n). None if nothing was started.
    `message` is one line for people ("used 530 MiB of 512 MiB"), empty when the reason says it all.
    `output` is there when something was started; the caller closes it. `image` is what it ran in, by digest;
    "" where the runtime knows none.
    """

    code: int | None
    signal: int | None
    reason: Reason
    message: str
    max_rss_bytes: int
    wall_s: float
    output: Output | None = None
    image: str = ""


class Worker(Protocol):
    """A long-lived place that runs datums one at a time.

    `host`: where the ports are on which what it runs listens.
    """

    @property
    def host(self) -> str: ...

    def run(self, run: DatumRun, cancel: threading.Event) -> Exit:
        """Run one datum to its end. Never raises for what the user's code does."""
        ...

    def close(self) -> None:
        """Stop the worker and remove what it wrote outside `/pfs`; a running datum is killed. Idempotent."""
        ...


_REBUILD = "deploy its source again to build it"


def missing(image: str, what: str = "not found: no build made it yet, or it was removed") -> str:
    """The problem of an image that nothing but another build brings back, in a line."""
    return f"image {image} {what}; {_REBUILD}"


def is_missing(problem: str) -> bool:
    """Whether the problem of an image is one that `missing` tells, and no time will mend."""
    return problem.endswith(_REBUILD)


@dataclass(frozen=True, slots=True)
class StoredImage:
    """What a runtime keeps on the disk for the images of this home: an image, or an environment or a layer
    that images share.

    `images`: the names of those that need it; of an image all of its own. `size` in bytes.
    """

    kind: Literal["image", "environment", "layer"]
    name: str
    size: int
    images: frozenset[str]


class Runtime(Protocol):
    """Starts workers.

    `isolation` is one word, `notes` say what is not isolated. `own_network`: the ports of what runs are not
    this machine's.
    """

    name: str
    isolation: str
    notes: tuple[str, ...]

    @property
    def own_network(self) -> bool: ...

    def protects_inputs(self, image: str) -> bool:
        """Whether no run in an image can change its inputs, whatever it does."""
        ...

    def start_worker(self, spec: WorkerSpec) -> Worker:
        """Raises `EngineError` naming the image when it is not there or broken."""
        ...

    def image_problem(self, image: str) -> str:
        """Why no worker could start from `image` now and what to do, in a line; empty when one could. It is
        of `missing` only where the image is known to be gone, and not for what may come by itself.
        """
        ...

    def keep_images(self, wanted: Callable[[str], bool]) -> bool:
        """Remove the images that were built for this home, unless they are `wanted` by name, and what only
        they need.

        False if some that are in use stay. Others' images are left alone. Raises `EngineError` when that is
        not possible now.
        """
        ...

    def stored_images(self) -> list[StoredImage]:
        """What there is. Raises `EngineError` when that cannot be told now."""
        ...


class Builder(Protocol):
    """Makes the images of the runtime that it is paired with.

    A build is a datum like any other: its worker finds the context at `inputs["source"]/$KAOS_SOURCE_ID` (the
    Dockerfile in there, the modes in the `.tree` beside it), makes the image `$KAOS_IMAGE` of it, and leaves
    `<source id>/image.json` in `out`. When the run has exited with 0 the runtime has no problem with the
    image; after any other end, a kill included, there is no image that was not there before.
    """

    name: str

    def warm_up(self) -> None:
        """A build may come: begin with what it need not wait for. Returns at once."""
        ...

    def start_worker(self, spec: WorkerSpec) -> Worker:
        """A worker for builds. Raises `EngineError` when the builder cannot work here."""
        ...
