"""Several commands at once on one folder: each gets what it asked for, and nothing is made twice."""

from __future__ import annotations

import json
import os
from pathlib import Path

from tests.support.home import Home


def test_one_folder_deployed_by_three_at_once(
    home: Home, workspace: str, src: Path, data: Path, tmp_path: Path
) -> None:
    other = f"{workspace}-other"
    home.run("workspace", "create", other)
    (data / "large").write_bytes(os.urandom(3 << 20))
    for number in range(200):
        (data / f"deep/{number}").write_bytes(os.urandom(2000))
    places = (workspace, workspace, other)
    deploys = [home.spawn("train", "deploy", "-s", src, "-d", data, "-w", ws, "--json") for ws in places]
    told = [(deploy.communicate(timeout=60), deploy.returncode) for deploy in deploys]
    assert [code for _, code in told] == [0, 0, 0], told
    one, two, third = (json.loads(out) for (out, _), _ in told)
    assert one["job"] == two["job"] != third["job"]
    assert sorted([one["status"], two["status"]]) == ["started", "unchanged"]
    assert third["status"] == "started"
    assert one["data"]["id"] == two["data"]["id"] == third["data"]["id"]
    for ws, job in ((workspace, one["job"]), (other, third["job"])):
        assert [listed["id"] for listed in home.json("train", "list", "-w", ws)["jobs"]] == [job]
        out = tmp_path / ws
        home.run("train", "get", "-w", ws, "--data", "-o", out)
        for path in data.rglob("*"):
            if path.is_file():
                assert (out / "data" / data.name / path.relative_to(data)).read_bytes() == path.read_bytes()
