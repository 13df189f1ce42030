"""Expecting a status and a part of its text."""

from __future__ import annotations

import grpc
import pytest


def refused(code: grpc.StatusCode, text: str) -> pytest.RaisesExc[grpc.RpcError]:
    """A context in which a call must end with `code` and with `text` somewhere in the details."""

    def check(error: grpc.RpcError) -> bool:
        assert text in error.details()
        return bool(error.code() == code)

    return pytest.RaisesExc(grpc.RpcError, check=check)
