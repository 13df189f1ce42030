"""`kaos fsck`: damage on the disk is found, named, and healed by what is there or is sent again."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from blake3 import blake3

from tests.support.bundles import write_data, write_source
from tests.support.home import Home

CONTENT = os.urandom(2 << 20)


@pytest.fixture
def kaos(tmp_path: Path) -> Iterator[Home]:
    kaos = Home(tmp_path / "home")
    kaos.run("workspace", "create", "vision")
    yield kaos
    kaos.down()


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_data(tmp_path / "digits", {"a/train.bin": CONTENT, "small.txt": b"small\n"})


def flip(kaos: Home) -> None:
    """Change the first byte of the big file as it is stored."""
    name = blake3(CONTENT).hexdigest()
    path = kaos.path / "engine" / "objects" / name[:2] / name[2:]
    path.chmod(0o644)
    with path.open("r+b") as file:
        file.write(bytes([CONTENT[0] ^ 1]))


def test_damage_is_named_and_healed_by_the_same_folder_again(kaos: Home, data: Path) -> None:
    whole = kaos.run("fsck")
    assert whole.stdout.endswith(": nothing is damaged\n")
    bundle = kaos.json("train", "deploy", "-w", "vision", "-d", data)["data"]["id"]
    flip(kaos)
    found = kaos.run("fsck", check=False)
    assert found.returncode == 1
    commit = kaos.client().pfs.inspect_branch(branch=branch("vision", "data")).head.id
    assert f"damaged   /{bundle}/a/train.bin in vision/data at commit {commit[:12]}\n" in found.stdout
    assert found.stdout.endswith("1 damaged, 0 of them repaired\n")
    assert "  → kaos train deploy -d DATA -w vision of the same content heals it\n" in found.stderr
    again = kaos.run("fsck", "--json", check=False)
    assert again.returncode == 1
    answer = json.loads(again.stdout)
    assert (answer["version"], answer["damaged"], answer["repaired"]) == (1, 1, 0)
    assert [(one["workspace"], one["repo"], one["commit"]) for one in answer["findings"]] == [
        ("vision", "data", commit)
    ]
    sent = kaos.json("train", "deploy", "-w", "vision", "-d", data)
    assert sent["packed"]["data"]["new_files"] == 1
    assert kaos.json("fsck")["findings"] == []


def flip_packed(kaos: Home, content: bytes) -> None:
    """Change the first byte of a file that is stored in a pack; inputs have a copy of such a one."""
    (pack,) = (kaos.path / "engine" / "packs").iterdir()
    at = pack.read_bytes().index(content)
    pack.chmod(0o644)
    with pack.open("r+b") as file:
        file.seek(at)
        file.write(bytes([content[0] ^ 1]))


def test_repair_takes_what_is_laid_out_for_a_job(kaos: Home, data: Path, tmp_path: Path) -> None:
    packed = os.urandom(200_000)
    (data / "packed.bin").write_bytes(packed)
    kaos.run("train", "deploy", "-w", "vision", "-s", write_source(tmp_path / "src"), "-d", data, "--wait")
    flip_packed(kaos, packed)
    done = kaos.run("fsck", "--repair")
    assert "repaired  " in done.stdout
    assert "packed.bin in vision/data" in done.stdout
    assert "→" not in done.stderr
    assert kaos.run("fsck").stdout.endswith(": nothing is damaged\n")


def test_what_a_trial_wrote_cannot_be_sent_again(kaos: Home, data: Path, tmp_path: Path) -> None:
    body = "import shutil; shutil.copy(os.environ['KAOS_DATA_DIR'] + '/a/train.bin', out)"
    src = write_source(tmp_path / "src", body=body)
    kaos.run("train", "deploy", "-w", "vision", "-s", src, "-d", data, "--wait")
    flip(kaos)
    lost = kaos.run("fsck", check=False)
    assert lost.returncode == 1
    assert "/train.bin in vision/train at commit" in lost.stdout
    assert "models of vision that are lost have to be trained again" in lost.stderr
    refused = kaos.run("train", "get", "-w", "vision", "-o", tmp_path / "out", check=False)
    assert refused.returncode == 1
    assert "damaged" in refused.stderr
    assert not (tmp_path / "out").exists()


def branch(workspace: str, repo: str) -> object:
    from pachyderm_sdk.api import pfs

    return pfs.Branch.from_uri(f"{workspace}/{repo}@master")
