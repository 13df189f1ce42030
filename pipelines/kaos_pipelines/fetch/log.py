"""The log of a fetch: its standard output, without what URLs and servers' words may have of secrets."""

from __future__ import annotations

import re
import time
from collections.abc import Iterable
from urllib.parse import urlsplit

from kaos_formats.masking import MASK, Masker
from kaos_formats.quantity import format_bytes

# A query may be a signature (presigned URLs).
_QUERY = re.compile(r"(?<=\?)[^\s'\"<>]*[^\s'\"<>:;,]")
_EVERY_S = 5.0


class FetchLog:
    """One line at a time, at once."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        self._mask = Masker(secrets=secrets)

    def mask(self, text: str) -> str:
        text = re.sub(r"(?<=://)\S+", lambda match: _QUERY.sub(MASK, match[0]), text)
        return " ".join(self._mask(text).split())

    def say(self, line: str) -> None:
        print(self.mask(line), flush=True)


def shown(url: str) -> str:
    """A URL for people: without query and fragment that are secret or long."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return url.partition("?")[0][:200]
    return parts._replace(query=MASK if parts.query else "").geturl()[:300]


class Progress:
    """Tells how far a fetch has come, every few seconds at most."""

    def __init__(self, log: FetchLog, files: int) -> None:
        self._log, self._files = log, files
        self._begun = self._told = time.monotonic()
        self.done = self.reused = self.bytes = 0

    def came(self, count: int) -> None:
        """So many bytes have come."""
        self.bytes += count
        self._tell()

    def finished(self, *, reused: bool) -> None:
        """A file is there."""
        self.done += 1
        self.reused += reused
        self._tell()

    def summary(self) -> str:
        """What was done, in words."""
        took = max(time.monotonic() - self._begun, 0.001)
        speed = f" ({format_bytes(int(self.bytes / took))}/s)" if self.bytes else ""
        kept = f", {self.reused} unchanged" if self.reused else ""
        return f"{self.done} of {self._files} file(s){kept}, {format_bytes(self.bytes)} fetched{speed}"

    def _tell(self) -> None:
        now = time.monotonic()
        if now - self._told >= _EVERY_S:
            self._told = now
            self._log.say(self.summary())
