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
    raw = zstandard.ZstdDecompressor().stream_reader(io.BytesIO(body), read_across_frames=True).read()
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
    # Only where compressed frames and stored ones change, chunks are short.
    assert len([one for one in sizes if one < 256 << 10]) <= 4


def test_what_has_come_of_a_file_is_not_packed_again(tmp_path: Path) -> None:
    files = {"a": os.urandom(3 << 20), "b": os.urandom(100_000), "c": b"small", "d": os.urandom(2 << 20)}
    made = bundle.read(write_data(tmp_path / "d", files), "data", tmp_path / "c")
    begun = {entry.hash: entry.file.size - left for entry, left in zip(made.entries, (5, 7, 5), strict=False)}
    begun[made.entries[3].hash] = 1000
    seen: list[int] = []
    body = b"".join(pack.pack(made, made.entries, seen.append, begun))
    rests = {path: content for path, (content, _) in unpacked(body).items() if path in files}
    starts = {path: len(files[path]) - len(rest) for path, rest in rests.items()}
    assert starts == {"a": (3 << 20) - 5, "b": 99_993, "c": 0, "d": 1000}
    assert all(files[path][start:] == rests[path] for path, start in starts.items())
    assert sum(seen) == sum(map(len, rests.values()))


def frames(body: bytes) -> list[tuple[int, bool]]:
    """(bytes, is it all stored) of each frame."""
    found = []
    while body:
        at, last, raw = zstandard.frame_header_size(body), False, True
        while not last:
            head = int.from_bytes(body[at : at + 3], "little")
            last, kind, size = bool(head & 1), head >> 1 & 3, head >> 3
            raw = raw and kind == 0
            at += 3 + (1 if kind == 1 else size)
        found.append((at, raw))
        body = body[at:]
    return found


def test_what_does_not_compress_is_not_compressed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    noise = os.urandom(5 << 20)
    text = b"".join(b"%d,%d\n" % (i, i * i) for i in range(100_000))
    # A twentieth of it could be saved.
    dense = bytes(b & 0xFC if i % 8 == 0 else b for i, b in enumerate(os.urandom(1 << 20)))
    files = {"a": noise, "b": text, "c": dense, "d": b"small"}
    made = bundle.read(write_data(tmp_path / "d", files), "data", tmp_path / "c")
    given: list[int] = []
    real = pack.is_worth_it
    monkeypatch.setattr(pack, "is_worth_it", lambda s, piece: real(s, piece) or given.append(len(piece)))
    body = packed(made)
    assert {path: content for path, (content, _) in unpacked(body).items() if path in files} == files
    assert sum(given) >= len(noise) + len(dense)
    stored = [size for size, raw in frames(body) if raw]
    assert sum(stored) >= len(noise) + len(dense)
    assert len(body) - sum(stored) < len(text) // 2


def test_a_stored_frame_of_any_size() -> None:
    for size in (1, pack.BLOCK_LIMIT - 1, pack.BLOCK_LIMIT, pack.BLOCK_LIMIT + 1, pack.STORED_BYTES):
        data = os.urandom(size)
        frame = pack.stored(memoryview(data))
        assert len(frame) <= pack.CHUNK_BYTES
        assert zstandard.ZstdDecompressor(max_window_size=8 << 20).decompressobj().decompress(frame) == data


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
