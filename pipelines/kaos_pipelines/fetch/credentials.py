"""What servers are shown: credentials from the environment, and those that a deploy gave by name.

A deploy's are given as secrets, whose names are those of the variables that the usual programs read. Only
these are taken: a variable of any name could make this process load somebody else's code.
"""

from __future__ import annotations

import json
import netrc
import os
import re
import tempfile
from base64 import b64encode
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from kaos_formats.build_secrets import in_environment
from kaos_pipelines.fetch.errors import FetchError

NETRC = "KAOS_FETCH_NETRC"
"""A .netrc (curl's, git's): machine, login and password for http and git; a login of `bearer` makes the
password a token (`Authorization: Bearer`)."""
GOOGLE = "GOOGLE_APPLICATION_CREDENTIALS_JSON"
"""The text of what GOOGLE_APPLICATION_CREDENTIALS names."""
_VARIABLES = frozenset(
    {
        "AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_REGION", "AWS_DEFAULT_REGION",
        "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3",
        "AZURE_STORAGE_ACCOUNT_NAME", "AZURE_STORAGE_ACCOUNT_KEY", "AZURE_STORAGE_SAS_TOKEN",
        "AZURE_STORAGE_CONNECTION_STRING", "AZURE_STORAGE_CLIENT_ID", "AZURE_STORAGE_CLIENT_SECRET",
        "AZURE_STORAGE_TENANT_ID",
    }
)  # fmt: skip
_SECRET = re.compile(r"SECRET|KEY|TOKEN|CONNECTION")
NAMES = frozenset({NETRC, GOOGLE, *_VARIABLES})
"""The secrets that a fetch takes notice of."""
_BEARER = "bearer"


@dataclass(frozen=True, slots=True)
class Credentials:
    """`logins`: host → (login, password); `google`: of a service account, what its JSON says."""

    logins: Mapping[str, tuple[str, str]] = field(default_factory=dict, repr=False)
    google: Mapping[str, object] | None = field(default=None, repr=False)

    def authorization(self, host: str) -> str | None:
        """The value of the header `Authorization` for a host; None without any."""
        login, password = self.login(host) or ("", "")
        if not login and not password:
            return None
        if login.lower() == _BEARER:
            return f"Bearer {password}"
        return "Basic " + b64encode(f"{login}:{password}".encode()).decode()

    def login(self, host: str) -> tuple[str, str] | None:
        return self.logins.get(host.lower())


@contextmanager
def given(env: Mapping[str, str]) -> Iterator[tuple[Credentials, list[str]]]:
    """The credentials of a fetch, and what of them must be in no log; those that libraries read themselves
    are in this process' environment meanwhile.

    Raises FetchError for one that cannot be read. Secrets of other names are those of builds, and left alone.
    """
    secrets = in_environment(env)
    variables = {name: value.strip() for name, value in secrets.items() if name in _VARIABLES}
    before = {name: os.environ.get(name) for name in variables}
    google = _google(secrets.get(GOOGLE) or env.get(GOOGLE) or "")
    logins = _users(env) | _logins(secrets.get(NETRC) or env.get(NETRC) or "")
    hidden = [password for _, password in logins.values()]
    hidden += [
        value for name, value in {**env, **variables}.items() if name in _VARIABLES and _SECRET.search(name)
    ]
    hidden += [str(google["private_key"])] if google and "private_key" in google else []
    os.environ.update(variables)
    try:
        yield Credentials(logins, google), hidden
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _google(text: str) -> Mapping[str, object] | None:
    if not text:
        return None
    try:
        found = json.loads(text)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise FetchError(f"{GOOGLE} is no JSON of a Google account")
    return found


def _users(env: Mapping[str, str]) -> dict[str, tuple[str, str]]:
    """What the .netrc of the user says that the backend runs as."""
    path = Path(env["NETRC"]) if env.get("NETRC") else Path(env.get("HOME") or "/nonexistent") / ".netrc"
    try:
        return _logins(path.read_text("utf-8"))
    except (OSError, UnicodeDecodeError):
        return {}


def _logins(text: str) -> dict[str, tuple[str, str]]:
    if not text:
        return {}
    with tempfile.TemporaryDirectory(prefix="kaos-netrc-") as folder:
        path = Path(folder) / "netrc"
        path.write_text(text if text.endswith("\n") else text + "\n", "utf-8")
        try:
            hosts = netrc.netrc(path).hosts
        except netrc.NetrcParseError as error:
            # Its words may quote a password.
            raise FetchError(f"{NETRC} is no .netrc: line {error.lineno}") from None
    return {host.lower(): (login or "", password or "") for host, (login, _, password) in hosts.items()}
