from __future__ import annotations

import json

import pytest
from blake3 import blake3
from hypothesis import given
from hypothesis import strategies as st

from kaos_formats.errors import InvalidBundle, InvalidManifest
from kaos_formats.manifest import (
    MANIFEST_FILE,
    Fetched,
    format_sources,
    parse_manifest,
    parse_sources,
    ranges,
)


def line(**fields: object) -> bytes:
    return json.dumps({"url": "https://host/a", "path": "a"} | fields).encode() + b"\n"


def test_the_text_is_that_of_people_in_one_form_and_its_lines_keep_their_numbers() -> None:
    text = b'\xef\xbb\xbf\r\n{"path": "b.csv", "url": "HTTPS://host/b%20c?x=1"}\r\n\n'
    text += line(size=3, sha256="AB" * 32, path="a/ä")
    manifest = parse_manifest(text + b"\n \n")
    assert manifest.text.decode() == (
        '\n{"url":"https://host/b%20c?x=1","path":"b.csv"}\n'
        '\n{"url":"https://host/a","path":"a/ä","sha256":"' + "ab" * 32 + '","size":3}\n'
    )
    assert {number: one.path for number, one in manifest.lines.items()} == {2: "b.csv", 4: "a/ä"}
    assert parse_manifest(manifest.text) == manifest
    (entry,) = manifest.tree.entries
    assert (entry.path, entry.hash) == (MANIFEST_FILE, blake3(manifest.text).hexdigest())
    assert manifest.id == parse_manifest(manifest.text).id


@pytest.mark.parametrize(
    "url",
    [
        "http://host:8080/x?a=b&c=d", "s3://bucket/a key/with blanks+plus.csv", "gs://bucket/x", "gcs://bucket/x",
        "az://container/x", "abfs://container@account.dfs.core.windows.net/x", "file:///data/a%20b",
        "git+https://host/owner/repo.git#data/a.csv", "git+file:///srv/repo.git#a", "http://[::1]:80/x",
    ],
)  # fmt: skip
def test_urls_of_files(url: str) -> None:
    assert parse_manifest(line(url=url)).lines[1].url == url


