"""Bundles: a folder's files by content, the tree text that lists them and the id that follows from it.

What a bundle must look like is checked here, before anything is sent.
"""

from __future__ import annotations

import os
import re
import stat
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from blake3 import blake3

from kaos_cli import index as stat_index
from kaos_cli.dockerfile import NAME, Generated, generate
from kaos_cli.errors import KaosError
from kaos_cli.ignore import matcher, read_rules
from kaos_cli.text import printable
from kaos_cli.walk import Found, real_folder, walk
from kaos_formats.errors import InvalidBundle
from kaos_formats.paths import check_paths, shown
from kaos_formats.shape import Shape, find_shape, is_dockerfile
from kaos_formats.tree import TreeEntry, bundle_id, format_tree

Kind = Literal["source", "data"]
Progress = Callable[[int], None]
"""Called with the number of bytes done since the last call."""

BLOCK_BYTES = 8 << 20
PARALLEL_BYTES = 1 << 20
MAX_INTERPRETER_BYTES = 256
"""As much of a program as the kernel looks at to tell how to start it."""


class Entry(NamedTuple):
    """One file of a bundle: what the walk found, and the BLAKE3 of its content in hex."""

    file: Found
    hash: str
    content: bytes | None = None
    """Of a file that is made here and is not in the folder."""


@dataclass(frozen=True, slots=True)
class Bundle:
    """A folder as it will be sent. ``root`` is its real path; ``reused``: files whose hash the index knew."""

    kind: Kind
    name: str
    root: Path
    entries: tuple[Entry, ...]
    tree: bytes
    id: str
    ignored: tuple[str, ...]
    reused: int
    generated: Generated | None = None

    @property
    def files(self) -> int:
        return len(self.entries)

    @property
    def size_bytes(self) -> int:
        return sum(entry.file.size for entry in self.entries)

    @property
    def label(self) -> str:
        return f"{self.name}:{self.id[:6]}"


@dataclass(frozen=True, slots=True)
class Listed:
    """A folder that has been listed and checked, of whose files some may have to be read yet.

    ``files`` are sorted by path, ``known`` has the hashes of those that are as they were when they were last
    read; ``linked`` says where in the folder files lie that are found through symlinks.
    """

    kind: Kind
    name: str
    root: Path
    files: Sequence[Found]
    linked: Mapping[str, str]
    known: Mapping[str, bytes]
    ignored: tuple[str, ...]
    generated: Generated | None
    cache: Path
    stale: bool
    rules: str
    started_ns: int

    @property
    def complete(self) -> bool:
        """Whether nothing has to be read."""
        return len(self.known) == len(self.files)

    @property
    def size_bytes(self) -> int:
        return sum(file.size for file in self.files)

    def with_hashes(self, hashes: Sequence[str]) -> Bundle:
        """The bundle, with the hashes of all ``files`` in their order; the index keeps them."""
        entries = [Entry(file, digest) for file, digest in zip(self.files, hashes, strict=True)]
        if self.stale or not self.complete:
            settled = {
                entry.file.path: (*entry.file[1:5], bytes.fromhex(entry.hash))
                for entry in entries
                if stat_index.is_settled(entry.file, self.started_ns)
            }
            stat_index.save(self.cache, stat_index.Index(self.rules, settled))
        if self.generated is not None:
            entries = sorted((*entries, _entry(self.generated)))
        tree = format_tree(
            TreeEntry(file.path, file.size, "755" if file.executable else "644", digest)
            for file, digest, _ in entries
        )
        reused = len(self.known)
        return Bundle(
            self.kind,
            self.name,
            self.root,
            tuple(entries),
            tree,
            bundle_id(tree),
            self.ignored,
            reused,
            self.generated,
        )


def read(
    folder: Path,
    kind: Kind,
    cache: Path,
    progress: Progress = lambda _: None,
    clock_ns: Callable[[], int] = time.time_ns,
) -> Bundle:
    """The bundle in ``folder``; reads only what changed since ``cache`` knew it.

    Raises KaosError: invalid_bundle for what is no bundle, changed for a file that changes while it is read.
    """
    return hashed(list_folder(folder, kind, cache, clock_ns), progress)


def hashed(listed: Listed, progress: Progress = lambda _: None) -> Bundle:
    """The bundle of a folder, whose files are read here as far as they have to be; raises KaosError
    (changed).
    """
    prefix = str(listed.root) + "/"
    hashes = []
    for file in listed.files:
        known = listed.known.get(file.path)
        hashes.append(hash_file(prefix + file.path, file, progress) if known is None else known.hex())
    return listed.with_hashes(hashes)


def list_folder(folder: Path, kind: Kind, cache: Path, clock_ns: Callable[[], int] = time.time_ns) -> Listed:
    """List a folder, and check it as far as that goes without reading its data; raises KaosError
    (invalid_bundle).
    """
    started_ns = clock_ns()
    root = real_folder(folder)
    index_path = stat_index.path_of(cache, root)
    index = stat_index.load(index_path)
    rules = read_rules(root)
    known = index.files if index.rules == (rules or "") else {}
    found = walk(folder, matcher(rules, known))
    files = sorted(found.files)
    made = _generate(root, [file.path for file in files], folder) if kind == "source" else None
    try:
        check_paths([file.path for file in files])
    except InvalidBundle as error:
        raise _invalid(folder, error) from error
    name = _display_name(folder, root)
    if kind == "source":
        executable = {file.path: file.executable for file in files}
        shape = check_source(executable if made is None else executable | {NAME: False}, folder)
        check_program(folder / shape.train)
        name = shape.name or name
    elif not files:
        left = f" (left out: {', '.join(map(shown, found.ignored[:3]))})" if found.ignored else ""
        raise KaosError(
            "invalid_bundle",
            f"{folder} is empty: there is no file in it{left}",
            hint="give a folder with data files",
        )
    # They are printed, and a name that is no UTF-8 cannot be.
    ignored = tuple(sorted(path if path.isprintable() else shown(path) for path in found.ignored))
    hashes = {file[0]: hash_ for file in files if (hash_ := index.hash_of(file)) is not None}
    stale = len(index.files) != len(files) or index.rules != (rules or "")
    return Listed(
        kind,
        name,
        root,
        files,
        found.linked,
        hashes,
        ignored,
        made,
        index_path,
        stale,
        rules or "",
        started_ns,
    )


