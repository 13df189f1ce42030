"""KAOS_HOME: what lies where in it, and the files through which its processes find each other.

A process holds ``<program>.lock`` for as long as it lives and says in ``<program>.json`` where it answers.
Whether one lives is told by its lock, never by a pid alone.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal, Self

from kaos_formats.files import read_json, write_atomically

Program = Literal["backend", "engine"]

TOKEN_BYTES = 32
_PROBED_S = 0.005
MAX_SOCKET_BYTES = 107
"""What the address of a Unix socket has room for (unix(7))."""


@dataclass(frozen=True, slots=True)
class Home:
    """The folder that holds everything of one user's kaos. Nothing is created before something is written."""

    path: Path

    @classmethod
    def of(cls, env: Mapping[str, str]) -> Self:
        """``$KAOS_HOME``, else ``~/.kaos``; always absolute, as its processes run in other directories."""
        return cls(Path(env.get("KAOS_HOME") or "~/.kaos").expanduser().absolute())

    @property
    def token_file(self) -> Path:
        return self.path / "token"

    @property
    def tokens_file(self) -> Path:
        """The tokens of others who use the backend."""
        return self.path / "tokens.json"

    @property
    def owner_file(self) -> Path:
        """A name for this home that no other one has; what it has begun in a shared pachd carries it."""
        return self.path / "owner"

    @property
    def cache(self) -> Path:
        return self.path / "cache"

    @property
    def logs(self) -> Path:
        return self.path / "logs"

    def log(self, program: Program) -> Path:
        return self.logs / f"{program}.log"

    def lock(self, program: Program) -> Path:
        return self.path / f"{program}.lock"

    @property
    def stopped_file(self) -> Path:
        """There from when the processes were stopped until they are started: whether they crashed, or not."""
        return self.path / "stopped"

    @property
    def sockets(self) -> Path:
        """The folder of the Unix sockets, which nobody but the user may enter."""
        return self.path / "run"

    def running_file(self, program: Program) -> Path:
        return self.path / f"{program}.json"


@dataclass(frozen=True, slots=True)
class Running:
    """A process of a home: its pid, its version and where it answers (the backend a URL, the engine gRPC;
    both also on a Unix socket of the user alone, if that can be had). ``serves``: where others reach the
    backend.
    """

    pid: int
    version: str = ""
    url: str = ""
    host: str = ""
    port: int = 0
    socket: str = ""
    serves: str = ""


def fetched_files(home: Path) -> Path:
    """Where in a home fetches keep what they have got, for all workspaces; it may be deleted at any time."""
    return home / "cache" / "fetch"


def write_running(home: Home, program: Program, running: Running) -> None:
    """Say where ``program`` answers."""
    said = {name: value for name, value in asdict(running).items() if value}
    write_atomically(home.running_file(program), json.dumps(said).encode() + b"\n", durable=False)


def read_running(home: Home, program: Program) -> Running | None:
    """What ``program`` said last, alive or not; None when it is missing or not whole."""
    said = read_json(home.running_file(program))
    try:
        return Running(
            pid=int(said["pid"]),
            version=str(said.get("version", "")),
            url=str(said.get("url", "")),
            host=str(said.get("host", "")),
            port=int(said.get("port", 0)),
            socket=str(said.get("socket", "")),
            serves=str(said.get("serves", "")),
        )
    except (KeyError, TypeError, ValueError):
        return None


def own_socket(home: Home, program: Program) -> Path | None:
    """Where ``program`` may bind a Unix socket that nobody but this user can reach; None if there is no such
    place.

    Reaching a socket takes the right to enter its folder. Only for who holds the lock of ``program``.
    """
    from kaos_formats.folders import clean_up

    place = home.sockets / f"{program}.sock"
    if len(os.fsencode(place)) > MAX_SOCKET_BYTES:
        return None
    try:
        if home.sockets.is_symlink() or (home.sockets.exists() and not home.sockets.is_dir()):
            clean_up(home.sockets)
        home.sockets.mkdir(mode=0o700, exist_ok=True)
        home.sockets.chmod(0o700)
        if home.sockets.stat().st_uid != os.getuid():
            return None
        clean_up(place)
    except OSError:
        return None
    return place


def log_file(home: Home, program: Program) -> Path:
    """The log of ``program`` to append to; its usual place, if that can be had at all.

    Raises OSError when there is no room or the home cannot be written.
    """
    from kaos_formats.folders import appendable, folder

    return appendable(folder(home.logs) / f"{program}.log")


def make_private(folder: Path) -> None:
    """Make ``folder`` (and its parents) if missing; only the user may enter a new one."""
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)


def ensure_token(path: Path) -> str:
    """The secret in ``path``, made now if there is none. Whoever comes first wins; all get the same."""
    if text := _read_token(path):
        return text
    # An empty one is a crash's; replacing it must not cross another's replacement.
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(folder, fcntl.LOCK_EX)
        text = _read_token(path)
        if not text:
            text = os.urandom(TOKEN_BYTES).hex()
            write_atomically(path, text.encode() + b"\n")
    finally:
        os.close(folder)
    return text


def try_lock(path: Path) -> int | None:
    """A file descriptor that holds the lock of ``path`` for as long as it is open; None if a process has
    it.
    """
    fd = _open_lock(path)
    try:
        for last in (False, True):
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                if last:
                    break
                time.sleep(_PROBED_S)  # perhaps somebody only looks whether it is held
            else:
                return fd
    except BaseException:
        os.close(fd)
        raise
    os.close(fd)
    return None


def is_locked(path: Path) -> bool:
    """Whether a process holds the lock of ``path``. Takes it for an instant, shared, to find out."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return False
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(fd)
    return False


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold the lock of ``path``; waits for whoever has it."""
    fd = _open_lock(path)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def process_lives(pid: object) -> bool:
    """Whether there is a process of this id."""
    if not isinstance(pid, int) or pid <= 0:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _open_lock(path: Path) -> int:
    try:
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except IsADirectoryError:
        from kaos_formats.folders import clean_up

        aside = path.with_name(f".{path.name}.{os.urandom(4).hex()}")
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            # The slash: only a folder, never the file that another one made of it meanwhile and holds.
            os.rename(f"{path}/", aside)  # noqa: PTH104
        clean_up(aside)
        return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)


def _read_token(path: Path) -> str:
    """ "" for what cannot be one: it stands in an HTTP header."""
    try:
        text = path.read_text("ascii").strip()
    except (FileNotFoundError, NotADirectoryError, IsADirectoryError, UnicodeDecodeError):
        return ""
    return text if text.isprintable() and " " not in text else ""