@pytest.mark.parametrize(
    "url", ["s3://bucket/x/", "s3://bucket/x", "git+https://host/repo.git", "file:///data", "gs://b/x/"]
)
def test_urls_of_folders(url: str) -> None:
    one = parse_manifest(line(url=url, path="x/y/") + line(url=url, path="./")).lines
    assert one[1].is_folder
    assert [one[1].folder, one[2].folder] == ["x/y/", ""]


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"url": "ftp://host/x"}, "unknown scheme 'ftp'"),
        ({"url": "/etc/passwd"}, "unknown scheme"),
        ({"url": "git+ssh://git@host/x"}, "unknown scheme"),
        ({"url": "http:///x"}, "names no host"),
        ({"url": "http://host:99999/x"}, "cannot be read"),
        ({"url": "http://host:0/x"}, "a port that cannot be"),
        ({"url": "http://[::1/x"}, "cannot be read"),
        ({"url": "http://me:pa55word"}, "cannot be read"),
        ({"url": "http://me:pa55word@host/x"}, "no place in a URL"),
        ({"url": "https://token@host/x"}, "no place in a URL"),
        ({"url": "abfs://c:pa55word@account/x"}, "no place in a URL"),
        ({"url": "http://host/a b"}, "%20"),
        ({"url": "http://host/a\r\nHost: other"}, "cannot be printed"),
        ({"url": "s3://bucket"}, "not like s3://BUCKET/PATH"),
        ({"url": "s3://bucket/folder/"}, "names a folder"),
        ({"url": "http://host/", "path": "a/"}, "http has no folders"),
        ({"url": "file://other/x"}, "not like file:///PATH"),
        ({"url": "file:x"}, "not like file:///PATH"),
        ({"url": "file:///x?y"}, "no query"),
        ({"url": "https://host/" + "x" * 9000}, "longer than"),
        ({"path": "/etc/passwd"}, "absolute paths"),
        ({"path": "a/../../b"}, "'..'"),
        ({"path": "../"}, "'..'"),
        ({"path": ""}, "empty"),
        ({"path": "/"}, "empty"),
        ({"path": "a\0b"}, "NUL"),
        ({"path": 7}, "Expected `str`"),
        ({"size": -1}, "size is below 0"),
        ({"size": "3"}, "Expected `int"),
        ({"sha256": "abc"}, "64 hexadecimal digits"),
        ({"rev": "v1"}, "only git has a rev"),
        ({"url": "git+https://host/r", "rev": "--upload-pack=x"}, "no revision"),
        ({"url": "git+https://host/r", "rev": "a..b"}, "no revision"),
        ({"url": "git+https://host/r", "path": "a/", "size": 3}, "a folder has no"),
        ({"sha": "abc"}, "unknown field `sha`"),
    ],
)
def test_lines_that_are_refused(fields: dict[str, object], why: str) -> None:
    with pytest.raises(InvalidManifest) as caught:
        parse_manifest(line(path="first") + line(**fields))
    assert caught.value.fields["lines"] == [2]
    assert why in caught.value.message
    assert "pa55word" not in caught.value.message


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        (b"no json\n" + line() + b"[1]\n\n\xff\xfe\n" + b"[" * 100_000 + b"\n", [1, 3, 5, 6]),
        (line(path="a") + line(path="b") + line(path="a") + line(path="a"), [3, 4]),
        (line(path="a/b") + line(path="a") + line(path="a/b/c"), [1, 2]),
        (line(path="a") + line(url="s3://b/x/", path="a/"), [1]),
    ],
)
def test_all_bad_lines_are_told_by_number(text: bytes, numbers: list[int]) -> None:
    with pytest.raises(InvalidManifest) as caught:
        parse_manifest(text)
    assert caught.value.fields["lines"] == numbers


def test_thousands_of_bad_lines_are_told_in_short() -> None:
    with pytest.raises(InvalidManifest) as caught:
        parse_manifest(line(path="") * 5000)
    assert caught.value.message.splitlines()[0] == "5000 bad line(s) in the manifest: 1-5000"
    assert len(caught.value.message) < 4000


@pytest.mark.parametrize("text", [b"", b"\n\n", b"\xef\xbb\xbf"])
def test_an_empty_manifest_is_refused(text: bytes) -> None:
    with pytest.raises(InvalidManifest, match="no lines"):
        parse_manifest(text)


def test_a_manifest_has_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("kaos_formats.manifest.MAX_LINES", 2)
    with pytest.raises(InvalidManifest, match="more than 2 lines"):
        parse_manifest(b"".join(line(path=str(n)) for n in range(3)))
    monkeypatch.setattr("kaos_formats.manifest.MAX_MANIFEST_BYTES", 20)
    with pytest.raises(InvalidManifest, match="more than 20 bytes"):
        parse_manifest(line())


@given(st.binary(max_size=200))
def test_hostile_bytes_are_a_manifest_or_are_refused(text: bytes) -> None:
    try:
        manifest = parse_manifest(text)
    except InvalidManifest:
        return
    assert parse_manifest(manifest.text) == manifest


def test_sources_are_read_as_they_were_written() -> None:
    fetched = [
        Fetched("git+https://host/r#x", "x/", 10, "0" * 32, rev="main", commit="1" * 40, files=3),
        Fetched(
            "https://host/a", "a", 3, "0" * 64, etag='"x"', last_modified="Sun, 06 Nov 1994 08:49:37 GMT"
        ),
    ]
    text = format_sources(reversed(fetched))
    assert parse_sources(text) == sorted(fetched, key=lambda one: one.path)
    assert format_sources(parse_sources(text)) == text
    with pytest.raises(InvalidBundle, match="broken"):
        parse_sources(b'{"url": 1}\n')


def test_ranges() -> None:
    assert ranges([1, 2, 3, 5, 8, 9]) == "1-3, 5, 8-9"
