"""Protobuf's wire format: varints and length-delimited fields.

For the few messages that are many or large: betterproto is pure Python and would dominate. A field is a
varint tag (number << 3 | type) and, for the length-delimited type 2, a varint length and the bytes.
"""

from __future__ import annotations

from collections.abc import Iterator

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_VARINT_BITS = 64


def varint(value: int) -> bytes:
    """An unsigned number, encoded."""
    if value < 0x80:
        return bytes((value,))
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def field(number: int, content: bytes) -> bytes:
    """A length-delimited field."""
    return b"".join((varint(number << 3 | _BYTES), varint(len(content)), content))


def number(field_number: int, value: int) -> bytes:
    """A varint field; nothing for 0, which is what a missing one means."""
    return varint(field_number << 3 | _VARINT) + varint(value) if value else b""


def text(field_number: int, value: str) -> bytes:
    """A string field; nothing for "", which is what a missing one means."""
    return field(field_number, value.encode()) if value else b""


def fields(data: memoryview) -> Iterator[tuple[int, memoryview]]:
    """(number, content) of every length-delimited field of a message; other fields are passed over.

    Raises ValueError where the message is cut short or no protobuf at all.
    """
    for number, value in values(data):
        if not isinstance(value, int):
            yield number, value


def values(data: memoryview) -> Iterator[tuple[int, memoryview | int]]:
    """As `fields`, and (number, value) of every varint as well, which is not negative."""
    at, end = 0, len(data)
    try:
        while at < end:
            tag, at = _read_varint(data, at)
            kind = tag & 7
            if kind == _BYTES:
                length, at = _read_varint(data, at)
                if at + length > end:
                    raise IndexError("a field is cut short")
                yield tag >> 3, data[at : at + length]
                at += length
            elif kind == _VARINT:
                value, at = _read_varint(data, at)
                yield tag >> 3, value
            elif kind == _FIXED64:
                at += 8
            elif kind == _FIXED32:
                at += 4
            else:
                raise IndexError(f"wire type {kind}")
        if at > end:
            raise IndexError("a field is cut short")
    except IndexError as error:
        raise ValueError(f"the message cannot be decoded ({error})") from error


def _read_varint(data: memoryview, at: int) -> tuple[int, int]:
    """(value, position after it)."""
    byte = data[at]
    if byte < 0x80:
        return byte, at + 1
    value, shift = byte & 0x7F, 7
    while True:
        at += 1
        byte = data[at]
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at + 1
        shift += 7
        if shift >= _VARINT_BITS:
            raise IndexError("a varint is too long")