def _generate(root: Path, names: Sequence[str], folder: Path) -> Generated | None:
    """The Dockerfile for a source folder that has none but says what it needs."""
    if any(map(is_dockerfile, names)):
        return None

    def text(name: str) -> str:
        try:
            return (root / name).read_text("utf-8-sig")
        except UnicodeDecodeError as error:
            raise InvalidBundle(f"{name} is not UTF-8 text") from error
        except OSError as error:
            raise unreadable(str(root / name), error) from error

    try:
        return generate(names, text)
    except InvalidBundle as error:
        raise _invalid(folder, error) from error


def _entry(made: Generated) -> Entry:
    content = made.text.encode()
    return Entry(Found(NAME, len(content), 0, 0, 0, False), blake3(content).hexdigest(), content)


def check_source(executable: dict[str, bool], folder: Path) -> Shape:
    """The shape of a source bundle with these files (path → is it executable); raises KaosError."""
    try:
        shape = find_shape(executable)
    except InvalidBundle as error:
        raise _invalid(folder, error) from error
    if not executable[shape.train]:
        train = folder / shape.train
        raise KaosError("invalid_bundle", f"{train} is not executable", hint=f"chmod +x {train}")
    return shape


def check_program(train: Path) -> None:
    """Raise KaosError (invalid_bundle) for a program that would not start as its author meant."""
    try:
        with train.open("rb") as file:
            start = file.read(MAX_INTERPRETER_BYTES)
    except OSError as error:
        raise unreadable(str(train), error) from error
    first = start.partition(b"\n")[0]
    if start.startswith(b"\x7fELF") or (start.startswith(b"#!") and not first.endswith(b"\r")):
        return
    if start.startswith(b"#!"):
        problem = "ends its first line as Windows does: no interpreter has that name"
        hint = f"sed -i 's/\\r$//' {train}"
    else:
        problem = "names no interpreter: without one it runs as a shell script, whatever it is written in"
        hint = "make its first line #!/usr/bin/env python3, or #!/bin/sh for a shell script"
    raise KaosError("invalid_bundle", f"{train} {problem}", hint=hint)


def _invalid(folder: Path, error: InvalidBundle) -> KaosError:
    return KaosError(error.code, f"{folder}: {error.message}", hint=error.hint, path=str(folder))


def _display_name(folder: Path, root: Path) -> str:
    given = Path(os.path.abspath(folder)).name or root.name  # noqa: PTH100 - no symlinks resolved: the name given
    return re.sub(r"[^A-Za-z0-9._-]+", "-", given).strip("-.")[:100] or "bundle"


def hash_file(path: str, file: Found, progress: Progress) -> str:
    """BLAKE3 of a file's content in hex; raises KaosError (changed) if it is not what the walk saw.

    Read and not mapped: a mapped file that somebody truncates kills the process.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise unreadable(path, error) from error
    try:
        if file.size <= PARALLEL_BYTES:
            content = os.read(fd, file.size + 1)
            if len(content) == file.size and is_same(os.fstat(fd), file):
                progress(file.size)
                return blake3(content).hexdigest()
            raise changed(path)
        from concurrent.futures import ThreadPoolExecutor

        hasher = blake3(max_threads=blake3.AUTO)
        done = 0
        # One block is read while the other is hashed.
        blocks = [memoryview(bytearray(BLOCK_BYTES)) for _ in range(2)]
        with ThreadPoolExecutor(1) as reader:
            reading = reader.submit(os.readv, fd, blocks[:1])
            while count := reading.result():
                block = blocks[0]
                blocks.reverse()
                reading = reader.submit(os.readv, fd, blocks[:1])
                hasher.update(block[:count])
                done += count
                progress(count)
        if done == file.size and is_same(os.fstat(fd), file):
            return hasher.hexdigest()
        raise changed(path)
    except OSError as error:
        raise unreadable(path, error) from error
    finally:
        os.close(fd)


def is_same(status: os.stat_result, file: Found) -> bool:
    return (
        status.st_size == file.size
        and status.st_mtime_ns == file.mtime_ns
        and status.st_ctime_ns == file.ctime_ns
        and stat.S_ISREG(status.st_mode)
    )


def changed(path: str) -> KaosError:
    return KaosError(
        "changed",
        f"{printable(path)} changed while it was being packed",
        hint="deploy again when nothing writes to it, or leave it out with .kaosignore",
    )


def unreadable(path: str, error: OSError) -> KaosError:
    return KaosError(
        "invalid_bundle",
        f"cannot read {printable(path)}: {error.strerror}",
        hint="make it readable, or leave it out with .kaosignore",
    )
