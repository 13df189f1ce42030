"""Contexts: the backends that this user knows by name, and which of them commands speak to.

They are kept in ``config.json`` of KAOS_HOME, their tokens apart from them in ``credentials.json``: what is
shown has none in it. Both are files of the user alone, and each write leaves a whole one.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from kaos_cli.errors import KaosError, did_you_mean
from kaos_formats.files import write_atomically

LOCAL = "local"
"""The name of the backend of KAOS_HOME itself."""
MAX_NAME_LENGTH = 64
MAX_CA_BYTES = 1 << 20
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")
_CREDENTIALS = "credentials.json"


@dataclass(frozen=True, slots=True)
class Context:
    """``ca_cert``: PEM text of what signs the backend's certificate, "" for what the system trusts.
    ``workspace``: of later commands, "" for the default one. ``insecure``: plain HTTP beyond this machine.
    """

    name: str
    url: str
    ca_cert: str = ""
    workspace: str = ""
    insecure: bool = False


def known(settings: Mapping[str, Any]) -> dict[str, Context]:
    """The contexts in the content of config.json. Raises ValueError for what is none."""
    found: dict[str, Context] = {}
    for name, one in dict(settings.get("contexts", {})).items():
        try:
            context = Context(name=name, **one)
        except TypeError:
            raise ValueError(f"its context {name!r} has fields that this kaos does not know") from None
        texts = (context.name, context.url, context.ca_cert, context.workspace)
        if not all(isinstance(text, str) for text in texts) or not isinstance(context.insecure, bool):
            raise ValueError(f"its context {name!r} has a value of another type")
        found[name] = context
    return found


def packed(contexts: Mapping[str, Context]) -> dict[str, dict[str, Any]]:
    """What ``known`` reads."""
    told = {name: asdict(context) for name, context in contexts.items()}
    return {name: {k: v for k, v in one.items() if v and k != "name"} for name, one in told.items()}


def check_name(name: str) -> str:
    """``name`` itself if a context may have it. Raises KaosError (usage)."""
    if name == LOCAL:
        raise KaosError(
            "usage", f"{LOCAL} is the backend of this machine", hint="choose another name for the context"
        )
    if not _NAME.fullmatch(name) or len(name) > MAX_NAME_LENGTH:
        raise KaosError(
            "usage",
            f"{name!r} is no name of a context",
            hint=f"use letters, digits, '-', '_' and '.', at most {MAX_NAME_LENGTH}, a letter or digit first",
        )
    return name


def check_url(url: str, insecure: bool) -> str:
    """The address as it is kept. Raises KaosError (usage) for what is none, and for one over which others
    could read the token and all that is sent, unless that is ``insecure`` on purpose.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise KaosError("usage", f"{url!r} is no backend address", hint="use https://HOST:PORT")
    if parts.username is not None or parts.query or parts.fragment:
        raise KaosError(
            "usage",
            "a backend address is https://HOST:PORT, without more",
            hint="give the token with --token",
        )
    if parts.scheme == "http" and not insecure and not _is_loopback(parts.hostname):
        raise KaosError(
            "usage",
            f"{url} is not encrypted: others could read the token and all that is sent",
            hint="use https://, or --insecure (KAOS_INSECURE=1) where the network itself is trusted",
        )
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    where = host if port is None else f"{host}:{port}"
    return f"{parts.scheme}://{where}{parts.path.rstrip('/')}"


def read_ca(path: Path) -> str:
    """The PEM text in a file. Raises KaosError (usage) if no certificate is in it."""
    import ssl

    try:
        with path.open("rb") as file:
            text = file.read(MAX_CA_BYTES).decode("ascii", "replace")
        ssl.create_default_context(cadata=text)
    except (ssl.SSLError, ValueError) as error:
        raise KaosError(
            "usage",
            f"{path} has no certificate in PEM: {error}",
            hint="it begins with -----BEGIN CERTIFICATE-----",
        ) from error
    return text


def no_such(name: str, contexts: Mapping[str, Context]) -> KaosError:
    """The error of a context that is not there."""
    near = did_you_mean(name, [LOCAL, *contexts])
    return KaosError(
        "no_such_context",
        f"there is no context {name!r}",
        hint=f"{near}\nkaos context add {name} URL adds it",
    )


def any_added(home: Path) -> bool:
    """Whether there ever was a context: false is sure."""
    return os.path.lexists(home / _CREDENTIALS)


def tokens(home: Path) -> dict[str, str]:
    """The tokens by the names of their contexts. Raises KaosError for a file that is not whole."""
    path = home / _CREDENTIALS
    try:
        content = json.loads(path.read_bytes())["tokens"]
        if not isinstance(content, dict) or not all(isinstance(token, str) for token in content.values()):
            raise ValueError("tokens by name are missing")
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise KaosError(
            "io", f"{path} cannot be read: {error}", hint="remove it and add the contexts again"
        ) from error
    return content


def write_tokens(home: Path, all_of_them: Mapping[str, str]) -> None:
    """Keep these tokens, and no others."""
    content = json.dumps({"tokens": dict(all_of_them)}, indent=2) + "\n"
    write_atomically(home / _CREDENTIALS, content.encode())


def _is_loopback(host: str) -> bool:
    import ipaddress

    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"
