from __future__ import annotations

import io
import os
import tarfile
import tempfile
from pathlib import Path

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from kaos_cli import bundle, pack
from kaos_cli.errors import KaosError
from kaos_formats.tree import TREE_FILE
from tests.support.bundles import write_data

ALPHABET = st.characters(exclude_characters="/\0", exclude_categories=("Cs",))
ELEMENT = st.text(ALPHABET, min_size=1, max_size=60).filter(lambda e: e not in (".", "..", ".kaosignore"))
PATH = st.lists(ELEMENT, min_size=1, max_size=4).map("/".join)
FILES = st.dictionaries(PATH, st.binary(max_size=2000), min_size=1, max_size=8)


def unpacked(body: bytes) -> dict[str, tuple[bytes, int]]:
    raw = zstandard.ZstdDecompressor().stream_reader(io.BytesIO(body)).read()
    found = {}
    with tarfile.open(fileobj=io.BytesIO(raw)) as tar:
        for member in tar:
            assert member.isreg()
            file = tar.extractfile(member)
            assert file is not None
            found[member.name] = (file.read(), member.mode)
    return found


def packed(made: bundle.Bundle) -> bytes:
    return b"".join(pack.pack(made, made.entries))


def _possible(files: dict[str, bytes]) -> bool:
    from kaos_cli.ignore import DEFAULT_NAMES

    folders = {"/".join(p.split("/")[:i]) for p in files for i in range(1, p.count("/") + 1)}
    elements = {element for p in files for element in p.split("/")}
    return not folders & files.keys() and not elements & (DEFAULT_NAMES | {"pyvenv.cfg", TREE_FILE})


@settings(max_examples=60, deadline=None)
@given(files=FILES.filter(_possible), executable=st.booleans())
def test_tarfile_reads_back_what_was_packed(files: dict[str, bytes], executable: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder) / "d"
        write_data(root, files)
        for path in files:
            (root / path).chmod(0o755 if executable else 0o644)
        made = bundle.read(root, "data", Path(folder) / "cache")
        found = unpacked(packed(made))
    assert found.pop(TREE_FILE)[0] == made.tree
    assert found == {path: (content, 0o755 if executable else 0o644) for path, content in files.items()}


def test_equal_folders_give_equal_bytes(tmp_path: Path) -> None:
    one = bundle.read(write_data(tmp_path / "1/d"), "data", tmp_path / "c")
    two = bundle.read(write_data(tmp_path / "2/d"), "data", tmp_path / "c")
    assert packed(one) == packed(two)


def test_chunks_are_big_and_memory_is_not(tmp_path: Path) -> None:
    made = bundle.read(write_data(tmp_path / "d", {"f": os.urandom(20 << 20)}), "data", tmp_path / "c")
    sizes = [len(chunk) for chunk in pack.pack(made, made.entries)]
    assert max(sizes) <= pack.CHUNK_BYTES
    assert min(sizes[:-1]) >= 256 << 10


def test_progress_counts_every_byte(tmp_path: Path) -> None:
    made = bundle.read(write_data(tmp_path / "d", {"f": bytes(3 << 20), "g": b"12"}), "data", tmp_path / "c")
    seen: list[int] = []
    for _ in pack.pack(made, made.entries, seen.append):
        pass
    assert sum(seen) == made.size_bytes


@pytest.mark.parametrize("change", ["grown", "shrunk", "rewritten", "gone", "folder"])
@pytest.mark.parametrize("size", [10, 3 << 20])
def test_file_that_changed_since_the_hash_is_never_sent_whole(tmp_path: Path, change: str, size: int) -> None:
    data = write_data(tmp_path / "d", {"f": bytes(size)})
    made = bundle.read(data, "data", tmp_path / "c")
    path = data / "f"
    if change == "grown":
        path.write_bytes(bytes(size + 1))
    elif change == "shrunk":
        os.truncate(path, size - 1)
    elif change == "rewritten":
        path.write_bytes(b"x" * size)
        os.utime(path, ns=(0, 0))
    else:
        path.unlink()
        if change == "folder":
            path.mkdir()
    with pytest.raises(KaosError):
        packed(made)
