"""What client and backend tell each other with every message: which version they are, and of which API."""

from __future__ import annotations

API = 1
"""The version of the HTTP API, as in ``/v1``: counts up when a request or an answer changes its meaning or
goes. Programs of different versions work together as long as they speak the same one."""

API_HEADER = "X-Kaos-Api"
VERSION_HEADER = "X-Kaos-Version"
