"""Manifests of remote data: which URL becomes which file of the data bundle, one JSON line each.

A manifest is a bundle of one file, MANIFEST_FILE: so its id follows from its lines, as every bundle's from
its files. It is kept as people wrote it but for the form of each line: the lines keep their numbers, which is
what every complaint names, those of the fetcher too. Format and schemes: docs/remote-data.md.

``.sources``, beside what was fetched, tells in the same form what each line's server said of its content.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args
from urllib.parse import SplitResult, urlsplit

import msgspec
from blake3 import blake3

from kaos_formats.errors import InvalidBundle, InvalidManifest
from kaos_formats.paths import path_problem
from kaos_formats.tree import Tree, TreeEntry, folders_of, make_tree
from kaos_formats.utf8 import is_utf8

MANIFEST_FILE = "manifest.jsonl"
"""The one file of a manifest's bundle."""
MAX_MANIFEST_BYTES = 256 << 20
MAX_LINES = 1_000_000
MAX_URL_BYTES = 8192
MAX_SHOWN = 20
"""So many bad lines are told with their reasons; of all that are bad the numbers."""

Scheme = Literal[
    "http", "https", "s3", "gs", "gcs", "az", "abfs", "abfss", "git+http", "git+https", "git+file", "file"
]
SCHEMES: tuple[str, ...] = get_args(Scheme)
_WITHOUT_FOLDERS = frozenset({"http", "https"})
# `container@account…` is what Azure's own URLs begin with: no secret.
_AZURE = frozenset({"az", "abfs", "abfss"})
_SHA256 = re.compile(r"[0-9a-f]{64}")
# What `git check-ref-format` allows, as far as it matters here: no option, no range, nothing hidden.
_REVISION = re.compile(r"(?!-)[^\x00-\x20\x7f~^:?*\[\\]{1,255}")
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029]")
_ROOT = "./"


