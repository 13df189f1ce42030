"""The tokens with which others use this backend: ``tokens.json`` of the home, its own and not pachd's.

Of each only the SHA-256 is kept, which is enough for 256 random bits. What is answered is on the disk; the
file is replaced whole, and only the backend, of which there is one per home, writes it.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from pathlib import Path
from typing import Literal

import msgspec

from kaos_backend.domain.rights import Caller, Granted
from kaos_backend.errors import Exists, Internal, InvalidName, InvalidRequest, NoSuchToken, Unauthorized
from kaos_formats.files import write_atomically
from kaos_formats.names import check_workspace

PREFIX = "kaos_"
"""What a token begins with, so that one that lies about is recognised (by scanners of secrets, too)."""
TOKEN_BYTES = 32
MAX_TOKENS = 1000
MAX_EXPIRY = timedelta(days=36_500)
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.@-]{0,63}")


class Token(msgspec.Struct, frozen=True):
    """``by``: whose name was put to its making. ``workspaces`` None: all."""

    name: str
    sha256: str
    rights: Granted
    workspaces: list[str] | None
    created: datetime
    by: str
    expires: datetime | None

    @property
    def caller(self) -> Caller:
        some = None if self.workspaces is None else frozenset(self.workspaces)
        return Caller(self.name, self.rights, some, self.expires)


class _File(msgspec.Struct, frozen=True):
    version: Literal[1]
    tokens: list[Token]


class Tokens:
    """All tokens of a home."""

    def __init__(self, path: Path, now: Callable[[], datetime]) -> None:
        self._path = path
        self._now = now
        self._guard = threading.Lock()
        self._open: dict[str, set[Callable[[], None]]] = {}
        self.problem = ""
        """Why nobody is let in: the file cannot be read."""
        self._tokens: dict[str, Token] = {}
        try:
            kept = msgspec.json.decode(path.read_bytes(), type=_File)
            self._tokens = {token.name: token for token in kept.tokens}
        except FileNotFoundError:
            pass
        except (OSError, msgspec.DecodeError) as error:
            self.problem = f"{path} cannot be read: {error}"

    def caller(self, secret: bytes) -> Caller:
        """Who has this token. Raises Unauthorized; how long it takes tells nothing of any token."""
        digest = hashlib.sha256(secret).hexdigest().encode()
        found = [t for t in self._all() if hmac.compare_digest(t.sha256.encode(), digest)]
        if not found:
            raise Unauthorized("no or a wrong token", hint="tokens are made with `kaos token create NAME`")
        if (expires := found[0].expires) is not None and expires <= self._now():
            raise expired(found[0].name)
        return found[0].caller

    def listed(self) -> list[Token]:
        """By name. Raises Internal where the file cannot be read."""
        self._check()
        return sorted(self._all(), key=lambda token: token.name)

    def create(
        self, name: str, rights: Granted, workspaces: list[str] | None, expires_s: float | None, by: str
    ) -> tuple[Token, str]:
        """A new token, and what has to be sent to be it, which is not kept.

        Raises InvalidName, InvalidRequest, Exists; Internal where the file cannot be read.
        """
        if not _NAME.fullmatch(name):
            raise InvalidName(
                f"{name!r} is no name of a token",
                hint="use letters, digits and '_.@-', at most 64, with a letter or a digit first",
            )
        for workspace in workspaces or ():
            check_workspace(workspace)
        if workspaces == [] or (expires_s is not None and not 0 < expires_s <= MAX_EXPIRY.total_seconds()):
            raise InvalidRequest("a token is for one workspace at least, and for more than no time")
        now = self._now()
        secret = PREFIX + secrets.token_urlsafe(TOKEN_BYTES)
        token = Token(
            name=name,
            sha256=hashlib.sha256(secret.encode()).hexdigest(),
            rights=rights,
            workspaces=None if workspaces is None else sorted(set(workspaces)),
            created=now,
            by=by,
            expires=None if expires_s is None else now + timedelta(seconds=expires_s),
        )
        with self._guard:
            self._check()
            if name in self._tokens:
                raise Exists(f"there is a token {name} already", hint=f"kaos token revoke {name}")
            if len(self._tokens) >= MAX_TOKENS:
                raise InvalidRequest(f"there are {MAX_TOKENS} tokens already", hint="revoke those of no use")
            self._replace(self._tokens | {name: token})
        return token, secret

    def revoke(self, name: str) -> Token:
        """Ends a token, and what goes on with it. Raises NoSuchToken; Internal if the file cannot be read."""
        with self._guard:
            self._check()
            if name not in self._tokens:
                raise NoSuchToken(f"there is no token {name}", name=name)
            token = self._tokens[name]
            self._replace({k: v for k, v in self._tokens.items() if k != name})
            ends = list(self._open.get(name, ()))
        for end in ends:
            end()
        return token

    @contextmanager
    def held(self, caller: Caller, end: Callable[[], None]) -> Iterator[None]:
        """``end`` is called, from any thread, if the token of ``caller`` is revoked within the block."""
        with self._guard:
            mine = self._open.setdefault(caller.name, set())
            mine.add(end)
            token = self._tokens.get(caller.name)
            gone = token is None or token.caller != caller
        if gone:
            end()
        try:
            yield
        finally:
            with self._guard:
                mine.discard(end)
                if not mine and self._open.get(caller.name) is mine:
                    del self._open[caller.name]

    def _all(self) -> list[Token]:
        return list(self._tokens.values())

    def _check(self) -> None:
        if self.problem:
            raise Internal(self.problem, hint="mend or remove it, and start the backend again")

    def _replace(self, tokens: dict[str, Token]) -> None:
        content = msgspec.json.encode(_File(1, list(tokens.values())))
        write_atomically(self._path, content + b"\n")
        self._tokens = tokens


def expired(name: str) -> Unauthorized:
    return Unauthorized(
        f"the token {name} has expired", hint="ask who administers the backend for another one"
    )
