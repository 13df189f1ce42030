"""A version laid out from another one is what it is when it is laid out anew, whatever happens meanwhile."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any
from unittest import mock

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from kaos_backend.engine.jobs.run.inputs import InputCache, Lent
from kaos_backend.engine.store.check import findings
from kaos_backend.engine.store.store import Store
from tests.support.inputs import MIB, Version, laid_out, prepared, version

_STEPS = 25
_NAMES = "abcd"
_CALLS = ("open", "link", "rename", "mkdir", "chmod", "unlink", "rmdir", "utime")


class Killed(BaseException):
    """What a kill is to the code that it stops."""


@contextmanager
def killed_after(calls: int) -> Iterator[None]:
    """The process ends with the so-manieth call that changes something on the disk: none follows it."""
    left = [calls]

    def stopping(call: Callable[..., Any]) -> Callable[..., Any]:
        def instead(*args: Any, **kwargs: Any) -> Any:
            if call is os_open and not args[1] & os.O_CREAT:
                return call(*args, **kwargs)
            left[0] -= 1
            if left[0] < 0:
                raise Killed
            return call(*args, **kwargs)

        return instead

    os_open = os.open
    with (
        mock.patch.multiple(os, **{name: stopping(getattr(os, name)) for name in _CALLS}),
        mock.patch.object(Path, "write_bytes", stopping(Path.write_bytes)),
        mock.patch.object(Path, "write_text", stopping(Path.write_text)),
    ):
        yield


class Home:
    """A store, its cache, the versions of one folder, and the jobs that have some of them laid out."""

    def __init__(self, top: Path, random: Random) -> None:
        self.random = random
        self.store = Store.open(top / "engine")
        self.content: dict[str, bytes] = {"/a/a": b"1", "/b": b"2", "/big": random.randbytes(MIB)}
        self.versions: list[Version] = []
        self.jobs: list[tuple[Lent, bool, dict[Path, Version]]] = []
        self.commit()
        self.start()

    def start(self) -> None:
        """As an engine does: nothing runs, all else is as it was."""
        self.jobs = []
        self.cache = InputCache(self.store, self.store.root / "trees", limit_bytes=4 * MIB)
        self.cache.open()

    def commit(self) -> None:
        """Another version: files changed, added, removed, or a folder of them moved."""
        for _ in range(self.random.randrange(1, 4)):
            self.change()
        top = f"/{self.random.randbytes(16).hex()}"
        named = self.random.random() < 0.5
        content = {f"{top}{path}": body for path, body in self.content.items()} if named else self.content
        self.versions.append(version(self.store, content, f"{top}/" if named else "/"))

    def change(self) -> None:
        random = self.random
        do = random.choice(["put", "put", "big", "remove", "move"])
        path = "".join(f"/{random.choice(_NAMES)}" for _ in range(random.randrange(1, 4)))
        if do in ("put", "big"):
            self.content = {
                name: body
                for name, body in self.content.items()
                if not name.startswith(f"{path}/") and not path.startswith(f"{name}/")
            }
            self.content[path] = random.randbytes(MIB + 5 if do == "big" else random.randrange(5000))
            return
        below = [name for name in self.content if f"{name}/".startswith(f"{path}/")]
        if len(below) < len(self.content):
            to = f"/moved-{random.randrange(10**9)}"
            moved = {f"{to}{name}": self.content[name] for name in below}
            self.content = {name: body for name, body in self.content.items() if name not in below}
            if do == "move":
                self.content |= moved

    def job(self) -> None:
        shared = self.random.random() < 0.6
        lent = self.cache.lend(shared=shared)
        self.jobs.append((lent, shared, {}))
        self.prepare()

    def prepare(self) -> None:
        if self.jobs:
            lent, _, folders = self.random.choice(self.jobs)
            made = self.random.choice(self.versions[-4:])
            folder = prepared(lent, made)
            folders[folder] = made
            assert laid_out(folder) == made.content

    def end(self) -> None:
        if self.jobs:
            lent, _, folders = self.jobs.pop(self.random.randrange(len(self.jobs)))
            for folder, made in folders.items():
                assert laid_out(folder) == made.content, "nobody took it from a job that runs"
            lent.close()

    def write(self) -> None:
        """A trial that no sandbox keeps from it writes to its input, and hides it as well as it can."""
        found = [folder for _, shared, folders in self.jobs if not shared for folder in folders]
        if found:
            folder = self.random.choice(found)
            path = self.random.choice([path for path in folder.rglob("*") if path.is_file()])
            before = path.stat()
            path.chmod(0o644)
            path.write_bytes(bytes(before.st_size))
            path.chmod(0o444)
            os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
            # Jobs that have it already do not look again.
            spoilt = [job for job in self.jobs if folder in job[2]]
            self.jobs = [job for job in self.jobs if folder not in job[2]]
            for lent, _, _ in spoilt:
                if self.random.random() < 0.5:
                    lent.close()

    def evict(self) -> None:
        self.cache.evict(self.random.randrange(3 * MIB))

    def kill(self) -> None:
        try:
            with killed_after(self.random.randrange(40)):
                self.job()
        except Killed:
            pass
        self.cache.close()
        self.start()

    def restart(self) -> None:
        self.cache.close()
        self.start()

    def close(self) -> None:
        self.cache.close()
        for made in self.versions:
            fresh = self.store.root / "fresh"
            self.store.materialize(made.root, made.file.path, fresh)
            assert laid_out(fresh) == made.content
            shutil.rmtree(fresh)
        assert findings(self.store) == [], "nobody wrote to the store"
        self.store.close()


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.integers(0, 2**32))
def test_versions_laid_out_one_from_the_other(seed: int) -> None:
    random = Random(seed)
    with tempfile.TemporaryDirectory() as top:
        home = Home(Path(top), random)
        steps = [
            home.commit, home.job, home.prepare, home.prepare, home.end, home.write, home.evict, home.kill,
            home.restart,
        ]  # fmt: skip
        for _ in range(_STEPS):
            random.choice(steps)()
        home.close()
