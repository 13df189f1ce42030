"""Secrets inside URLs, left out of whatever people or later commits read."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from urllib.parse import unquote

MASK = "****"
# What stands between :// and the last @ before the path.
_USER_INFO = re.compile(r"(?<=://)[^\s/'\"<>?#]+(?=@)")
# Shorter ones would mask parts of ordinary words.
_SHORTEST = 4


def mask(text: str) -> str:
    """`text` with user and password of every URL in it masked. Idempotent."""
    return _USER_INFO.sub(MASK, text)


class Masker:
    """`mask`, and wherever else they occur the passwords of the URLs in `texts` and lines of `secrets`."""

    def __init__(self, texts: Iterable[str] = (), secrets: Iterable[str] = ()) -> None:
        lines = {line.strip() for secret in secrets for line in secret.splitlines()}
        found = lines.union(*map(_secrets, texts))
        secrets = {secret for secret in found if len(secret) >= _SHORTEST}
        longest_first = sorted(secrets, key=lambda secret: (-len(secret), secret))
        self._secrets = re.compile("|".join(map(re.escape, longest_first))) if secrets else None

    def __call__(self, text: str) -> str:
        text = mask(text)
        return text if self._secrets is None else self._secrets.sub(MASK, text)


def _secrets(text: str) -> Iterator[str]:
    for found in _USER_INFO.findall(text):
        user, colon, password = found.partition(":")
        # A token is often all there is; "git" is what ssh wants and no secret.
        secret = password if colon and password not in ("", "x-oauth-basic") else user
        if secret not in ("git", MASK):
            yield secret
            yield unquote(secret)
