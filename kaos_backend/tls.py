"""The certificate with which a backend serves others, and the handshakes before there is a connection."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from cryptography import x509
from cryptography.x509.oid import NameOID

from kaos_backend.settings import Limits, SettingsError

# A key that is encrypted is refused; without one, OpenSSL would ask for a password at the terminal.
_NOBODY_TYPES = ""
_PAUSE_S = 0.1
_State = tuple[tuple[int, int, int], ...]

_log = logging.getLogger("kaos_backend")


class Certificate:
    """A certificate (with those that lead to what signs it) and its key, in PEM. ``context`` always has the
    newest that could be read.

    Raises SettingsError if they cannot be used.
    """

    def __init__(self, cert: Path, key: Path) -> None:
        self._files = (cert, key)
        self.names: frozenset[str] = frozenset()
        """The host names that it is for, in small letters; ``*.`` stands for one label."""
        self.context = _context()
        self._loaded = self._state()
        self._load()

    def renew(self, always: bool = False) -> bool:
        """Whether the files were read again, as they have changed (or ``always``). Connections that are there
        keep what they have; files that cannot be used are told in the log and change nothing.
        """
        found = self._state()
        if found == self._loaded and not always:
            return False
        self._loaded = found
        try:
            self._load()
        except SettingsError as error:
            _log.error("the certificate stays as it is: %s", error)
            return False
        _log.info("the certificate was read again")
        return True

    def _load(self) -> None:
        cert, key = self._files
        try:
            # First where it does no harm: a half one must not replace the one in use.
            _context().load_cert_chain(cert, key, _NOBODY_TYPES)
            found = x509.load_pem_x509_certificate(cert.read_bytes())
            self.context.load_cert_chain(cert, key, _NOBODY_TYPES)
        except (OSError, ValueError) as error:
            raise SettingsError(
                f"the certificate {cert} with the key {key} cannot be used: {error}"
            ) from None
        self.names = _names(found)

    def _state(self) -> _State:
        state: list[tuple[int, int, int]] = []
        for path in self._files:
            with suppress(OSError):
                seen = path.stat()
                state.append((seen.st_mtime_ns, seen.st_ino, seen.st_size))
        return tuple(state)


def _context() -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    return context


def _names(certificate: x509.Certificate) -> frozenset[str]:
    try:
        others = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
        found = others.get_values_for_type(x509.DNSName)
    except x509.ExtensionNotFound:
        found = [str(name.value) for name in certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
    return frozenset(name.lower() for name in found)


class Doorstep:
    """Where connections wait for the end of their handshake. Each costs a quarter of a megabyte by then:
    there are as many as there may be connections, and who has waited longest makes room for a new one.
    """

    def __init__(
        self, certificate: Certificate, limits: Limits, connection: Callable[[], asyncio.Protocol]
    ) -> None:
        self._certificate = certificate
        self._limits = limits
        self._connection = connection
        # In the order in which they came.
        self._waiting: dict[asyncio.Task[None], None] = {}

    async def answer(self, listener: socket.socket) -> None:
        """Lets in who comes, until it is cancelled."""
        listener.setblocking(False)
        loop = asyncio.get_running_loop()
        while True:
            try:
                accepted, _ = await loop.sock_accept(listener)
            except OSError as error:
                # No descriptor is left, as a rule; or it hung up at once.
                _log.warning("no connection can be taken just now: %s", error)
                await asyncio.sleep(_PAUSE_S)
                continue
            if len(self._waiting) >= self._limits.connections:
                next(iter(self._waiting)).cancel()
            task = loop.create_task(self._shake_hands(accepted))
            self._waiting[task] = None
            task.add_done_callback(self._waiting.pop)

    async def _shake_hands(self, accepted: socket.socket) -> None:
        # Who speaks no TLS, or does not trust us, or is too slow: there is nothing to answer in.
        with suppress(OSError):
            await asyncio.get_running_loop().connect_accepted_socket(
                self._connection,
                accepted,
                ssl=self._certificate.context,
                ssl_handshake_timeout=self._limits.head_s,
            )
