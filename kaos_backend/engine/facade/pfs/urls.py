"""Fetching `add_file.url` sources. Only http and https: the engine reads no files of its host for callers."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import urlsplit

from kaos_backend.engine.errors import InvalidArgument, Unimplemented, Unknown

_CLOUD = frozenset({"s3", "gs", "gcs", "azblob", "wasb", "minio", "test-minio"})
_TIMEOUT_S = (10.0, 120.0)
_CHUNK_BYTES = 1 << 20


def fetch(url: str) -> Iterator[bytes]:
    """The content behind a URL, in pieces; redirects are followed.

    Raises:
        Unknown: the server cannot be reached, answers with an error, or the scheme is unknown.
        InvalidArgument: a ``file`` URL.
        Unimplemented: a cloud store.
    """
    scheme = urlsplit(url).scheme.lower()
    if scheme == "file":
        raise InvalidArgument(
            f"url {url} is refused: the engine does not read its host's files; upload the content"
        )
    if scheme in _CLOUD:
        raise Unimplemented(
            f"url {url}: {scheme} object stores are not built into the embedded engine; use https"
        )
    if scheme not in ("http", "https"):
        raise Unknown(f"unrecognized object store: {scheme} (in url {url})")
    import requests

    try:
        with requests.get(url, stream=True, timeout=_TIMEOUT_S) as response:
            if response.status_code >= 400:
                raise Unknown(f"error retrieving content from {url}: status {response.status_code}")
            yield from response.iter_content(_CHUNK_BYTES)
    except requests.RequestException as error:
        raise Unknown(f"error retrieving content from {url}: {error}") from error
