"""A backend elsewhere: a context, or KAOS_ENDPOINT. Over the network alone, and nothing is started for it."""

from __future__ import annotations

import ssl
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from kaos_cli import __version__, contexts
from kaos_cli.config import Home
from kaos_cli.contexts import Context
from kaos_cli.errors import ConnectionLost, KaosError
from kaos_cli.transport import Endpoint, Transport
from kaos_formats.http_api import API

HEALTH_TIMEOUT_S = 15.0
RESTART_S = 60.0
"""For how long a command that has lost its backend waits for it to be started again."""


def endpoint_of(home: Home, env: Mapping[str, str]) -> Endpoint | None:
    """The backend elsewhere that a command is to speak to; None is that of this home.

    Raises KaosError (usage, no_such_context).
    """
    if (url := env.get("KAOS_ENDPOINT")) and not home.chosen:
        token = env.get("KAOS_TOKEN")
        if not token:
            raise KaosError(
                "usage",
                "KAOS_ENDPOINT is set but KAOS_TOKEN is not",
                hint="set KAOS_TOKEN to that backend's token",
            )
        ca_cert = contexts.read_ca(Path(file)) if (file := env.get("KAOS_CA_CERT")) else ""
        return Endpoint(contexts.check_url(url, is_insecure(env)), token, local=False, ca_cert=ca_cert)
    if (context := home.context()) is None:
        return None
    # One from the environment is for a context that has none: else it would go to whom it is not meant for.
    token = contexts.tokens(home.path).get(context.name) or env.get("KAOS_TOKEN")
    if not token:
        raise KaosError(
            "usage",
            f"there is no token for context {context.name}",
            hint=f"kaos context add {context.name} {context.url} --token - reads one; or set KAOS_TOKEN",
        )
    return of_context(context, token, is_insecure(env))


def of_context(context: Context, token: str, insecure: bool = False) -> Endpoint:
    """Where a context leads. Raises KaosError (usage)."""
    url = contexts.check_url(context.url, context.insecure or insecure)
    return Endpoint(url, token, local=False, ca_cert=context.ca_cert, context=context.name)


def is_insecure(env: Mapping[str, str]) -> bool:
    return env.get("KAOS_INSECURE", "") not in ("", "0")


def connect(endpoint: Endpoint, say: Callable[[str], None]) -> Transport:
    """A transport to a backend elsewhere that answers; says so if it is of another version.

    Raises KaosError: backend_unavailable, version_mismatch, unauthorized.
    """
    transport = Transport(endpoint)
    try:
        health = ask(transport)
    except BaseException:
        transport.close()
        raise
    if (version := health.get("kaos_version", __version__)) != __version__:
        say(f"the backend at {endpoint.url} is kaos {version}, this is kaos {__version__}")
    return transport


def reconnect(endpoint: Endpoint, say: Callable[[str], None]) -> Transport:
    """As ``connect``, for a command that has lost its backend: one that is started again is waited for."""
    deadline = time.monotonic() + RESTART_S
    wait_s, said = 0.1, False
    while True:
        try:
            return connect(endpoint, lambda _text: None)
        except KaosError as error:
            if error.code != "backend_unavailable" or time.monotonic() + wait_s > deadline:
                raise
        if not said:
            say(f"lost {endpoint.url}; waiting for it to come back")
            said = True
        time.sleep(wait_s)
        wait_s = min(2.0, 2 * wait_s)


def ask(transport: Transport) -> dict[str, Any]:
    """What the backend says of itself and of the token. Raises as ``connect`` does."""
    endpoint = transport.endpoint
    try:
        health = transport.json("GET", "/health", timeout_s=HEALTH_TIMEOUT_S)
    except ConnectionLost as error:
        raise _unavailable(endpoint, error) from error
    except KaosError as error:
        if error.code == "version_mismatch":
            version = error.fields.get("backend", "of the backend's version")
            error.hint = f"install kaos {version}, or have the backend updated to {__version__}"
        raise
    theirs = health.get("kaos_version")
    if (api := health.get("api", API)) != API:
        raise KaosError(
            "version_mismatch",
            f"the backend at {endpoint.url} (kaos {theirs}) speaks version {api} of the API, "
            f"this kaos ({__version__}) speaks {API}",
            hint=f"install kaos {theirs}, or have the backend updated to {__version__}",
        )
    return health


def _unavailable(endpoint: Endpoint, error: ConnectionLost) -> KaosError:
    where = f"context {endpoint.context}" if endpoint.context else "KAOS_ENDPOINT"
    back = "--context local uses the backend of this machine"
    cause = error.__cause__
    if isinstance(cause, ssl.SSLCertVerificationError):
        message = f"the certificate of {endpoint.url} is not trusted: {cause.verify_message}"
        hint = "give what signed it: --ca-cert FILE of `kaos context add` (or KAOS_CA_CERT)"
    elif isinstance(cause, ssl.SSLError):
        message = f"{endpoint.url} does not speak TLS: {cause.reason or cause}"
        hint = f"is it http://? {where} has this address"
    else:
        message = f"no backend answers at {endpoint.url}: {error}"
        hint = f"check the address ({where}); {back}"
    return KaosError("backend_unavailable", message, hint=hint)
