"""Bundles: a folder's files by content, the tree text that lists them and the id that follows from it.

What a bundle must look like is checked here, before anything is sent.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby, starmap
from operator import attrgetter
from pathlib import Path
from typing import Literal, NamedTuple, TypeVar

from blake3 import blake3

from kaos_cli import index as stat_index
from kaos_cli.contents import Progress, hash_file, unreadable
from kaos_cli.dockerfile import NAME, Generated, generate
from kaos_cli.errors import KaosError
from kaos_cli.ignore import matcher, read_rules
from kaos_cli.walk import Found, real_folder, walk
from kaos_formats.errors import InvalidBundle
from kaos_formats.paths import check_paths, shown
from kaos_formats.shape import Shape, find_shape, is_dockerfile
from kaos_formats.tree import GrowingId, TreeEntry, format_tree, id_of_pieces, tree_pieces

Kind = Literal["source", "data"]
_T = TypeVar("_T")
MAX_INTERPRETER_BYTES = 256
"""As much of a program as the kernel looks at to tell how to start it."""


class Entry(NamedTuple):
    """One file of a bundle: what the walk found, and the BLAKE3 of its content in hex."""

    file: Found
    hash: str
    content: bytes | None = None
    """Of a file that is made here and is not in the folder."""


@dataclass(frozen=True)
class Listed:
    """A folder that has been listed and checked, of whose files some may have to be read yet.

    ``root`` is its real path; ``files`` are sorted by path; ``linked`` says where in the folder files lie
    that are found through symlinks. ``same``: the files of ``index`` are these, all as they were.
    """

    kind: Kind
    name: str
    root: Path
    files: Sequence[Found]
    linked: Mapping[str, str]
    ignored: tuple[str, ...]
    generated: Generated | None
    cache: Path
    rules: str
    started_ns: int
    index: stat_index.Index
    same: bool

    @property
    def complete(self) -> bool:
        """Whether nothing has to be read."""
        return self.same or all(self.known)

    @property
    def known(self) -> Sequence[bytes]:
        """The hashes of ``files``, empty for those that are not as they were when they were last read."""
        return self._compared[0]

    @property
    def gone(self) -> set[str]:
        """The paths that were there when the folder was last read, and are not any more."""
        return self._compared[1]

    @property
    def base(self) -> str | None:
        """The bundle that the folder was when it was last read, if much of that is as it was."""
        changed = sum(not known for known in self.known)
        return self.index.id if self.index.id and 0 < changed <= len(self.files) // 2 else None

    @cached_property
    def _compared(self) -> tuple[Sequence[bytes], set[str]]:
        return (stat_index.Hashes(self.index.hashes), set()) if self.same else self.index.compare(self.files)

    @property
    def size_bytes(self) -> int:
        return sum(file.size for file in self.files)

    def as_known(self) -> Bundle:
        """The bundle, if it is ``complete``."""
        return Bundle(self) if self.same else self.with_hashes(self.known)

    def with_hashes(self, hashes: Sequence[bytes], given_id: str = "") -> Bundle:
        """The bundle, with the hashes of all ``files`` in their order (and their id, if it has been made);
        the index keeps them.
        """
        made = Bundle(self, hashes, given_id)
        if not self.same:
            files = self.files
            if out := stat_index.unsettled(files, self.started_ns):
                files, hashes = _without(files, out), _without(hashes, out)
            stat_index.save(
                self.cache,
                self.rules,
                "" if out or self.generated is not None else made.id,
                hashes.whole if isinstance(hashes, stat_index.Hashes) else b"".join(hashes),
                files,
            )
        return made


def _without(items: Sequence[_T], places: Iterable[int]) -> list[_T]:
    left_out = set(places)
    return [item for at, item in enumerate(items) if at not in left_out]


@dataclass(frozen=True)
class Bundle:
    """A folder as it will be sent; ``given`` are the hashes of its ``listed`` files, None if they are known.

    What only a bundle that is sent needs is made when it is asked for.
    """

    listed: Listed
    given: Sequence[bytes] | None = None
    given_id: str = ""

    @property
    def hashes(self) -> Sequence[bytes]:
        return self.listed.known if self.given is None else self.given

    @property
    def kind(self) -> Kind:
        return self.listed.kind

    @property
    def name(self) -> str:
        return self.listed.name

    @property
    def root(self) -> Path:
        return self.listed.root

    @property
    def ignored(self) -> tuple[str, ...]:
        return self.listed.ignored

    @property
    def generated(self) -> Generated | None:
        return self.listed.generated

    @property
    def reused(self) -> int:
        """Files whose hash the index knew."""
        return sum(map(bool, self.listed.known))

    @cached_property
    def entries(self) -> Sequence[Entry]:
        """All files, also one that is made here, sorted by path."""
        found = [Entry(file, hash_.hex()) for file, hash_ in zip(self.listed.files, self.hashes, strict=True)]
        return found if self.generated is None else sorted((*found, _entry(self.generated)))

    @cached_property
    def id(self) -> str:
        known = self.listed.index.id if self.listed.same and self.generated is None else ""
        return self.given_id or known or id_of_pieces(self._tree())

    @cached_property
    def tree(self) -> bytes:
        """The text that lists the files."""
        return b"".join(self._tree())

    def _tree(self) -> Iterator[bytes]:
        listed: Iterable[tuple[Found, str]] = zip(self.listed.files, map(bytes.hex, self.hashes), strict=True)
        if self.generated is not None:
            listed = ((file, digest) for file, digest, _ in self.entries)
        return tree_pieces(starmap(_tree_entry, listed))

    @property
    def files(self) -> int:
        return len(self.listed.files) + (self.generated is not None)

    @property
    def size_bytes(self) -> int:
        made = 0 if self.generated is None else len(self.generated.text.encode())
        return self.listed.size_bytes + made

    @property
    def label(self) -> str:
        return f"{self.name}:{self.id[:6]}"


class GrowingTree:
    """The tree text of ``files`` (sorted by path) while their hashes come; only its id is kept.

    Of files whose hashes are ``known``, none of them empty, the text is made at once.
    """

    def __init__(self, files: Sequence[Found], known: Sequence[bytes] | None = None) -> None:
        self._id = GrowingId()
        self._parts: Iterator[Found | bytes] = iter(files)
        if known is not None:
            self._parts = iter(list(_parts(files, known)))

    def add(self, hashes: stat_index.Hashes) -> None:
        """Hashes of the next of the other files."""
        entries: list[TreeEntry] = []
        for digest in map(bytes.hex, hashes):
            for part in self._parts:
                if not isinstance(part, bytes):
                    entries.append(_tree_entry(part, digest))
                    break
                self._id.add(format_tree(entries) + part)
                entries.clear()
        self._id.add(format_tree(entries))

    def finish(self) -> str:
        """The id."""
        for part in self._parts:
            assert isinstance(part, bytes), f"the hash of {part.path} has not come"
            self._id.add(part)
        return self._id.id


def _parts(files: Iterable[Found], known: Iterable[bytes]) -> Iterator[Found | bytes]:
    """Text of the files that are known, and the others."""
    for is_known, some in groupby(zip(files, known, strict=True), key=lambda one: bool(one[1])):
        if is_known:
            yield from tree_pieces(_tree_entry(file, hash_.hex()) for file, hash_ in some)
        else:
            yield from (file for file, _ in some)


def _tree_entry(file: Found, digest: str) -> TreeEntry:
    return TreeEntry(file.path, file.size, "755" if file.executable else "644", digest)


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
    for file, known in zip(listed.files, listed.known, strict=True):
        hashes.append(known or hash_file(prefix + file.path, file, progress))
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
    same_rules = index.rules == (rules or "")
    let_in = index.paths() if rules and same_rules else ()
    found = walk(folder, matcher(rules, let_in))
    files = found.files
    files.sort(key=attrgetter("path"))
    same = same_rules and index.has_just(files)
    made = _generate(root, [file.path for file in files], folder) if kind == "source" else None
    try:
        if not same:
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
    return Listed(
        kind,
        name,
        root,
        files,
        found.linked,
        ignored,
        made,
        index_path,
        rules or "",
        started_ns,
        index,
        same,
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
