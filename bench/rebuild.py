"""(f) A rebuild where the code alone is other, beside `docker build` of the same by hand."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import time
import uuid
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from docker.errors import ImageNotFound

from bench.docker import docker_engine
from bench.kaos import TRAIN, started, write_source
from bench.measure import Row, Timing, clean_env, timed
from bench.places import Run
from tests.support.docker_engine import base_image

AIM = 1.2
_UNSEEN_S = 1.0
# The client did without the plugin until it moved there.
_PLUGIN_SINCE = 23


def measure(run: Run) -> list[Row]:
    """The build's part of a deploy, and the client program with the same builder, turn by turn.

    Left out with a word where no Docker engine answers.
    """
    if (api := docker_engine("f")) is None:
        return []
    base, bridge = base_image(api), bool(api.networks(names=["bridge"]))
    program = _client() or "docker"
    source, by_hand = (write_source(run.fresh(name) / "bench") for name in ("rebuild", "by-hand"))
    for folder in (source, by_hand):
        (folder / "Dockerfile").write_text(f"FROM {base}\nWORKDIR /app\nRUN mkdir -p /opt/made\nCOPY . ./\n")
    data, image = run.fresh("rebuild-data"), f"kaos-bench:{uuid.uuid4().hex[:8]}"
    (data / "data.txt").write_text("data\n")
    command: list[str | Path] = [
        program,
        "build",
        "-q",
        "-t",
        image,
        *([] if bridge else ["--network=host"]),
        by_hand,
    ]
    env = clean_env({"DOCKER_BUILDKIT": "1" if _client() else "0"})
    mine: list[float] = []
    peer: list[float] = []
    try:
        with started(run.fresh("rebuild-home"), runtime="docker") as kaos:
            for turn in range(3 if run.quick else 11):
                for folder in (source, by_hand):
                    _other_code(folder)
                # Whoever looks at it meanwhile takes one of few cores, and is no part of a build.
                kaos("train", "deploy", "-s", source, "-d", data)
                time.sleep(_UNSEEN_S)
                build = _seconds(kaos.wait()["stages"][0])
                by_docker = timed(command, env=env)
                if turn:  # the first fills the caches
                    mine.append(build)
                    peer.append(by_docker)
    finally:
        with suppress(ImageNotFound):
            api.remove_image(image, force=True)
        api.close()
    ours, theirs = Timing(tuple(mine)), Timing(tuple(peer))
    ratio = ours.median / theirs.median
    what = "a code-only rebuild: the build step"
    return [
        Row(
            "f",
            what,
            str(ours),
            "docker build by hand",
            str(theirs),
            f"{ratio:.2f}×",
            f"≤ {AIM:g}×",
            ratio <= AIM,
        )
    ]


def _client() -> str | None:
    """The first client program on the PATH that can use BuildKit, as kaos does."""
    folders = os.get_exec_path()
    programs = dict.fromkeys(filter(None, (shutil.which("docker", path=folder) for folder in folders)))
    return next((program for program in programs if _can(program)), None)


def _can(program: str) -> bool:
    said = subprocess.run([program, "--version"], capture_output=True, text=True).stdout
    version = re.match(r"Docker version (\d+)\.", said)
    if version is not None and int(version[1]) < _PLUGIN_SINCE:
        return True
    return subprocess.run([program, "buildx", "version"], capture_output=True).returncode == 0


def _other_code(folder: Path) -> None:
    (folder / "train").write_text(f"{TRAIN}# {uuid.uuid4()}\n")


def _seconds(stage: dict[str, Any]) -> float:
    began, ended = (datetime.fromisoformat(stage[name]) for name in ("started", "finished"))
    return (ended - began).total_seconds()
