"""The messages of the engine's own service."""

from __future__ import annotations

import msgspec
import pytest

from kaos_formats import kaos_v1, protobuf


def test_what_is_written_is_read() -> None:
    finding = kaos_v1.Finding(
        project="p", repo="r.meta", commit="c", path="/d/ü", object="ab", what="is gone", repaired=True
    )
    response = kaos_v1.CheckResponse(finding=finding)
    assert kaos_v1.CheckResponse.FromString(bytes(response)) == response
    assert b"progress" not in bytes(response)
    request = kaos_v1.CheckRequest(repair=True)
    assert kaos_v1.CheckRequest.FromString(bytes(request)) == request


def test_what_a_newer_version_adds_is_passed_over() -> None:
    read = kaos_v1.CheckRequest.FromString(b'{"repair": true, "added later": [1]}')
    assert read == kaos_v1.CheckRequest(repair=True)


@pytest.mark.parametrize("text", [b"", b"[]", b'{"repair": 1}', b"\xff"])
def test_anything_else_is_refused(text: bytes) -> None:
    with pytest.raises((msgspec.DecodeError, UnicodeDecodeError)):
        kaos_v1.CheckRequest.FromString(text)


@pytest.mark.parametrize(
    "block",
    [
        kaos_v1.LogBlock(),
        kaos_v1.LogBlock("d", ("/ü", "/b"), 0, 9, b"1 u \xff\x00\n"),
        kaos_v1.LogBlock(at=1 << 40, to=1 << 41, data=b"x" * 300),
    ],
)
def test_blocks_of_logs_are_read_as_they_are_written(block: kaos_v1.LogBlock) -> None:
    assert kaos_v1.LogBlock.FromString(bytes(block)) == block
    # A field that a newer version has is passed over.
    assert kaos_v1.LogBlock.FromString(bytes(block) + protobuf.field(99, b"more")) == block
    with pytest.raises(ValueError, match="cannot be decoded"):
        kaos_v1.LogBlock.FromString(b"\x0a\x05ab")
