from __future__ import annotations

import io
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kaos_formats import tar
from kaos_formats.tar import MAX_EXTENDED_HEADER, TarError, TarReader
from tests.support import archives

NAMES = st.text("abc/é \n", min_size=1, max_size=300).filter(
    lambda n: not n.startswith("/") and n.strip("/") == n
)
FILES = st.lists(
    st.tuples(NAMES, st.binary(max_size=1500), st.sampled_from([0, 0o600, 0o644, 0o755])), max_size=4
)


def written(files: list[tuple[str, bytes, int]]) -> bytes:
    members = [tar.header(n, len(d), mode, 7) + d + tar.padding(len(d)) for n, d, mode in files]
    return b"".join(members) + tar.END


@given(FILES)
def test_the_reader_reads_what_was_written(files: list[tuple[str, bytes, int]]) -> None:
    reader = TarReader(io.BytesIO(written(files)))
    assert [(m.name, b"".join(reader.payload()), m.mode) for m in reader] == files


def test_the_rest_of_a_file() -> None:
    data = tar.header("sub/a", 3, 0o644, offset=8**12) + b"end" + tar.padding(3) + tar.header("b", 0, 0o644)
    reader = TarReader(io.BytesIO(data + tar.END))
    found = [(m.name, m.offset, m.size, b"".join(reader.payload())) for m in reader]
    assert found == [("sub/a", 8**12, 3, b"end"), ("b", 0, 0, b"")]


@given(FILES)
def test_the_standard_library_reads_what_was_written(files: list[tuple[str, bytes, int]]) -> None:
    with tarfile.open(fileobj=io.BytesIO(written(files))) as archive:
        found = [
            (m.name, file.read(), m.mode) for m in archive if (file := archive.extractfile(m)) is not None
        ]
    assert found == files


@given(
    st.lists(st.tuples(NAMES, st.binary(max_size=1500)), max_size=4),
    st.sampled_from([tarfile.PAX_FORMAT, tarfile.GNU_FORMAT]),
)
def test_the_reader_reads_what_the_standard_library_writes(
    files: list[tuple[str, bytes]], format: int
) -> None:
    reader = TarReader(io.BytesIO(archives.tar([archives.member(n, d) for n, d in files], format=format)))
    assert [(m.name, b"".join(reader.payload())) for m in reader] == files


@pytest.mark.parametrize("length", [99, 100, 101, 156, 255])
def test_long_names(length: int) -> None:
    name = "n" * length
    with tarfile.open(fileobj=io.BytesIO(tar.header(name, 0, 0o644) + tar.END)) as archive:
        assert archive.getnames() == [name]


@pytest.mark.parametrize("size", [0, 1, 8**11 - 1, 8**11, 1 << 40])
def test_sizes_up_to_and_beyond_ustar(size: int) -> None:
    raw = tar.header("f", size, 0o755)
    with tarfile.open(fileobj=io.BytesIO(raw + tar.END), ignore_zeros=True) as archive:
        member = archive.next()
    assert member is not None
    assert (member.size, member.mode) == (size, 0o755)
    assert next(iter(TarReader(io.BytesIO(raw)))).size == size


@pytest.mark.parametrize("is_dir", [False, True])
def test_ordinary_header_is_what_tarfile_writes(is_dir: bool) -> None:
    theirs = tarfile.TarInfo("a/b.txt")
    theirs.size, theirs.mtime, theirs.mode = 1234, 1_700_000_000, 0o755
    theirs.type = tarfile.DIRTYPE if is_dir else tarfile.REGTYPE
    # tarfile leaves the device numbers out for plain files; nothing else may differ.
    ours = tarfile.TarInfo.frombuf(
        tar.header("a/b.txt", 1234, 0o755, 1_700_000_000, is_dir=is_dir), "ascii", "strict"
    )
    for attribute in ("name", "size", "mode", "mtime", "uid", "gid", "uname", "gname", "type", "linkname"):
        assert getattr(ours, attribute) == getattr(theirs, attribute)


def test_payloads_that_are_not_read_are_skipped() -> None:
    members = [archives.member("a", b"x" * 700), archives.member("b", b"y")]
    reader = TarReader(io.BytesIO(archives.tar(members)))
    assert [m.name for m in reader] == ["a", "b"]


def test_extended_headers_have_a_limit() -> None:
    with pytest.raises(TarError, match="extended header"):
        list(TarReader(io.BytesIO(archives.tar([archives.member("a" * (MAX_EXTENDED_HEADER + 1))]))))
