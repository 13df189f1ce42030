"""RUNs by a real shell, each in a sandbox of the image's own root, and what fills the environment beside.

RUNs see the environment read-only. Pip, uv, Poetry and conda, which they reach by their names and as
`python -m pip`, are carried out here (`tools`), outside the RUN's sandbox and in one of their own.
"""

from __future__ import annotations

import configparser
import importlib.util
import os
import re
import shutil
import subprocess
import tempfile
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import unquote, urlsplit

from kaos_formats.images import place_of_environment
from kaos_formats.sandbox import HOST
from kaos_pipelines.build import authorities
from kaos_pipelines.build.commands import ACCOUNTS, SYSTEM_PACKAGES, WHY
from kaos_pipelines.build.context import Context
from kaos_pipelines.build.errors import USE_DOCKER, Refused
from kaos_pipelines.build.installers import CONDA, TOOLS, conda_run, parse
from kaos_pipelines.build.installs import MISPLACING, command_line, installer, settings
from kaos_pipelines.build.instructions import Failures, ended
from kaos_pipelines.build.layers import Layers, Look, file_digest, key_of
from kaos_pipelines.build.pip import PipCommand
from kaos_pipelines.build.plan import BASE_PATH, Shell
from kaos_pipelines.build.pythons import Python
from kaos_pipelines.build.rootfs import RootFs
from kaos_pipelines.build.sandbox import Mount, Sandbox, follow, settle, visible
from kaos_pipelines.build.tools import Client, Execute, Request, gather, lay_out, serve
from kaos_pipelines.build.venvs import Recipe
from kaos_pipelines.build.words import Word

OURS = "/run/kaos"
PIP = f"{OURS}/pip"
PIP_CONFIG = f"{OURS}/pip.conf"
PIP_CACHE = f"{OURS}/cache"
# Of this process's environment, what configures the installers.
CONFIGURES = ("PIP_", "UV_", "POETRY_")
# Of a shell's own, and of what differs from one environment to the next: no part of what pip depends on.
NOISE = frozenset(("PWD", "OLDPWD", "SHLVL", "_", "PATH", "PYTHONPATH"))
# Where a RUN may have configured them.
OWN_CONFIGS = (
    *("/root/.config/pip/pip.conf", "/root/.pip/pip.conf", "/root/.config/uv/uv.toml"),
    *("/root/.config/pypoetry/config.toml", "/root/.config/pypoetry/auth.toml"),
)
# What puts packages into the image's own files, or nowhere: carried out where these are.
ELSEWHERE = re.compile(r"-t.*|--(target|prefix|root|src|python|dry-run|report)(=.*)?")
Say = Callable[[str], None]


class Other(Exception):
    """A RUN asks for another environment than it was given: the one that `key` is a step of."""

    def __init__(self, key: str) -> None:
        self.key = key


@dataclass(frozen=True, slots=True)
class Given:
    """The environment of an attempt. `trace`: the keys of its recipe's steps; None while it is made."""

    path: Path
    trace: tuple[str, ...] | None


