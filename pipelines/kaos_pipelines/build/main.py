"""`python -m kaos_pipelines.build`: the command of the `build` pipeline, carried out by one of two builders.

Environment: KAOS_SOURCE_ID with PACH_PFS (the bundle), KAOS_IMAGE (the name to give), KAOS_BUILDER: `venv`,
the default, with KAOS_IMAGE_STORE (the folder with images/ and venvs/) and, where bubblewrap works,
KAOS_BWRAP (it) and KAOS_HIDDEN (folders that no RUN must see); or `docker`, with DOCKER_HOST and
KAOS_HOME_LABEL, whose the image is, and what else it would ask the engine: DOCKER_API_VERSION and
KAOS_BUILD_NETWORK, the network of RUN ("": the engine's choice);
KAOS_BUILD_ARGS, build arguments as JSON; KAOS_BUILD_CA, a file of certificates that the steps trust as well.
Writes `<out>/<source id>/image.json`, a pure function of the source and the arguments.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kaos_formats.arguments import VARIABLE, parse_arguments
from kaos_pipelines.build.bundle import load_bundle
from kaos_pipelines.build.context import true_names
from kaos_pipelines.build.errors import BuildError
from kaos_pipelines.build.log import BuildLog


def run(env: Mapping[str, str], log: BuildLog | None = None) -> None:
    """One build as the pipeline asks for it. Raises BuildError."""
    missing = [name for name in ("KAOS_IMAGE", "KAOS_SOURCE_ID") if not env.get(name)]
    if missing:
        raise BuildError(f"{', '.join(missing)} not set: this is the command of a workspace's build pipeline")
    pfs = Path(env.get("PACH_PFS") or "/pfs")
    source_id = env["KAOS_SOURCE_ID"]
    source = pfs / "source" / source_id
    if not source.is_dir():
        raise BuildError(f"the source bundle {source_id} is not in the source repo's commit")
    with true_names(source) as folder:
        result = _build(folder, env, log or BuildLog())
    out = pfs / "out" / source_id
    out.mkdir(parents=True, exist_ok=True)
    (out / "image.json").write_text(json.dumps(result, indent=1, sort_keys=True) + "\n", "utf-8")


def _build(source: Path, env: Mapping[str, str], log: BuildLog) -> dict[str, Any]:
    builder = env.get("KAOS_BUILDER") or "venv"
    bundle = load_bundle(source)
    try:
        arguments = parse_arguments(env.get(VARIABLE) or "")
    except ValueError as error:
        raise BuildError(f"{VARIABLE} does not hold build arguments: {error}") from error
    # Each builder has imports of its own that the other does without.
    if builder == "venv":
        from kaos_pipelines.build import with_venv
        from kaos_pipelines.build.sandbox import Sandbox

        if not env.get("KAOS_IMAGE_STORE"):
            raise BuildError("KAOS_IMAGE_STORE not set: the venv builder needs a folder for its images")
        store = Path(env["KAOS_IMAGE_STORE"])
        hidden = tuple(map(Path, filter(None, env.get("KAOS_HIDDEN", "").split(os.pathsep))))
        sandbox = Sandbox(env["KAOS_BWRAP"], hidden) if env.get("KAOS_BWRAP") else None
        with _authorities(env):
            return with_venv.build(bundle, env["KAOS_IMAGE"], store, log, arguments, sandbox)
    if builder == "docker":
        from kaos_pipelines.build import with_docker

        return with_docker.build(bundle, env["KAOS_IMAGE"], env, log, arguments)
    raise BuildError(f"KAOS_BUILDER is {builder!r}: must be one of venv, docker")


@contextmanager
def _authorities(env: Mapping[str, str]) -> Iterator[None]:
    """Have whatever this process starts trust what KAOS_BUILD_CA says."""
    if not env.get("KAOS_BUILD_CA"):
        yield
        return
    from kaos_pipelines.build.authorities import trusted, variables

    pem = trusted(env) or ""
    with tempfile.NamedTemporaryFile("w", prefix="kaos-ca-", suffix=".pem", encoding="utf-8") as file:
        file.write(pem)
        file.flush()
        os.environ.update(variables(file.name))
        yield


def main() -> int:
    """Exit code 0, or 1 with the reason as the log's last line."""
    log = BuildLog()
    try:
        run(os.environ, log)
    except BuildError as error:
        log.say(str(error))
        return 1
    except OSError as error:
        log.say(f"the build could not write its files: {error}")
        return 1
    return 0
