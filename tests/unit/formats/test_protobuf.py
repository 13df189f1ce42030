from __future__ import annotations

import pytest
from betterproto import encode_varint
from hypothesis import given
from hypothesis import strategies as st

from kaos_formats.protobuf import field, fields, varint


@given(st.integers(0, 2**64 - 1))
def test_varints_are_what_the_sdk_writes(value: int) -> None:
    assert varint(value) == encode_varint(value)


@given(st.lists(st.tuples(st.integers(1, 2**29 - 1), st.binary(max_size=300))))
def test_what_is_written_is_read(content: list[tuple[int, bytes]]) -> None:
    message = b"".join(field(number, data) for number, data in content)
    assert [(number, bytes(data)) for number, data in fields(memoryview(message))] == content


def test_other_fields_are_passed_over() -> None:
    message = b"\x08\x96\x01" + b"\x11" + bytes(8) + b"\x1d" + bytes(4) + field(4, b"x")
    assert [(number, bytes(data)) for number, data in fields(memoryview(message))] == [(4, b"x")]


@given(st.binary(max_size=40))
def test_garbage_is_read_or_refused(data: bytes) -> None:
    try:
        total = sum(len(content) for _, content in fields(memoryview(data)))
    except ValueError:
        return
    assert total <= len(data)


@pytest.mark.parametrize(
    "message", [b"\x80", b"\x0a\x05abc", b"\x0b", b"\x08" + b"\xff" * 11, b"\x11\x00", b"\x0a" + b"\xff" * 10]
)
def test_cut_short_or_no_protobuf(message: bytes) -> None:
    with pytest.raises(ValueError, match="cannot be decoded"):
        list(fields(memoryview(message)))
