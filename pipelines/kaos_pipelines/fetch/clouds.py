"""The file systems of the object stores: which plug-in of fsspec, with whose credentials, over which
connections.

A URL decides whom to ask, and what is shown there are the credentials of the environment. So a URL must not
lead them to somebody else: only Azure's URLs can name another account.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from types import MethodType
from typing import Any
from urllib.parse import urlsplit

from kaos_pipelines.fetch.cache import key_of
from kaos_pipelines.fetch.credentials import Credentials
from kaos_pipelines.fetch.errors import FetchError
from kaos_pipelines.fetch.settings import Settings

EXTRAS = {"s3": "s3", "gs": "gs", "gcs": "gs", "az": "az", "abfs": "az", "abfss": "az"}
"""Scheme → the extra of kaos that brings its plug-in."""

# They write tracebacks of what is told in a line here.
_TALKATIVE = ("gcsfs", "s3fs", "adlfs", "azure", "aiobotocore", "google")


@dataclass(frozen=True, slots=True)
class Cloud:
    """`system`: an asynchronous file system of fsspec; `owner`: what tells apart who asks whom, for the
    cache.
    """

    system: Any
    owner: str
    close: Callable[[], Any]


async def connect(url: str, settings: Settings, credentials: Credentials) -> Cloud:
    """The file system for a URL. Raises FetchError where its plug-in is missing."""
    scheme = urlsplit(url).scheme
    extra = EXTRAS[scheme]
    for name in _TALKATIVE:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        return await _MAKERS[extra](url, settings, credentials)
    except ImportError as error:
        missing = error.name or "a package"
        raise FetchError(
            f"{scheme} needs {missing}, which is not installed here: pip install 'kaos[{extra}]'"
        ) from error


def account(url: str) -> str:
    """Which connection serves a URL: those of one account share it."""
    parts = urlsplit(url)
    place = parts.netloc.partition("@")[2] if EXTRAS[parts.scheme] == "az" else ""
    return f"{EXTRAS[parts.scheme]} {place} {'versionId=' in parts.query}"


async def _s3(url: str, settings: Settings, _: Credentials) -> Cloud:
    import s3fs
    from aiobotocore.session import get_session

    if not settings.policy.private:
        # Where a cloud describes the machine nobody may be led; it would take a time to be refused.
        os.environ.setdefault("AWS_EC2_METADATA_DISABLED", "true")
    found = await get_session().get_credentials()
    system = s3fs.S3FileSystem(
        anon=found is None,
        asynchronous=True,
        skip_instance_cache=True,
        use_listings_cache=False,
        version_aware="versionId=" in urlsplit(url).query,
        config_kwargs={
            "connect_timeout": settings.connect_s,
            "read_timeout": settings.silence_s,
            "max_pool_connections": settings.parallel * 2,
            # What fails is tried again a level above, with what has come.
            "retries": {"total_max_attempts": 1},
        },
    )
    system.retries = 1
    client = await system.set_session()
    owner = key_of(str(client.meta.endpoint_url), found.access_key if found is not None else "")
    return Cloud(system, owner, client.close)


async def _gs(_: str, settings: Settings, credentials: Credentials) -> Cloud:
    # The other implementation has a second way to the servers, gRPC, where nothing looks at addresses.
    os.environ["GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT"] = "false"
    import gcsfs

    token: Mapping[str, object] | str | None = credentials.google
    if token is None and not os.environ.get("GOOGLE_APPLICATION_CREDENTIALS") and not settings.policy.private:
        # Else it would ask the machine's cloud who it is.
        token = "anon"  # noqa: S105 - no password
    system = gcsfs.GCSFileSystem(
        token=dict(token) if isinstance(token, Mapping) else token,
        access="read_only",
        asynchronous=True,
        skip_instance_cache=True,
        use_listings_cache=False,
        timeout=settings.silence_s,
    )
    # Tried six times, with what is refused too: what fails is tried again a level above.
    once = gcsfs.GCSFileSystem._request
    system._request = MethodType(getattr(once, "__wrapped__", once), system)
    session = await system._set_session()
    who = str(credentials.google.get("client_email")) if credentials.google else str(token)
    return Cloud(system, key_of(system.base, who), session.close)


async def _az(url: str, settings: Settings, _: Credentials) -> Cloud:
    import adlfs

    own = os.environ.get("AZURE_STORAGE_ACCOUNT_NAME") or ""
    named = adlfs.AzureBlobFileSystem._get_kwargs_from_urls(url).get("account_name") or own
    if not named and not os.environ.get("AZURE_STORAGE_CONNECTION_STRING"):
        raise FetchError(
            "the URL names no account: write abfs://CONTAINER@ACCOUNT.dfs.core.windows.net/PATH, or set "
            "AZURE_STORAGE_ACCOUNT_NAME"
        )
    secret = any(
        os.environ.get(f"AZURE_STORAGE_{one}") for one in ("SAS_TOKEN", "ACCOUNT_KEY", "CONNECTION_STRING")
    )
    if secret and named != own:
        raise FetchError(
            f"the credentials are those of another account than {named} (AZURE_STORAGE_ACCOUNT_NAME)"
        )
    system = adlfs.AzureBlobFileSystem(
        account_name=named or None,
        # In its own words: else it wants this loop once more when the process ends.
        asynchronous=False,
        skip_instance_cache=True,
        use_listings_cache=False,
        connection_timeout=int(settings.connect_s),
        read_timeout=int(settings.silence_s),
    )
    client = system.service_client
    # Here too: three times, a minute in all.
    policy = getattr(getattr(client, "_config", None), "retry_policy", None)
    if policy is not None:
        policy.total_retries = 0
    return Cloud(system, key_of(str(client.primary_endpoint), own), client.close)


_MAKERS: dict[str, Callable[[str, Settings, Credentials], Awaitable[Cloud]]] = {
    "s3": _s3,
    "gs": _gs,
    "az": _az,
}