class ManifestLine(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One line. ``path`` is relative to the bundle; one with "/" at its end says that the URL names a folder,
    whose files come below it ("./": into the bundle itself). ``size`` in bytes and ``sha256`` in hex are what
    the content must have, ``rev`` is a branch, tag or commit of git.
    """

    url: str
    path: str
    sha256: str = ""
    size: int | None = None
    rev: str = ""

    @property
    def scheme(self) -> str:
        return self.url.partition(":")[0].lower()

    @property
    def is_folder(self) -> bool:
        return self.path.endswith("/")

    @property
    def folder(self) -> str:
        """What comes before the paths of a folder's files: "" or "a/b/"."""
        return "" if self.path == _ROOT else self.path


class Fetched(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What became of one line: ``size`` in bytes and ``hash``, BLAKE3 in hex, of the content, and what its
    server said of it, as far as it said it.

    Of a folder ``files`` is their number, ``size`` that of all, ``hash`` the id of their tree, and ``etag`` a
    digest of what the server said of all of them. ``commit`` is git's.
    """

    url: str
    path: str
    size: int
    hash: str
    rev: str = ""
    etag: str = ""
    last_modified: str = ""
    version: str = ""
    commit: str = ""
    files: int = 1


@dataclass(frozen=True, slots=True)
class Manifest:
    """The lines by number (from 1, as people count), and the text that is stored."""

    lines: Mapping[int, ManifestLine]
    text: bytes
    tree: Tree = field(repr=False, compare=False)

    @property
    def id(self) -> str:
        """The id of the bundle."""
        return self.tree.id


def parse_manifest(text: bytes) -> Manifest:
    """The manifest that ``text`` is, as people write it: any order of lines and keys, blank lines anywhere.

    Raises InvalidManifest, which tells all lines that are bad, by number.
    """
    if len(text) > MAX_MANIFEST_BYTES:
        raise InvalidManifest(f"the manifest has more than {MAX_MANIFEST_BYTES} bytes", hint=_FEWER)
    raw = text.removeprefix(b"\xef\xbb\xbf").split(b"\n")
    while raw and not raw[-1].strip():
        raw.pop()
    if len(raw) > MAX_LINES:
        raise InvalidManifest(f"the manifest has more than {MAX_LINES} lines", hint=_FEWER)
    problems: dict[int, str] = {}
    lines: dict[int, ManifestLine] = {}
    decode = msgspec.json.Decoder(ManifestLine).decode
    for number, one in enumerate(raw, 1):
        if not one.strip():
            continue
        try:
            line = _normal(decode(one))
            why = _problem(line)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            why = str(error)
        if why:
            problems[number] = why
        else:
            lines[number] = line
    problems |= _clashes(lines)
    if problems:
        raise bad_lines(problems)
    if not lines:
        raise InvalidManifest("the manifest has no lines", hint=_EXAMPLE)
    stored = _format(lines)
    entry = TreeEntry(MANIFEST_FILE, len(stored), "644", blake3(stored).hexdigest())
    return Manifest(lines, stored, make_tree([entry]))


def bad_lines(problems: Mapping[int, str], what: str = "bad line(s) in the manifest") -> InvalidManifest:
    """The error that tells these lines (number → what is wrong): the first with reasons, all by number."""
    numbers = sorted(problems)
    listed = "".join(f"\n  line {number}: {problems[number]}" for number in numbers[:MAX_SHOWN])
    rest = numbers[MAX_SHOWN:]
    more = f"\n  and line(s) {ranges(rest)}" if rest else ""
    return InvalidManifest(
        f"{len(numbers)} {what}: {ranges(numbers)}{listed}{more}", hint=_EXAMPLE, lines=numbers
    )


def ranges(numbers: Iterable[int]) -> str:
    """Ascending numbers as people write them: "1-3, 7"."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    return ", ".join(str(first) if first == last else f"{first}-{last}" for first, last in runs)


def sources_path(bundle_id: str) -> str:
    """Path of a fetched bundle's ``.sources`` in its repo, beside the folder."""
    return f"/{bundle_id}.sources"


def format_sources(fetched: Iterable[Fetched]) -> bytes:
    """The text of ``.sources``, sorted by path and URL."""
    encode = msgspec.json.Encoder().encode
    ordered = sorted(fetched, key=lambda one: (one.path, one.url, one.rev))
    return b"".join(encode(one) + b"\n" for one in ordered)


def parse_sources(text: bytes) -> list[Fetched]:
    """The lines of ``.sources``. Raises InvalidBundle for another text."""
    try:
        return msgspec.json.Decoder(Fetched).decode_lines(text)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidBundle(f"the list of what was fetched is broken: {error}") from error


_FEWER = "fetch folders in place of single files, or packed archives of them"
_EXAMPLE = 'a line is like {"url": "https://host/data.csv", "path": "data.csv"}'


def _format(lines: Mapping[int, ManifestLine]) -> bytes:
    encode = msgspec.json.Encoder().encode
    return b"".join(
        (encode(lines[number]) if number in lines else b"") + b"\n" for number in range(1, max(lines) + 1)
    )


def _normal(line: ManifestLine) -> ManifestLine:
    scheme, colon, rest = line.url.strip().partition(":")
    return msgspec.structs.replace(
        line, url=scheme.lower() + colon + rest, sha256=line.sha256.lower(), rev=line.rev.strip()
    )


def _problem(line: ManifestLine) -> str | None:
    return _path_problem(line) or _url_problem(line) or _content_problem(line)


def _path_problem(line: ManifestLine) -> str | None:
    if line.path == _ROOT:
        return None
    why = path_problem(line.path.removesuffix("/"))
    return f"path {line.path[:100]!r}: {why}" if why else None


def _url_problem(line: ManifestLine) -> str | None:
    url = line.url
    if not is_utf8(url) or len(url.encode()) > MAX_URL_BYTES:
        return f"the URL is no UTF-8 or longer than {MAX_URL_BYTES} bytes"
    if _UNPRINTABLE.search(url):
        return "the URL has a character that cannot be printed"
    if line.scheme not in SCHEMES:
        return f"unknown scheme {line.scheme[:20]!r}: one of {', '.join(SCHEMES)}"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        # Its words may have a password.
        return "host or port of the URL cannot be read"
    if (parts.username is not None and line.scheme not in _AZURE) or parts.password is not None:
        return "user and password have no place in a URL; give them by environment or --secret"
    if port == 0:
        return "the URL has a port that cannot be"
    return _PLACES[line.scheme](parts) or _folder_problem(line)


def _folder_problem(line: ManifestLine) -> str | None:
    if line.is_folder and line.scheme in _WITHOUT_FOLDERS:
        return f"path {line.path!r} is a folder's, and {line.scheme} has no folders; name a file"
    if not line.is_folder and not line.scheme.startswith("git+") and line.url.endswith("/"):
        return (
            None if line.scheme in _WITHOUT_FOLDERS else f"the URL names a folder: path {line.path + '/'!r}?"
        )
    return None


def _content_problem(line: ManifestLine) -> str | None:
    if line.sha256 and not _SHA256.fullmatch(line.sha256):
        return "sha256 is not 64 hexadecimal digits"
    if line.size is not None and line.size < 0:
        return "size is below 0"
    if line.is_folder and (line.sha256 or line.size is not None):
        return "a folder has no sha256 and no size"
    if line.rev and not line.scheme.startswith("git+"):
        return "only git has a rev"
    if line.rev and (not _REVISION.fullmatch(line.rev) or ".." in line.rev):
        return f"{line.rev[:100]!r} is no revision of git"
    return None


def _with_host(parts: SplitResult) -> str | None:
    if not parts.hostname:
        return "the URL names no host"
    return "the URL has a blank; write %20" if " " in parts.geturl() else None


def _with_bucket(parts: SplitResult) -> str | None:
    if not parts.netloc or not parts.path.strip("/"):
        return f"the URL is not like {parts.scheme}://BUCKET/PATH"
    return None


def _without_host(parts: SplitResult) -> str | None:
    if parts.netloc not in ("", "localhost") or not parts.path.startswith("/"):
        return f"the URL is not like {parts.scheme}:///PATH"
    if parts.query or (parts.fragment and not parts.scheme.startswith("git+")):
        return "a path has no query and no fragment (write %3F for ?, %23 for #)"
    return None


_PLACES: dict[str, Callable[[SplitResult], str | None]] = {
    "http": _with_host, "https": _with_host, "git+http": _with_host, "git+https": _with_host,
    "s3": _with_bucket, "gs": _with_bucket, "gcs": _with_bucket,
    "az": _with_bucket, "abfs": _with_bucket, "abfss": _with_bucket,
    "file": _without_host, "git+file": _without_host,
}  # fmt: skip


def _clashes(lines: Mapping[int, ManifestLine]) -> dict[int, str]:
    """Lines that cannot be together. Folders may share a path; if their files do, only fetching tells."""
    found: dict[int, str] = {}
    seen: dict[str, int] = {}
    for number, line in lines.items():
        if line.is_folder:
            continue
        first = seen.setdefault(line.path, number)
        if first != number:
            found[number] = f"path {line.path!r} is that of line {first} too"
    names: list[Any] = [line.path for line in lines.values() if line.path != _ROOT]
    folders = folders_of(names)
    for path in folders.intersection(seen):
        found.setdefault(seen[path], f"path {path!r} is also a folder of another line")
    return found
