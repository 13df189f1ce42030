"""The messages of the engine's own service."""

from __future__ import annotations

import msgspec
import pytest

from kaos_formats import kaos_v1


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
