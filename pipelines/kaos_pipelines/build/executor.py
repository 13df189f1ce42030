"""Carries out a plan: files into the image's root, pip into an environment."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from kaos_pipelines.build.commands import FileCommand, Note
from kaos_pipelines.build.context import Context, ContextFile
from kaos_pipelines.build.errors import BuildError, Refused, not_executable, without_train
from kaos_pipelines.build.pip import PipCommand
from kaos_pipelines.build.plan import Action, Copy, MakeDir, Plan, Shell
from kaos_pipelines.build.rootfs import RootFs
from kaos_pipelines.build.script import COMPARISONS, TEXT_TESTS, Attempt, If, Test

Say = Callable[[str], None]
Run = Callable[[PipCommand | Shell, RootFs], None]


def execute(plan: Plan, context: Context, root: Path, run: Run, say: Say) -> None:
    """Build the image's files in the empty folder `root`; `run` is called for what takes more than files
    (pip, or what a shell carries out), in its place.

    Raises BuildError with the line that failed. A step sees exactly what the steps before it made.
    """
    fs = RootFs(root)
    fs.mkdir("/tmp").chmod(0o1777)  # noqa: S108
    for number, step in enumerate(plan.steps, 1):
        say(f"Step {number}/{len(plan.steps)} : {step.instruction.text}")
        try:
            for action in step.actions:
                _act(action, context, fs, run, say)
        except (Refused, OSError) as error:
            raise BuildError(str(error), step.instruction.line, step.instruction.text) from error


def check_train(plan: Plan, root: Path) -> None:
    """Raises BuildError unless `train` is an executable file in the image's WORKDIR."""
    fs = RootFs(root)
    train = fs.resolve("train", plan.workdir)
    where = f"{plan.workdir.rstrip('/')}/train"
    if not train.is_file():
        raise without_train(where)
    if not train.stat().st_mode & 0o111:
        raise not_executable(where)


def _act(action: Action, context: Context, fs: RootFs, run: Run, say: Say) -> None:
    if isinstance(action, Note):
        say(f" ---> noted: {action.text}")
    elif isinstance(action, MakeDir):
        fs.mkdir(action.path)
    elif isinstance(action, Copy):
        _copy(action, context, fs)
    elif isinstance(action, PipCommand | Shell):
        run(action, fs)
    elif isinstance(action, FileCommand):
        fs.run(action)
    elif isinstance(action, If):
        met = all(_holds(test, fs) for test in action.tests)
        say(f" ---> {' && '.join(test.text for test in action.tests)}: {'yes' if met else 'no'}")
        for part in action.then if met else action.otherwise:
            _act(part, context, fs, run, say)
    elif isinstance(action, Attempt):
        try:
            for part in action.commands:
                _act(part, context, fs, run, say)
        except (Refused, OSError) as error:
            say(f" ---> failed, and that is accepted: {error}")
    else:
        raise Refused(action.reason)


def _holds(test: Test, fs: RootFs) -> bool:
    """What a shell would find in the image."""
    return _found(test, fs) == test.holds


def _found(test: Test, fs: RootFs) -> bool:
    first = test.operands[0]
    if test.operator in COMPARISONS:
        return (first == test.operands[1]) == (test.operator != "!=")
    if test.operator in TEXT_TESTS:
        return bool(first) == (test.operator == "-n")
    if not first:
        return False
    if test.operator in ("-L", "-h"):
        return fs.resolve(first, test.cwd, follow=False).is_symlink()
    path = fs.resolve(first, test.cwd)
    match test.operator:
        case "-f":
            return path.is_file()
        case "-d":
            return path.is_dir()
        case "-s":
            return path.exists() and path.stat().st_size > 0
        case "-x":
            return path.is_dir() or (path.exists() and bool(path.stat().st_mode & 0o111))
    return path.exists()


def _copy(action: Copy, context: Context, fs: RootFs) -> None:
    selected = [item for source in action.sources for item in context.select(source)]
    one_file = len(selected) == 1 and selected[0][0] == ""
    folder = action.destination.endswith("/") or fs.resolve(action.destination).is_dir() or not one_file
    wild = action.sources[0].glob is not None and len(selected) > 1
    if wild and not action.destination.endswith("/"):
        raise Refused(f"{action.sources[0].text} names several files; end the destination with a /")
    folders: dict[str, None] = {}
    goals: list[tuple[str, ContextFile]] = []
    for below, file in selected:
        if folder:
            goal = f"{action.destination.rstrip('/')}/{below or file.path.rpartition('/')[2]}"
        else:
            goal = action.destination
        folders[goal.rpartition("/")[0] or "/"] = None
        goals.append((goal, file))
    for path in folders:
        fs.mkdir(path)
    for goal, file in goals:
        fs.copy_file(file.source, goal, file.mode if action.mode is None else action.mode)
