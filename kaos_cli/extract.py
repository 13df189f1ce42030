"""Write what the backend sends as tar + zstd into a folder, as if the archive came from an enemy.

Everything is unpacked beside its place first; only when the stream has ended well and nothing that is there
would change do the files move in. So a broken stream or a conflict leaves the folder as it was.
"""

from __future__ import annotations

import filecmp
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO

import zstandard

from kaos_cli.errors import KaosError
from kaos_cli.text import printable
from kaos_formats.folders import clean_up
from kaos_formats.tar import Member, TarError, TarReader

COPY_BYTES = 1 << 20
MAX_SHOWN = 5


@dataclass(frozen=True, slots=True)
class Written:
    """What an archive held: files, bytes, and the names at its top."""

    files: int
    size_bytes: int
    tops: tuple[str, ...]


@contextmanager
def staging(out: Path) -> Iterator[Path]:
    """A folder on the file system of ``out``, gone afterwards; ``out`` itself is made only by ``place``."""
    parent = out.absolute().parent
    try:
        parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=parent))
    except OSError as error:
        raise KaosError(
            "io", f"cannot write to {parent}: {error.strerror}", hint="choose another folder with -o"
        ) from error
    try:
        yield temporary
    finally:
        clean_up(temporary)


def unpack(stream: BinaryIO, into: Path, progress: Callable[[int], None] = lambda _: None) -> Written:
    """Unpack a tar + zstd stream below ``into``; raises KaosError for one that is broken or climbs out."""
    count, size_bytes = 0, 0
    tops: dict[str, None] = {}
    try:
        with zstandard.ZstdDecompressor().stream_reader(
            stream, read_size=COPY_BYTES, read_across_frames=True
        ) as source:
            reader = TarReader(source)
            for member in reader:
                path = safe_path(member)
                target = into / path
                tops[path.parts[0]] = None
                if member.kind == "dir":
                    target.mkdir(parents=True, exist_ok=True)
                    continue
                target.parent.mkdir(parents=True, exist_ok=True)
                # x: nothing is ever written through a link or over another member.
                with target.open("xb") as file:
                    for chunk in reader.payload():
                        file.write(chunk)
                        progress(len(chunk))
                if member.mode & 0o111:
                    target.chmod(0o755)
                count += 1
                size_bytes += member.size
    except (TarError, zstandard.ZstdError) as error:
        raise KaosError(
            "connection_lost", f"the archive broke off: {error}", hint="try the command again"
        ) from error
    except FileExistsError as error:
        raise KaosError("internal", f"the archive has {error.filename} twice") from error
    return Written(count, size_bytes, tuple(tops))


def safe_path(member: Member) -> PurePosixPath:
    """The relative path of a member that is a plain file or folder inside; raises KaosError for any other."""
    path = PurePosixPath(member.name)
    if path.is_absolute() or ".." in path.parts or not path.parts or "\x00" in member.name:
        raise KaosError(
            "internal", f"refused: the archive has a path that climbs out: {printable(member.name)}"
        )
    if member.kind not in ("file", "dir"):
        raise KaosError("internal", f"refused: {printable(member.name)} in the archive is no plain file")
    return path


def conflicts(staged: Path, out: Path) -> list[Path]:
    """The files in ``out`` that would change, relative to it, sorted."""
    if not os.path.lexists(out):
        return []
    found = []
    for path in files_below(staged):
        target = out / path
        blocked = any(part.is_symlink() or part.is_file() for part in _parents(target, out))
        if blocked or (
            os.path.lexists(target)
            and (
                target.is_symlink()
                or not target.is_file()
                or not filecmp.cmp(staged / path, target, shallow=False)
            )
        ):
            found.append(path)
    return found


def place(staged: Path, out: Path, force: bool) -> None:
    """Move what is staged into ``out``; KaosError (exists) if a file would change, unless ``force``."""
    if not force and (found := conflicts(staged, out)):
        shown = "".join(f"\n  {path}" for path in found[:MAX_SHOWN])
        more = f"\n  and {len(found) - MAX_SHOWN} more" if len(found) > MAX_SHOWN else ""
        raise KaosError(
            "exists",
            f"{out} has files of another content:{shown}{more}",
            hint="choose another folder, or overwrite them with --force",
        )
    try:
        out.mkdir(parents=True, exist_ok=True)
        if not any(out.iterdir()):
            for entry in staged.iterdir():
                entry.rename(out / entry.name)
            return
        for path in files_below(staged):
            target = out / path
            for part in [*_parents(target, out), target]:
                if part.is_symlink() or (part != target and part.is_file()):
                    part.unlink()
            target.parent.mkdir(parents=True, exist_ok=True)
            if target.is_dir():
                clean_up(target)
            (staged / path).replace(target)
    except OSError as error:
        raise KaosError("io", f"cannot write {error.filename}: {error.strerror}") from error


def files_below(folder: Path) -> list[Path]:
    """All files below ``folder``, relative to it, sorted."""
    found = []
    for parent, _, names in os.walk(folder):
        found += [Path(parent, name).relative_to(folder) for name in names]
    return sorted(found)


def _parents(target: Path, out: Path) -> list[Path]:
    """The folders between ``out`` and ``target``, outermost first."""
    return [p for p in reversed(target.parents) if p != out and p.is_relative_to(out)]
