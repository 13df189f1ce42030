"""One folder deployed again and again while it changes: what has changed is told, all of it is there."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from tests.e2e.test_names import files
from tests.support.home import Home


def test_each_version_is_what_the_folder_was(home: Home, workspace: str, src: Path, tmp_path: Path) -> None:
    data, other = tmp_path / "data", tmp_path / "other"
    for number in range(40):
        (data / f"{number % 4}").mkdir(parents=True, exist_ok=True)
        (data / f"{number % 4}/{number}").write_bytes(os.urandom(500))
    shutil.copytree(data, other)
    (other / "0/0").write_bytes(b"another folder")

    def deployed(folder: Path) -> int:
        """How many files were new."""
        told = home.json("train", "deploy", "-w", workspace, "-s", src, "-d", folder)
        out = tmp_path / told["job"]
        home.run("train", "get", "-w", workspace, told["job"], "--data", "-o", out)
        assert files(out / "data" / folder.name) == files(folder)
        return int(told["packed"]["data"]["new_files"])

    assert deployed(data) == 40
    (data / "1/1").write_bytes(b"changed")
    (data / "2/2").chmod(0o755)
    (data / "3/3").unlink()
    (data / "new").write_bytes(b"new")
    assert deployed(data) == 2
    # Built on what is not current any more by now.
    assert deployed(other) == 1
    (data / "1/1").write_bytes(b"changed again")
    shutil.rmtree(data / "2")
    (data / "2").write_bytes(b"a file where a folder was")
    assert deployed(data) == 2