class Steps:
    """Carries out the RUNs of one attempt; `recipe` grows with what they ask of pip.

    `find`: whether there is an environment that begins with the step of a key. `layers`: what RUNs that
    installed nothing made before; None: all are carried out.
    """

    def __init__(
        self,
        python: Python,
        given: Given,
        find: Callable[[str], bool],
        context: Context,
        sandbox: Sandbox,
        scratch: Path,
        say: Say,
        layers: Layers | None = None,
    ) -> None:
        self.recipe = Recipe(python)
        self._layers = layers
        self._look: Look | None = None
        self._python, self._given, self._sandbox, self._say = python, given, sandbox, say
        self._scratch, self._find, self._context = scratch, find, context
        self._interpreter = given.path / "bin" / "python"
        self._ours = scratch / "kaos"
        self._ours.mkdir()
        lay_out(self._ours, self._interpreter, _names(python), _refusals())
        self._host = {
            name: value
            for name, value in os.environ.items()
            if HOST.fullmatch(name) or name in authorities.VARIABLES
        }
        self._host |= {
            name: value
            for name, value in os.environ.items()
            if name.startswith(CONFIGURES)
            and name
            not in (*MISPLACING, "PIP_CONFIG_FILE", "PIP_CACHE_DIR", "UV_CACHE_DIR", "POETRY_CACHE_DIR")
        }
        self._mounts = tuple(self._shared_mounts())
        self._baseline: Mapping[str, str] = {}
        self._network = True
        self._running: subprocess.Popen[bytes] | None = None
        self._other: Other | None = None
        self._asked = False

    def __call__(self, action: PipCommand | Shell, fs: RootFs) -> None:
        """Raises Refused for a RUN that fails, Other for one that asks for another environment, Lost for one
        whose layer is of no use.
        """
        assert isinstance(action, Shell)
        if self._layers is None:
            self._run(action, fs)
            return
        look = self._look = self._look or Look(fs.root)
        before = look.entries()
        key = key_of(before, self._described(action))
        if self._layers.apply(key, fs.root):
            self._say(" ---> using what it made before")
            return
        self._asked = False
        self._run(action, fs)
        if not self._asked:
            made_in = "" if self._given.trace is not None else str(self._given.path)
            self._layers.keep(key, fs.root, before, look.entries(), made_in)

    def _described(self, action: Shell) -> object:
        """All that decides what a RUN makes of the image's files, beside these."""
        binds = [
            [target, below, file.mode, file_digest(file.source)]
            for source, target in action.binds
            for below, file in self._context.select(source)
        ]
        env = sorted(action.env.items())
        return [self.recipe.key, action.words, action.cwd, env, action.network, action.caches, binds]

    def _run(self, action: Shell, fs: RootFs) -> None:
        last: deque[str] = deque(maxlen=Failures.LINES)

        def tell(line: str) -> None:
            last.append(line)
            self._say(line)

        beside = tuple(
            Mount(Path(tempfile.mkdtemp(dir=self._scratch)), target, writable=True)
            for target in action.caches
        )
        beside += tuple(Mount(self._bound(source), target) for source, target in action.binds)
        mounts = (*self._mounts, Mount(self._given.path, str(self._given.path)), *beside)
        env, self._network = self._environment(action.env), action.network
        with serve(self._ours, self._handle), self._sandbox.ready(fs.root, mounts) as start:
            self._running = start(action.words, cwd=action.cwd, env=env, network=action.network)
            code = follow(self._running, tell)
        if self._other is not None:
            raise self._other
        settle(fs.root, self._say)
        if code:
            raise Refused(ended(str(code), last))

    def _bound(self, source: Word) -> Path:
        """A file or folder of the context, with the modes that the bundle says."""
        place = Path(tempfile.mkdtemp(dir=self._scratch))
        for below, file in self._context.select(source):
            path = place / "of" / below if below else place / "file"
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file.source, path)
            path.chmod(file.mode | 0o400)
        return place / "file" if (place / "file").exists() else place / "of"

    def _environment(self, own: Mapping[str, str]) -> dict[str, str]:
        path = own.get("PATH", BASE_PATH).split(":")
        at = place_of_environment(path)
        path[at:at] = [f"{OURS}/bin", f"{self._given.path}/bin"]
        self._baseline = {
            **self._host,
            "HOME": "/root",
            "LANG": "C.UTF-8",
            "KAOS_VENV": str(self._given.path),
            **settings(self._given.path),
            "PYTHONUNBUFFERED": "1",
            # As root without a container tar would try to give files to others.
            "TAR_OPTIONS": "--no-same-owner",
        }
        return {
            **self._baseline,
            **own,
            "PATH": ":".join(path),
            "PYTHONPATH": ":".join(filter(None, (f"{OURS}/lib", own.get("PYTHONPATH")))),
        }

    def _handle(self, request: Request, client: Client) -> int | Execute:
        self._asked = True
        words = list(request.argv)
        tool = request.tool
        if tool in CONDA and (ran := conda_run(words)) is not None:
            return Execute(["/usr/bin/env", *ran], {})
        if tool not in TOOLS:
            raise Refused(f"{tool} is nothing that is asked for here")
        if self._is_elsewhere(request):
            return self._itself(tool, words, {})
        env = {
            name: value.replace(str(self._given.path), "$VIRTUAL_ENV")
            for name, value in request.env.items()
            if name not in NOISE and self._baseline.get(name) != value
        }
        command = parse(tool, words, request.cwd, env, strict=False)
        if command is None:
            # `uv run` would begin with installing.
            return self._itself(tool, words, {**settings(self._given.path), "UV_NO_SYNC": "1"})
        with tempfile.TemporaryDirectory(dir=self._scratch) as folder:
            fs = RootFs(Path(folder) / "root")
            fs.root.mkdir()
            gather(command, client, fs)
            configs = {
                path: fs.resolve(path).read_text("utf-8", "replace")
                for path in OWN_CONFIGS
                if client.fetch(path, fs) == "file"
            }
            command = replace(command, env={**command.env, **configs})
            recipe = self.recipe.then(command, fs)
            if self._given.trace is not None:
                step = len(recipe.steps)
                if self._given.trace[step - 1 : step] != (recipe.key,):
                    self._stop(Other(recipe.key))
                self.recipe = recipe
                client.say(f" ---> using the cached environment {self._given.path.name}")
                return 0
            if not self.recipe.steps and self._find(recipe.key):
                self._stop(Other(recipe.key))
            code = self._install(command, fs, request.env, client.say)
        if code:
            # It might have gone well, and the next time it will: nobody else is to get this environment.
            failed = {"failed": uuid.uuid4().hex}
            recipe = replace(recipe, steps=(*recipe.steps, failed))
        self.recipe = recipe
        return code

    def _is_elsewhere(self, request: Request) -> bool:
        """Whether it is about the image's own files, or an environment that the Dockerfile made there."""
        if request.tool == "pip":
            return any(ELSEWHERE.fullmatch(word) for word in request.argv)
        other = request.env.get("VIRTUAL_ENV", str(self._given.path)) != str(self._given.path)
        return other and "--system" not in request.argv

    def _itself(self, tool: str, words: Sequence[str], env: Mapping[str, str]) -> int | Execute:
        """The tool, in the RUN's own sandbox, where the environment cannot be written to."""
        if tool == "pip":
            own = self._own_pip(words)
            return Execute(own.words, {**own.env, "PIP_NO_CACHE_DIR": "1"})
        if tool in CONDA:
            return 0
        return Execute(
            [installer(tool, self._given.path, sees_host=False), *words], {**env, "UV_NO_CACHE": "1"}
        )

    def _stop(self, other: Other) -> None:
        """End the RUN that asks. Its caller gets no answer."""
        self._other = other
        if self._running is not None:
            self._running.kill()
        raise EOFError

    def _install(self, command: PipCommand, fs: RootFs, asked: Mapping[str, str], say: Say) -> int:
        """Run an installer with the environment writable, in a root with nothing but the files it reads."""
        fs.mkdir(command.cwd)
        fs.mkdir("/tmp").chmod(0o1777)  # noqa: S108
        cache = _pip_cache()
        netrc = Path.home() / ".netrc"
        mounts = [*self._mounts, Mount(self._given.path, str(self._given.path), writable=True)]
        if cache is not None:
            (self._ours / "cache").mkdir(exist_ok=True)
            mounts.append(Mount(cache, PIP_CACHE, writable=True))
        if netrc.is_file():
            mounts.append(Mount(netrc, "/root/.netrc"))
        env = {name: value for name, value in asked.items() if name not in (*MISPLACING, "PYTHONPATH")}
        env |= {**self._own_pip([]).env, **settings(self._given.path)}
        env["PATH"] = env.get("PATH", BASE_PATH).replace(f"{OURS}/bin:", "")
        words = command_line(command, self._given.path, self._python, fs, self._pip(), sees_host=False)
        with self._sandbox.ready(fs.root, mounts) as start:
            return follow(start(words, cwd=command.cwd, env=env, network=self._network), say)

    def _own_pip(self, words: Iterable[str]) -> Execute:
        env = {"PYTHONPATH": "", "PIP_CACHE_DIR": PIP_CACHE, "UV_CACHE_DIR": f"{PIP_CACHE}/uv"}
        env["POETRY_CACHE_DIR"] = f"{PIP_CACHE}/poetry"
        if (self._ours / "pip.conf").exists():
            env["PIP_CONFIG_FILE"] = PIP_CONFIG
        return Execute([*self._pip(), *words], env)

    def _pip(self) -> list[str]:
        own = (self._given.path / "bin" / "pip").exists()  # a Dockerfile that upgrades pip means to use it
        return [str(self._interpreter), *(("-m", "pip") if own else (PIP,))]

    def _shared_mounts(self) -> Iterator[Mount]:
        yield Mount(self._ours, OURS)
        found = importlib.util.find_spec("pip")
        if found is not None and found.submodule_search_locations:
            (self._ours / "pip").mkdir()
            yield Mount(Path(next(iter(found.submodule_search_locations))), PIP)
        config = _pip_config()
        if config is not None:
            (self._ours / "pip.conf").touch()
            yield Mount(config, PIP_CONFIG)
        uv = shutil.which("uv")  # a program that needs nothing beside it
        if uv is not None and not visible(Path(uv)):
            yield Mount(Path(uv).resolve(), uv)
        prefixes = [Path(prefix) for prefix in self._python.prefixes]
        named = _named_paths([*self._host.values(), *(_values(config) if config is not None else ())])
        wanted = dict.fromkeys((*prefixes, *(prefix.resolve() for prefix in prefixes), *named))
        yield from (Mount(path, str(path)) for path in wanted if not visible(path))


