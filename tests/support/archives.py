"""Builders of bundles and their archives, honest and hostile."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable, Mapping

import blake3
import zstandard

from kaos_formats.tree import TREE_FILE, Tree, TreeEntry, make_tree


def tree_of(files: Mapping[str, bytes]) -> Tree:
    return make_tree(
        TreeEntry(path, len(data), "755" if path == "train" else "644", blake3.blake3(data).hexdigest())
        for path, data in files.items()
    )


def member(
    name: str, data: bytes = b"", kind: bytes = tarfile.REGTYPE, link: str = ""
) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.type, info.linkname = kind, link
    info.size = len(data)
    return info, data


def tar(
    members: Iterable[tuple[tarfile.TarInfo, bytes]], end: bool = True, format: int = tarfile.PAX_FORMAT
) -> bytes:
    out = io.BytesIO()
    for info, data in members:
        out.write(info.tobuf(format))
        out.write(data + bytes(-len(data) % 512))
    if end:
        out.write(bytes(1024))
    return out.getvalue()


def compress(data: bytes) -> bytes:
    return zstandard.compress(data)


def archive(files: Mapping[str, bytes], tree: Tree | None = None, offset: int = 0) -> tuple[str, bytes]:
    """(bundle id, body) of an honest upload; ``tree`` if the archive holds only some of its files; of each
    what follows ``offset``.
    """
    whole = tree or tree_of(files)
    members = [member(TREE_FILE, whole.text), *(member(path, data[offset:]) for path, data in files.items())]
    if offset:
        for info, _ in members[1:]:
            info.pax_headers = {"KAOS.offset": str(offset)}
    return whole.id, compress(tar(members))


def hostile(tree: Tree, members: Iterable[tuple[tarfile.TarInfo, bytes]], end: bool = True) -> bytes:
    """An archive with an honest tree and whatever members."""
    return compress(tar([member(TREE_FILE, tree.text), *members], end=end))
