"""The venv builder: an image is what a Dockerfile copies, and an environment for its pip steps."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kaos_formats.conda import read_environment
from kaos_formats.errors import InvalidBundle
from kaos_formats.masking import Masker
from kaos_pipelines.build.attempts import carry_out
from kaos_pipelines.build.bundle import Bundle
from kaos_pipelines.build.context import Context
from kaos_pipelines.build.dockerfile import Instruction, parse
from kaos_pipelines.build.errors import BuildError, Refused
from kaos_pipelines.build.executor import Say, check_train, execute
from kaos_pipelines.build.installs import install
from kaos_pipelines.build.layers import Layers
from kaos_pipelines.build.log import BuildLog, told
from kaos_pipelines.build.pip import PipCommand
from kaos_pipelines.build.plan import BASE_PATH, CONDA, Plan, Shell, compile_plan
from kaos_pipelines.build.pythons import Python, find_python
from kaos_pipelines.build.rootfs import RootFs
from kaos_pipelines.build.sandbox import Sandbox
from kaos_pipelines.build.store import ImageWriter
from kaos_pipelines.build.venvs import Recipe, VenvStore


def build(
    bundle: Bundle,
    image: str,
    store: Path,
    log: BuildLog,
    arguments: Mapping[str, str] | None = None,
    sandbox: Sandbox | None = None,
) -> dict[str, Any]:
    """Build `image` into `store`, with build `arguments`, and a shell for its RUNs if there is a `sandbox`.

    Returns the content of image.json, in which secrets are masked. Raises BuildError; then no image was
    published and no environment is left half-made.
    """
    say = log.say
    arguments = arguments or {}
    plan = compile_plan(parse(bundle.dockerfile), arguments, shell=sandbox is not None)
    log.mask = Masker([*plan.texts(), *arguments.values()])
    log.warn_unused(plan.unused)
    python = _python(plan, bundle.context)
    venvs = VenvStore(store / "venvs")
    writer = ImageWriter(store / "images")
    layers = Layers(store / "layers")
    with writer.building(image) as folder:
        stands_in = f"Python {python.version} ({python.path}) stands in for {_from(plan).value}"
        if sandbox is not None:
            say(stands_in)
            try:
                asked = json.dumps([bundle.dockerfile, arguments, python.version, python.path])
                root, key = carry_out(
                    plan, bundle.context, python, venvs, folder, sandbox, say, asked, layers
                )
            except Refused as refused:
                raise BuildError(str(refused)) from refused
        else:
            root, key = _emulate(plan, bundle.context, python, venvs, folder, stands_in, say)
        config = {
            "workdir": plan.workdir,
            "program": f"{plan.workdir.rstrip('/')}/train",
            "env": {"PATH": BASE_PATH, **plan.env},
            "venv": key,
            "python": python.version,
            "prefixes": list(python.prefixes),
            "labels": dict(plan.labels),
            "user": plan.user,
            "command": dict(plan.command),
        }
        writer.publish(image, root, config, tuple(dict.fromkeys(layers.used)))
    say(f"Successfully built {image}")
    return {
        "image": image,
        "source": bundle.id,
        "builder": "venv",
        "python": plan.python or "3",
        "workdir": plan.workdir,
        "steps": [log.mask(step.instruction.text) for step in plan.steps],
        **told(arguments, log),
    }


def _emulate(
    plan: Plan, context: Context, python: Python, venvs: VenvStore, folder: Path, stands_in: str, say: Say
) -> tuple[Path, str]:
    """The image's files and the key of its environment, without a shell: a first pass finds out the key."""
    recipe = Recipe(python)
    lines: list[str] = []

    def note(command: PipCommand | Shell, fs: RootFs) -> None:
        nonlocal recipe
        assert isinstance(command, PipCommand)
        lines.append(f" ---> {command.text}")
        recipe = recipe.then(command, fs)

    root = folder / "root"
    root.mkdir()
    try:
        execute(plan, context, root, note, lines.append)
        check_train(plan, root)
    except BuildError:
        for line in lines:
            say(line)
        raise
    say(stands_in)
    if not venvs.ready(recipe.key):
        return _install(plan, recipe, venvs, folder, context, say), recipe.key
    for line in lines:
        say(line)
    say(f" ---> using the cached environment {recipe.key}")
    return root, recipe.key


def _install(plan: Plan, recipe: Recipe, venvs: VenvStore, folder: Path, context: Context, say: Say) -> Path:
    """The second pass, with pip: each step runs against the files as they are at that point."""
    root = folder / "root-with-pip"

    def fill(venv: Path) -> None:
        def run(command: PipCommand | Shell, fs: RootFs) -> None:
            assert isinstance(command, PipCommand)
            install(venv, recipe.python, command, fs, say)

        root.mkdir()
        execute(plan, context, root, run, say)

    try:
        venvs.make(recipe, fill, say)
    except Refused as refused:
        raise BuildError(str(refused)) from refused
    return root if root.exists() else folder / "root"


def _python(plan: Plan, context: Context) -> Python:
    try:
        file = context.files.get("environment.yml")
        if CONDA.search(_from(plan).value) and file is not None:
            asked = read_environment(file.source.read_text("utf-8", "replace")).python
            pinned = re.match(r"==(3(\.\d+){1,2})", asked)
            return find_python(pinned[1] if pinned else "")
        return find_python(plan.python)
    except (Refused, InvalidBundle) as refused:
        raise BuildError(str(refused), _from(plan).line, _from(plan).text) from refused


def _from(plan: Plan) -> Instruction:
    return next(step.instruction for step in plan.steps if step.instruction.keyword == "FROM")
