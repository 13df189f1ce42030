"""The venv builder: an image is what a Dockerfile copies, and an environment for its pip steps."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from kaos_pipelines.build.bundle import Bundle
from kaos_pipelines.build.context import Context
from kaos_pipelines.build.dockerfile import Instruction, parse
from kaos_pipelines.build.errors import BuildError, Refused
from kaos_pipelines.build.executor import check_train, execute
from kaos_pipelines.build.log import BuildLog, told
from kaos_pipelines.build.pip import PipCommand
from kaos_pipelines.build.plan import BASE_PATH, Plan, compile_plan
from kaos_pipelines.build.pythons import Python, find_python
from kaos_pipelines.build.rootfs import RootFs
from kaos_pipelines.build.store import ImageWriter
from kaos_pipelines.build.venvs import Recipe, VenvStore, install


def build(
    bundle: Bundle, image: str, store: Path, log: BuildLog, arguments: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Build `image` into `store`, with build `arguments`.

    Returns the content of image.json, in which secrets are masked. Raises BuildError; then no image was
    published and no environment is left half-made.
    """
    say, context = log.say, bundle.context
    arguments = arguments or {}
    plan = compile_plan(parse(bundle.dockerfile), arguments)
    log.hide_secrets_of(plan, arguments.values())
    log.warn_unused(plan.unused)
    python = _python(plan)
    with ImageWriter(store / "images").building(image) as folder:
        writer = ImageWriter(store / "images")
        recipe = Recipe(python)
        lines: list[str] = []

        def note(command: PipCommand, fs: RootFs) -> None:
            nonlocal recipe
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
        venvs = VenvStore(store / "venvs")
        say(f"Python {python.version} ({python.path}) stands in for {_from(plan).value}")
        if venvs.ready(recipe.key):
            for line in lines:
                say(line)
            say(f" ---> using the cached environment {recipe.key}")
        else:
            root = _install(plan, python, recipe, venvs, folder, context, say)
        config = {
            "workdir": plan.workdir,
            "program": f"{plan.workdir.rstrip('/')}/train",
            "env": {"PATH": BASE_PATH, **plan.env},
            "venv": recipe.key,
            "python": python.version,
            "prefixes": list(python.prefixes),
            "labels": dict(plan.labels),
            "user": plan.user,
            "command": dict(plan.command),
        }
        writer.publish(image, root, config)
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


def _install(
    plan: Plan,
    python: Python,
    recipe: Recipe,
    venvs: VenvStore,
    folder: Path,
    context: Context,
    say: Callable[[str], None],
) -> Path:
    """The second pass, with pip: each step runs against the files as they are at that point."""
    root = folder / "root-with-pip"

    def fill(venv: Path) -> None:
        root.mkdir()
        execute(plan, context, root, lambda command, fs: install(venv, python, command, fs, say), say)

    try:
        venvs.make(recipe.key, python, fill, say)
    except Refused as refused:
        raise BuildError(str(refused)) from refused
    return root if root.exists() else folder / "root"


def _python(plan: Plan) -> Python:
    try:
        return find_python(plan.python)
    except Refused as refused:
        raise BuildError(str(refused), _from(plan).line, _from(plan).text) from refused


def _from(plan: Plan) -> Instruction:
    return next(step.instruction for step in plan.steps if step.instruction.keyword == "FROM")
