from __future__ import annotations

import io
import tarfile
from collections.abc import Callable

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from kaos_backend.domain.models import AddFile, CopyFile, DeleteFile
from kaos_backend.errors import InvalidBundle
from kaos_backend.services import upload as upload_module
from kaos_backend.services.upload import BundleUpload
from kaos_formats.tree import TREE_FILE
from tests.support.archives import archive, compress, hostile, member, tar, tree_of

FILES = {"train": b"#!/bin/sh\n", "sub/empty": b"", "sub/data.bin": bytes(range(256)) * 40}
TREE = tree_of(FILES)


def unpack(body: bytes, bundle_id: str, base=None) -> dict[str, bytes]:  # type: ignore[no-untyped-def]
    """What the operations leave in an empty commit."""
    upload = BundleUpload(io.BytesIO(body), bundle_id)
    tree = upload.tree()
    found: dict[str, bytes] = {}
    for op in upload.operations("source", tree, base, "c" * 32):
        match op:
            case AddFile(path, data):
                found[path] = found.get(path, b"") + data
            case DeleteFile(path):
                found.pop(path, None)
            case CopyFile(dst, _, _, src):
                found[dst] = src.encode()
    return found


def test_an_honest_archive() -> None:
    bundle_id, body = archive(FILES)
    found = unpack(body, bundle_id)
    assert found.pop(f"/{bundle_id}.tree") == TREE.text
    assert found == {f"/{bundle_id}/{path}": data for path, data in FILES.items()}


def test_files_of_the_base_are_copied() -> None:
    new = tree_of({**FILES, "more": b"more", "sub/again": FILES["sub/data.bin"]})
    bundle_id, body = archive({"more": b"more"}, new)
    found = unpack(body, bundle_id, TREE)
    assert found[f"/{bundle_id}/"] == f"/{TREE.id}/".encode()
    assert found[f"/{bundle_id}/sub/again"] == f"/{TREE.id}/sub/data.bin".encode()
    assert found[f"/{bundle_id}/more"] == b"more"


def lie(data: bytes = b"") -> tuple[tarfile.TarInfo, bytes]:
    info, _ = member("train")
    info.size = len(FILES["train"]) + 1
    return info, data + bytes(len(FILES["train"]) + 1 - len(data))


HONEST = [member(path, data) for path, data in FILES.items()]
HOSTILE: dict[str, Callable[[], bytes]] = {
    "climbs out": lambda: hostile(TREE, [*HONEST, member("../evil", b"x")]),
    "climbs within": lambda: hostile(TREE, [*HONEST, member("sub/../train", FILES["train"])]),
    "absolute": lambda: hostile(TREE, [*HONEST, member("/etc/passwd", b"x")]),
    "symlink": lambda: hostile(
        TREE, [member("train", kind=tarfile.SYMTYPE, link="/etc/passwd"), *HONEST[1:]]
    ),
    "hard link": lambda: hostile(
        TREE, [member("train", kind=tarfile.LNKTYPE, link="sub/empty"), *HONEST[1:]]
    ),
    "device": lambda: hostile(TREE, [member("train", kind=tarfile.CHRTYPE), *HONEST[1:]]),
    "fifo": lambda: hostile(TREE, [member("train", kind=tarfile.FIFOTYPE), *HONEST[1:]]),
    "folder": lambda: hostile(TREE, [member("sub", kind=tarfile.DIRTYPE), *HONEST]),
    "sparse": lambda: hostile(TREE, [member("train", FILES["train"], kind=tarfile.GNUTYPE_SPARSE)]),
    "extra": lambda: hostile(TREE, [*HONEST, member("extra", b"x")]),
    "missing": lambda: hostile(TREE, HONEST[:-1]),
    "twice": lambda: hostile(TREE, [*HONEST, HONEST[0]]),
    "wrong content": lambda: hostile(TREE, [member("train", b"#!/bin/no\n"), *HONEST[1:]]),
    "wrong size": lambda: hostile(TREE, [lie(), *HONEST[1:]]),
    "no end": lambda: hostile(TREE, HONEST, end=False),
    "cut in a member": lambda: compress(tar([member(TREE_FILE, TREE.text), *HONEST])[:-6000]),
    "cut in the frame": lambda: archive(FILES)[1][:-30],
    "empty": lambda: b"",
    "no zstd": lambda: tar([member(TREE_FILE, TREE.text), *HONEST]),
    "no tar": lambda: compress(b"hello" * 1000),
    "something behind": lambda: compress(tar([member(TREE_FILE, TREE.text), *HONEST]) + b"x" * 600),
    "no tree": lambda: compress(tar(HONEST)),
    "tree is a link": lambda: compress(tar([member(TREE_FILE, kind=tarfile.SYMTYPE, link="x"), *HONEST])),
    "tree of another": lambda: hostile(tree_of({"other": b""}), []),
    "broken tree": lambda: compress(tar([member(TREE_FILE, TREE.text[:-5]), *HONEST])),
    "huge pax header": lambda: _sized(b"x", 2**40),
    "huge long name": lambda: _sized(b"L", 2**33),
}


def _sized(kind: bytes, size: int) -> bytes:
    """A lone header of an extension that claims so many bytes."""
    info = tarfile.TarInfo("x")
    info.size = size
    block = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    block[156:157] = kind
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return compress(bytes(block))


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_archives_are_refused(name: str) -> None:
    with pytest.raises(InvalidBundle) as caught:
        unpack(HOSTILE[name](), TREE.id)
    assert caught.value.message


def test_a_bomb_is_refused_before_it_is_unpacked() -> None:
    """A member of 64 GiB of zeros that the tree does not know costs nothing."""
    info, _ = member("train")
    info.size = 64 * 2**30
    body = compress(tar([member(TREE_FILE, TREE.text), (info, b"")], end=False) + bytes(10**6))
    with pytest.raises(InvalidBundle, match="has 68719476736 bytes"):
        unpack(body, TREE.id)


def test_a_window_beyond_the_limit_is_refused() -> None:
    params = zstandard.ZstdCompressionParameters(window_log=30)
    compressor = zstandard.ZstdCompressor(compression_params=params).compressobj()
    body = compressor.compress(tar([member(TREE_FILE, TREE.text), *HONEST])) + compressor.flush()
    with pytest.raises(InvalidBundle, match="broken"):
        unpack(body, TREE.id)


def test_a_tree_over_the_limit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upload_module, "MAX_TREE_BYTES", 10)
    bundle_id, body = archive(FILES)
    with pytest.raises(InvalidBundle, match="file list has"):
        unpack(body, bundle_id)


@given(st.integers(0, 4000), st.integers(0, 255))
def test_a_flipped_byte_is_noticed_or_harmless(position: int, value: int) -> None:
    """Whatever one byte does to the tar, the bundle that comes out is the one announced, or none."""
    data = bytearray(tar([member(TREE_FILE, TREE.text), *HONEST]))
    data[position % len(data)] = value
    try:
        found = unpack(compress(bytes(data)), TREE.id)
    except InvalidBundle:
        return
    assert {
        path.partition("/")[2].partition("/")[2]: d for path, d in found.items() if not path.endswith(".tree")
    } == FILES
