"""`kaos train deploy -m` through the real command line, from a real server of this machine."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.bundles import write_source
from tests.support.home import Home
from tests.support.waiting import eventually
from tests.support.webserver import WebServer, web_server

LARGE = bytes(range(256)) * 16384
HELD_AT = 3 << 20


@pytest.fixture
def web() -> Iterator[WebServer]:
    with web_server() as server:
        yield server


def write_manifest(path: Path, web: WebServer, *paths: str) -> Path:
    lines = ({"url": web.url(f"/{name}"), "path": name} for name in paths)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_a_manifest_from_first_fetch_to_refresh(tmp_path: Path, web: WebServer) -> None:
    """The engine is killed in the midst of the first fetch: what has come is not asked for again."""
    web.put("/a.csv", b"1,2\n")
    large = web.put("/deep/large.bin", LARGE, hold_at=HELD_AT)
    body = "d = os.environ['KAOS_DATA_DIR'] + '/'; "
    body += "print(os.path.getsize(d + 'deep/large.bin'), open(d + 'a.csv').read())"
    src = write_source(tmp_path / "src", body=body)
    manifest = write_manifest(tmp_path / "digits.mf", web, "a.csv", "deep/large.bin")
    kaos = Home(tmp_path / "home", env={"KAOS_ENGINE_CPUS": "2"})
    try:
        made = kaos.json("train", "deploy", "-s", src, "-m", manifest)
        assert made["stages"] == ["fetch", "build", "train"]
        eventually(large.reached.is_set, "much of the large file has gone")
        kept = kaos.path / "cache" / "fetch"
        eventually(lambda: any(p.stat().st_size >= 1 << 20 for p in kept.rglob("*") if p.is_file()))
        kaos.kill("engine")
        # Whoever asks from now on gets all of it; what was under way hears nothing more.
        large.hold_at = None
        job = kaos.json("train", "wait", made["job"])["jobs"][0]
        assert (job["state"], job["reason"]) == ("success", "")
        assert "bytes=" in web.asked("/deep/large.bin")[-1].headers["Range"]
        assert f"{len(LARGE)} 1,2" in kaos.run("train", "logs", made["job"]).stdout
        assert (job["inputs"]["data"]["name"], job["inputs"]["data"]["files"]) == ("digits", 2)

        web.requests.clear()
        again = kaos.json("train", "deploy", "-m", manifest)
        assert (again["status"], web.requests) == ("unchanged", [])
        web.put("/a.csv", b"3,4\n")
        check = kaos.run("data", "check", check=False)
        assert (check.returncode, "changed  a.csv" in check.stdout) == (1, True)
        assert job["trials"][0]["model"] in check.stdout
        web.sent = 0
        fresh = kaos.json("train", "deploy", "--refresh", "--wait")["result"]
        assert (fresh["state"], web.sent) == ("success", 4)
        assert fresh["inputs"]["data"]["id"] != job["inputs"]["data"]["id"]

        bad = write_manifest(tmp_path / "bad.mf", web, "a.csv", "gone.csv", "deep/large.bin", "lost.csv")
        failed = kaos.run("train", "deploy", "-m", bad, "--wait", check=False)
        assert failed.returncode == 1
        assert "the fetch failed: 2 of 4 line(s) of the manifest cannot be fetched: 2, 4" in failed.stdout
        assert "line 4: " in kaos.run("train", "logs", "--stage", "fetch").stdout
        held = kaos.json("workspace", "info")
        assert held["data"]["id"] == fresh["inputs"]["data"]["id"]
    finally:
        kaos.down()
