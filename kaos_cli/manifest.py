"""Manifests of remote data: read and checked here, sent as a bundle of one file, fetched by the server."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from kaos_cli.client import KaosClient
from kaos_cli.errors import KaosError
from kaos_formats.errors import InvalidManifest
from kaos_formats.manifest import MANIFEST_FILE, MAX_MANIFEST_BYTES, Manifest, parse_manifest
from kaos_formats.names import MANIFEST

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")


@dataclass(frozen=True, slots=True)
class ManifestFile:
    """A manifest that has been read and checked. ``here``: it names files beside it, so that only a server of
    this machine finds them.
    """

    name: str
    path: Path
    manifest: Manifest
    here: bool

    @property
    def kind(self) -> str:
        return MANIFEST

    @property
    def id(self) -> str:
        return self.manifest.id


def read_manifest(path: Path) -> ManifestFile:
    """Raises KaosError (invalid_manifest), which tells all bad lines by number."""
    try:
        if path.stat().st_size > MAX_MANIFEST_BYTES:
            raise _wrong(path, f"has more than {MAX_MANIFEST_BYTES:,} bytes")
        text = path.read_bytes()
    except OSError as error:
        raise _wrong(
            path, f"cannot be read: {error.strerror}", "-m takes a file of JSON lines, -d a folder"
        ) from error
    lines = [_resolved(line, path) for line in text.split(b"\n")]
    try:
        manifest = parse_manifest(b"\n".join(line for line, _ in lines))
    except InvalidManifest as error:
        raise KaosError(
            error.code, f"{path}: {error.message}", hint=error.hint, path=str(path), **error.fields
        ) from error
    return ManifestFile(_name(path), path, manifest, any(is_here for _, is_here in lines))


def send_manifest(client: KaosClient, ws: str, file: ManifestFile) -> bool:
    """Make sure that the backend has a manifest; whether it had it. Raises KaosError."""
    from kaos_cli.pack import compressed
    from kaos_formats.tar import END, header, padding
    from kaos_formats.tree import TREE_FILE

    if file.here and not client.hands_over:
        raise KaosError(
            "invalid_manifest",
            f"{file.path} names files beside it, and the backend is not on this machine",
            hint="send them with -d, or give URLs that the server can reach",
            path=str(file.path),
        )
    if client.bundle(ws, MANIFEST, file.id) is not None:
        return True

    def pieces() -> Iterator[bytearray]:
        for name, content in ((TREE_FILE, file.manifest.tree.text), (MANIFEST_FILE, file.manifest.text)):
            yield bytearray(header(name, len(content), 0o644) + content + padding(len(content)))
        yield bytearray(END)

    size = len(file.manifest.text)
    client.put_bundle(ws, MANIFEST, file.id, file.name, None, lambda: compressed(pieces(), size))
    return False


def _resolved(line: bytes, path: Path) -> tuple[bytes, bool]:
    """A line whose URL is a path: with the URL of that file, which is relative to the manifest's folder."""
    try:
        found: Any = json.loads(line)
        url = found["url"]
        if not isinstance(url, str) or not url or _SCHEME.match(url):
            return line, False
        place = path.absolute().parent / url
        folder = "/" if url.endswith("/") else ""
        return json.dumps({**found, "url": f"file://{quote(str(place.resolve()))}{folder}"}).encode(), True
    except (ValueError, TypeError, KeyError, RecursionError, OSError):
        # What is wrong with it is told with the number of its line.
        return line, False


def _name(path: Path) -> str:
    return re.sub(r"[^A-Za-z0-9._-]+", "-", path.stem).strip("-.")[:100] or MANIFEST


def _wrong(path: Path, what: str, hint: str = "") -> KaosError:
    return KaosError("invalid_manifest", f"{path} {what}", hint=hint, path=str(path))
