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


def test_a_check_tells_what_has_changed_and_which_models_stand_on_it(cli: Cli, backend: FakeBackend) -> None:
    found = [
        {"url": "https://h/a", "path": "a", "state": "changed"},
        {"url": "https://h/b", "path": "b", "state": "unknown", "why": "it does not answer"},
    ]
    end = {
        "name": "big", "data": "5c3ca7" + "0" * 26, "manifest": "1" * 32, "same": 3, "changed": 1, "gone": 0,
        "unknown": 1, "jobs": ["ab" * 16], "models": [f"1909d1-5c3ca7-{n:08x}" for n in range(7)],
    }  # fmt: skip
    backend.remote_lines = [{"waiting": "a core"}, {"running": True}, *({"finding": one} for one in found)]
    backend.remote_lines += [{"version": 1, "end": end}]
    done = cli("data", "check")
    assert done.code == 1
    assert done.out.splitlines() == [
        "changed  a",
        "unknown  b: it does not answer",
        "data    big:5c3ca7  5 lines: 1 changed, 1 unknown",
        "models  7 of job abababab:",
        "        1909d1-5c3ca7-00000000 1909d1-5c3ca7-00000001 1909d1-5c3ca7-00000002",
        "        1909d1-5c3ca7-00000003 1909d1-5c3ca7-00000004 1909d1-5c3ca7-00000005",
        "        … and 1 more (--json has them)",
    ]
    assert "kaos train deploy --refresh" in done.err
    assert len(cli("data", "check", "--json").json["findings"]) == 2
    backend.remote_lines = [{"end": end | {"changed": 0, "unknown": 0, "same": 5}}]
    done = cli("data", "check")
    assert (done.code, done.out) == (0, "data    big:5c3ca7  5 lines: nothing has changed\n")
