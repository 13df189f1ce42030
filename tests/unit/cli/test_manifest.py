"""`kaos train deploy -m`: what is checked before anything is sent, and what is sent then."""

from __future__ import annotations

import json
from pathlib import Path
from urllib.parse import unquote, urlsplit

from kaos_cli.manifest import read_manifest
from kaos_formats.manifest import MANIFEST_FILE, parse_manifest
from tests.unit.cli.conftest import Cli
from tests.unit.cli.fake import FakeBackend

LINES = b'{"url": "https://h/a.csv", "path": "a.csv"}\n{"path": "b/c.csv", "url": "s3://k/c"}\n'


def test_a_manifest_is_sent_as_a_bundle_of_one_file(cli: Cli, backend: FakeBackend, tmp_path: Path) -> None:
    file = tmp_path / "big data.mf"
    file.write_bytes(LINES)
    backend.answer = {"stages": ["fetch", "train"]}
    done = cli("train", "deploy", "-m", file)
    assert done.code == 0, done.err
    assert backend.deploys[0]["manifest"] == parse_manifest(LINES).id
    assert backend.deploys[0]["data"] is None
    held = backend.heads["default", "manifest"]
    assert (held["name"], held["contents"]) == ("big-data", {MANIFEST_FILE: parse_manifest(LINES).text})
    assert "data    big-data  2 lines of a manifest, fetched by the server" in done.out
    assert "runs fetch and train" in done.out
    before = len(backend.requests)
    assert cli("train", "deploy", "-m", file, "--json").json["packed"]["manifest"]["lines"] == 2
    assert not any(request.startswith("PUT") for request in backend.requests[before:])


def test_bad_lines_are_told_by_number_and_nothing_is_sent(
    cli: Cli, backend: FakeBackend, tmp_path: Path
) -> None:
    file = tmp_path / "data.mf"
    file.write_bytes(b'{"url": "https://h/a", "path": "/a"}\n' + LINES + b'no\n{"url": 3, "path": "x"}\n[]\n')
    done = cli("train", "deploy", "-m", file)
    assert (done.code, backend.requests) == (2, [])
    assert f"{file}: 4 bad line(s) in the manifest: 1, 4-6" in done.err
    assert cli("train", "deploy", "-m", tmp_path / "none.mf").code == 2
    assert cli("train", "deploy", "-m", file, "-d", tmp_path).code == 2
    assert cli("train", "deploy", "--refresh", "-d", tmp_path).code == 2


def test_a_url_without_a_scheme_is_a_file_beside_the_manifest(
    cli: Cli, backend: FakeBackend, tmp_path: Path
) -> None:
    (tmp_path / "a b").mkdir()
    file = tmp_path / "a b" / "data.mf"
    lines = [{"url": "x/1%.csv", "path": "1.csv"}, {"url": "folder/", "path": "f/"}]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    urls = [line.url for line in read_manifest(file).manifest.lines.values()]
    assert [unquote(urlsplit(url).path) for url in urls] == [
        str(tmp_path / "a b" / "x" / "1%.csv"), str(tmp_path / "a b" / "folder") + "/"
    ]  # fmt: skip
    done = cli("train", "deploy", "-m", file)
    assert done.code == 2
    assert "the backend is not on this machine" in done.err
    assert backend.deploys == []
