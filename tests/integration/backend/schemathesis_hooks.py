"""What schemathesis has to be told: a body of zstd, or of JSON lines, is bytes."""

from __future__ import annotations

from typing import Any

import schemathesis


@schemathesis.serializer("application/zstd", "application/x-ndjson")
def as_bytes(_context: Any, value: Any) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode("utf-8", "replace")
