"""What Pachyderm keeps of a datum in the meta repo (reference 11.5). Pure."""

from __future__ import annotations

import json


def reason_of(content: bytes) -> str:
    """Why the datum failed of which ``content`` is the meta file; "" where that does not say."""
    try:
        # Readers take only the first JSON message of a meta file.
        meta, _ = json.JSONDecoder().raw_decode(content.decode("utf-8", "replace").lstrip())
    except (ValueError, RecursionError):
        return ""
    reason = str(meta.get("reason", "")) if isinstance(meta, dict) else ""
    return reason.encode("utf-8", "replace").decode()
