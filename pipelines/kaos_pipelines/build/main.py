"""`python -m kaos_pipelines.build`: the command of the `build` pipeline, on the builder that needs no
container.

Environment: `source` or KAOS_SOURCE_ID with PACH_PFS (the bundle), KAOS_IMAGE (the name to give),
KAOS_IMAGE_STORE (folder with images/ and venvs/). Writes `<out>/<source id>/image.json`, a pure function of
the source.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from kaos_formats.errors import InvalidBundle
from kaos_formats.shape import find_shape
from kaos_pipelines.build.context import Context, load_context, read_modes, true_names
from kaos_pipelines.build.dockerfile import Instruction, parse
from kaos_pipelines.build.errors import BuildError, Refused
from kaos_pipelines.build.executor import check_train, execute
from kaos_pipelines.build.log import BuildLog
from kaos_pipelines.build.pip import PipCommand
from kaos_pipelines.build.plan import BASE_PATH, Plan, compile_plan
from kaos_pipelines.build.pythons import Python, find_python
from kaos_pipelines.build.rootfs import RootFs
from kaos_pipelines.build.store import ImageWriter
from kaos_pipelines.build.venvs import Recipe, VenvStore, install


def build(source: Path, image: str, store: Path, log: BuildLog | None = None) -> dict[str, Any]:
    """Build `image` from the bundle in folder `source` (its modes are in the sibling `<id>.tree`).

    Returns the content of image.json, in which secrets are masked. Raises BuildError; then no image was
    published and no environment is left half-made.
    """
    log = log or BuildLog()
    say = log.say
    tree = source.with_name(source.name + ".tree")
    paths = [path.relative_to(source).as_posix() for path in source.rglob("*") if path.is_file()]
    try:
        shape = find_shape(paths)
    except InvalidBundle as error:
        raise BuildError(str(error)) from error
    text = _read(source / shape.dockerfile)
    plan = compile_plan(parse(text))
    log.hide_secrets_of(plan)
    context_root = source / shape.context
    ignore = context_root / ".dockerignore"
    own_ignore = source / f"{shape.dockerfile}.dockerignore"
    ignore_text = _read(own_ignore) if own_ignore.is_file() else _read(ignore) if ignore.is_file() else ""
    context = load_context(context_root, read_modes(tree, shape.context), ignore_text)
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
        "source": source.name,
        "builder": "venv",
        "python": plan.python or "3",
        "workdir": plan.workdir,
        "steps": [log.mask(step.instruction.text) for step in plan.steps],
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


def _read(path: Path) -> str:
    try:
        return path.read_text("utf-8")
    except UnicodeDecodeError as error:
        raise BuildError(f"{path.name} is not UTF-8 text: {error}") from error


def run(env: Mapping[str, str], log: BuildLog | None = None) -> None:
    """One build as the pipeline asks for it. Raises BuildError."""
    missing = [name for name in ("KAOS_IMAGE", "KAOS_IMAGE_STORE", "KAOS_SOURCE_ID") if not env.get(name)]
    if missing:
        raise BuildError(f"{', '.join(missing)} not set: this is the command of a workspace's build pipeline")
    pfs = Path(env.get("PACH_PFS") or "/pfs")
    source_id = env["KAOS_SOURCE_ID"]
    source = pfs / "source" / source_id
    if not source.is_dir():
        raise BuildError(f"the source bundle {source_id} is not in the source repo's commit")
    with true_names(source) as bundle:
        result = build(bundle, env["KAOS_IMAGE"], Path(env["KAOS_IMAGE_STORE"]), log)
    folder = pfs / "out" / source_id
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "image.json").write_text(json.dumps(result, indent=1, sort_keys=True) + "\n", "utf-8")


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
