"""Virtual environments, made once for everything that decides their content and shared by all images.

    venvs/<key>/…              the environment; complete if and only if .kaos-ready is in it
    venvs/<key>/.kaos-steps    the keys of the steps that made it
    venvs/<key>.lock           held while it is made
    venvs/.making/<any>/       one whose key is known in the end only, with its .lock
    venvs/.last/<digest>       the key that a Dockerfile led to last time

A builder that dies leaves a folder without the mark; the next one that needs it removes that and starts over.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock, Timeout

from kaos_formats.folders import clean_up
from kaos_formats.images import MAKING, VENV_READY
from kaos_pipelines.build.errors import Refused
from kaos_pipelines.build.materials import materials
from kaos_pipelines.build.pip import PipCommand
from kaos_pipelines.build.pythons import Python
from kaos_pipelines.build.rootfs import RootFs

# Of this process's own environment; pip and what it builds must not see it.
PRIVATE = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV", "PYTHONSTARTUP", "__PYVENV_LAUNCHER__")
LAST = ".last"
STEPS = ".kaos-steps"
# Compiled code is told where it is when it is loaded.
COMPILED = (".pyc", ".so")
LARGEST_TEXT = 1 << 20


@dataclass(frozen=True, slots=True)
class Recipe:
    """What decides an environment: the interpreter, and each pip step with the content of every file it
    reads.
    """

    python: Python
    steps: tuple[Mapping[str, object], ...] = ()

    def then(self, command: PipCommand, fs: RootFs) -> Recipe:
        """The recipe with one more step. Raises Refused for files that are missing or outside the image."""
        step = {
            "verb": command.verb,
            "arguments": [[a.text, a.kind] for a in command.arguments],
            "env": dict(sorted(command.env.items())),
            "materials": [m for a in command.arguments for m in materials(fs, a, command.cwd)],
        }
        return Recipe(self.python, (*self.steps, step))

    @property
    def keys(self) -> tuple[str, ...]:
        """Of the environment after each step."""
        return tuple(Recipe(self.python, self.steps[: number + 1]).key for number in range(len(self.steps)))

    @property
    def key(self) -> str:
        """Folder name of the environment: equal for equal content."""
        text = json.dumps([self.python.version, self.python.path, self.steps], sort_keys=True)
        return f"py{self.python.short}-{hashlib.sha256(text.encode()).hexdigest()[:24]}"


class VenvStore:
    """The environments below a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, key: str) -> Path:
        return self.folder / key

    def ready(self, key: str) -> bool:
        """Whether the environment is complete and its interpreter still there."""
        return (self.path(key) / VENV_READY).is_file() and (self.path(key) / "bin" / "python").exists()

    def find(self, key: str, *, exact: bool) -> tuple[str, ...] | None:
        """The steps' keys of an environment that is complete and has `key` among them, as its last one if
        `exact` or if there is one.
        """
        if self.ready(key):
            return self._steps(self.path(key)) or (key,)
        if not exact and self.folder.is_dir():
            for path in sorted(self.folder.iterdir()):
                steps = self._steps(path)
                if key in steps and self.ready(path.name) and steps[-1] == path.name:
                    return steps
        return None

    def last_for(self, asked: str) -> tuple[str, ...] | None:
        """The steps' keys of the environment that is remembered for `asked`, if it is still there."""
        try:
            key = self._memory(asked).read_text("utf-8")
        except (OSError, ValueError):
            return None
        if not self.ready(key):
            return None
        steps = self._steps(self.path(key))
        return steps if steps[-1:] == (key,) else None

    def remember(self, asked: str, key: str) -> None:
        """See `last_for`. Only a shorter way: lost, it costs some time."""
        path = self._memory(asked)
        with suppress(OSError):
            path.parent.mkdir(exist_ok=True)
            path.with_suffix(".new").write_text(key, "utf-8")
            path.with_suffix(".new").replace(path)

    def _memory(self, asked: str) -> Path:
        return self.folder / LAST / hashlib.sha256(asked.encode()).hexdigest()[:24]

    @contextmanager
    def turn(self, key: str, say: Callable[[str], None]) -> Iterator[None]:
        """Waits while another builder makes `key`, or what it is a step of."""
        self.folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.folder / f"{key}.lock", thread_local=False)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            say(" ---> another build is making the same environment; waiting for it")
            lock.acquire()
        try:
            yield
        finally:
            lock.release()

    def make(self, recipe: Recipe, fill: Callable[[Path], None], say: Callable[[str], None]) -> Path:
        """Make the environment of `recipe`, unless it is there by now: an empty one, then `fill(path)`, then
        the mark.

        Waits while another builder makes the same one. What `fill` raises leaves nothing behind.
        """
        path = self.path(recipe.key)
        with self.turn(recipe.key, say):
            if self.ready(recipe.key):
                return path
            clean_up(path)
            try:
                _create(recipe.python, path)
                fill(path)
                self._complete(path, path, recipe)
            except BaseException:
                clean_up(path)
                raise
        return path

    @contextmanager
    def making(self, python: Python) -> Iterator[Path]:
        """An empty environment whose recipe is not known yet, to be adopted; gone at the end if it was not.

        Its path is as long as it will be. Also removes what builders that died left.
        """
        folder = self.folder / MAKING
        folder.mkdir(parents=True, exist_ok=True)
        for left in folder.iterdir():
            if left.is_dir():
                with suppress(Timeout), FileLock(f"{left}.lock").acquire(timeout=0):
                    clean_up(left)
                    Path(f"{left}.lock").unlink(missing_ok=True)
        length = len(Recipe(python).key) - len(MAKING) - 1
        path = folder / uuid.uuid4().hex[:length]
        with FileLock(f"{path}.lock"):
            try:
                _create(python, path)
                yield path
            finally:
                clean_up(path)
                Path(f"{path}.lock").unlink(missing_ok=True)

    def adopt(self, made: Path, recipe: Recipe, root: Path, held: str) -> str:
        """Give the environment `made` the name of its recipe, also where the image's files in `root` name it;
        its key. `held`: the key that the caller's turn is.

        Where another builder was faster, that one's stays.
        """
        path = self.path(recipe.key)
        with nullcontext() if recipe.key == held else self.turn(recipe.key, lambda _: None):
            if not self.ready(recipe.key):
                clean_up(path)
                _rename_within(made, str(made), str(path))
                self._complete(made, path, recipe)
        _rename_within(root, str(made), str(path))
        return recipe.key

    def _complete(self, made: Path, path: Path, recipe: Recipe) -> None:
        (made / STEPS).write_text(json.dumps(recipe.keys))
        os.sync()  # thousands of small files: they must be on disk before the mark says so
        if made != path:
            made.rename(path)
        with (path / VENV_READY).open("w") as mark:
            mark.write(recipe.key)
            mark.flush()
            os.fsync(mark.fileno())

    def _steps(self, path: Path) -> tuple[str, ...]:
        try:
            return tuple(json.loads((path / STEPS).read_text()))
        except (OSError, ValueError):
            return ()  # from before there were any


def _create(python: Python, path: Path) -> None:
    env = {name: value for name, value in os.environ.items() if name not in PRIVATE}
    words = [python.path, "-I", "-m", "venv", "--without-pip", str(path)]
    done = subprocess.run(words, capture_output=True, env=env, check=False)
    if done.returncode != 0:
        said = (done.stderr or done.stdout).decode("utf-8", "replace").strip()
        raise Refused(f"{python.path} cannot make a virtual environment: {said}")


def _rename_within(folder: Path, old: str, new: str) -> None:
    """Write `new`, which is as long, wherever a text or a link in `folder` says `old`."""
    for at, folders, names in os.walk(folder):
        for name in (*folders, *names):
            path = Path(at) / name
            if path.is_symlink():
                if old in (target := str(path.readlink())):
                    path.unlink()
                    path.symlink_to(target.replace(old, new))
            elif path.is_file() and path.suffix not in COMPILED and path.stat().st_size <= LARGEST_TEXT:
                content = path.read_bytes()
                if old.encode() in content:
                    path.write_bytes(content.replace(old.encode(), new.encode()))