def _names(python: Python) -> tuple[str, ...]:
    return "pip3", f"pip{python.short}", *TOOLS


def _refusals() -> dict[str, str]:
    noted = "noted, and no more: there is one user without a container"
    return {
        **dict.fromkeys(ACCOUNTS, noted),
        **{name: f"{WHY[name]}: {USE_DOCKER}" for name in SYSTEM_PACKAGES},
        "sudo": f"{WHY['sudo']}: {USE_DOCKER}",
    }


def _pip_config() -> Path | None:
    """The user's own configuration of pip; that of the machine is below /etc and seen anyway."""
    home = Path.home()
    xdg = Path(os.environ.get("XDG_CONFIG_HOME") or home / ".config")
    named = os.environ.get("PIP_CONFIG_FILE")
    candidates = [Path(named)] if named else [xdg / "pip" / "pip.conf", home / ".pip" / "pip.conf"]
    return next((path for path in candidates if path.is_file()), None)


def _pip_cache() -> Path | None:
    xdg = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    cache = Path(os.environ.get("PIP_CACHE_DIR") or xdg / "pip")
    try:
        cache.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError:
        return None
    return cache


def _values(config: Path) -> Iterator[str]:
    parser = configparser.RawConfigParser()
    try:
        parser.read(config, "utf-8")
    except (configparser.Error, UnicodeDecodeError):
        return  # pip itself will say so
    for section in parser.sections():
        yield from parser[section].values()


def _named_paths(texts: Iterable[str]) -> Iterator[Path]:
    """Files and folders of the host that settings of pip or the network name."""
    for word in (word for text in texts for word in text.split()):
        path = Path(unquote(urlsplit(word).path)) if word.startswith("file://") else Path(word)
        if path.is_absolute() and path.exists() and len(path.parts) > 2:
            yield path
