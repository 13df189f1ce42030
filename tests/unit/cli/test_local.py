"""Starting, finding and stopping the local backend, with a small real process in its place."""

from __future__ import annotations

import fcntl
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from kaos_cli import __version__, local
from kaos_cli.config import Home
from kaos_cli.errors import KaosError
from kaos_formats.home import is_locked
from tests.support.waiting import eventually

# What a backend does as far as the command line sees it; `mode` (a file in KAOS_HOME) makes it misbehave.
STAND_IN = """
import fcntl, http.server, json, os, pathlib, signal, sys, time
home = pathlib.Path(os.environ["KAOS_HOME"])
name = "engine" if "engine" in sys.argv[1:] else "backend"
mode = (home / "mode").read_text() if (home / "mode").exists() else ""
if mode == "port":
    sys.exit("port 7 (KAOS_PORT) is in use by another program")
if mode == "full":
    sys.exit("OSError: [Errno 28] No space left on device")
lock = os.open(home / f"{name}.lock", os.O_RDWR | os.O_CREAT)
try:
    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
except BlockingIOError:
    sys.exit(3)
with open(home / "starts", "a") as starts:
    starts.write(f"{os.getpid()}\\n")
if mode == "stubborn":
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def log_message(self, *args): pass
    def do_GET(self):
        if mode == "hung":
            time.sleep(3600)
        token = (home / "token").read_text().strip()
        good = self.headers["Authorization"] == f"Bearer {token}"
        body = {"ok": True, "pid": os.getpid(), "version": 1, "kaos_version": "0.1.0"} if good else {
            "error": {"code": "unauthorized", "message": "no", "hint": "", "fields": {}}}
        body = json.dumps(body).encode()
        self.send_response(200 if good else 401)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)
server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
state = {"url": f"http://127.0.0.1:{server.server_port}", "pid": os.getpid(), "version": "0.1.0"}
(home / f".{name}").write_text(json.dumps(state))
(home / f".{name}").rename(home / f"{name}.json")
server.serve_forever()
"""


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, home: Home) -> Iterator[Home]:
    package = tmp_path / "path" / "kaos_backend"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    (package / "__main__.py").write_text(STAND_IN)
    (package / "engine.py").write_text(STAND_IN.replace("sys.argv[1:]", "['engine']"))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "path"))
    yield home
    for line in starts(home):
        try:
            os.kill(int(line), signal.SIGKILL)
        except ProcessLookupError:
            continue
    eventually(lambda: not is_locked(home.lock("backend")) and not is_locked(home.lock("engine")))


def starts(home: Home) -> list[str]:
    path = home.path / "starts"
    return path.read_text().split() if path.exists() else []


def connect(home: Home) -> str:
    transport = local.connect(home, dict(os.environ), lambda _: None)
    transport.close()
    return transport.endpoint.url


def state(home: Home) -> dict[str, object]:
    content = json.loads((home.path / "backend.json").read_bytes())
    assert isinstance(content, dict)
    return content


def mode(home: Home, name: str) -> None:
    home.create()
    (home.path / "mode").write_text(name)


def test_starts_once_and_is_found_again(stand_in: Home) -> None:
    assert connect(stand_in) == connect(stand_in) == state(stand_in)["url"]
    assert len(starts(stand_in)) == 1
    assert (stand_in.path / "logs/backend.log").exists()
    # A session of its own: Ctrl-C in this terminal is not for it.
    assert os.getsid(int(starts(stand_in)[0])) == int(starts(stand_in)[0])


def test_two_who_start_at_once_end_in_one_backend(stand_in: Home) -> None:
    stand_in.token()
    code = (
        "import os; from kaos_cli import local; from kaos_cli.config import Home;"
        "print(local.connect(Home.of(os.environ), os.environ, lambda _: None).endpoint.url)"
    )
    both = [
        subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(3)
    ]
    urls = {process.communicate(timeout=60)[0] for process in both}
    assert len(urls) == 1
    assert len(starts(stand_in)) == 1


def test_a_dead_one_is_replaced(stand_in: Home) -> None:
    connect(stand_in)
    os.kill(int(starts(stand_in)[0]), signal.SIGKILL)
    connect(stand_in)
    assert len(starts(stand_in)) == 2


def test_a_stale_file_that_names_another_program_is_not_believed(stand_in: Home) -> None:
    """Its port is somebody else's now: they answer, but not to our token."""
    stand_in.create()
    other = Home(stand_in.path.parent / "other")
    other.token()
    env = dict(os.environ) | {"KAOS_HOME": str(other.path)}
    process = subprocess.Popen([sys.executable, "-P", "-m", "kaos_backend"], env=env)
    try:
        eventually(lambda: (other.path / "backend.json").exists())
        (stand_in.path / "backend.json").write_text((other.path / "backend.json").read_text())
        assert connect(stand_in) != json.loads((other.path / "backend.json").read_text())["url"]
        assert len(starts(stand_in)) == 1
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize("content", ["", "{", "[]", '{"pid": "x"}', '{"url": "http://127.0.0.1:9"}'])
def test_a_broken_file_is_no_backend(stand_in: Home, content: str) -> None:
    stand_in.create()
    (stand_in.path / "backend.json").write_text(content)
    connect(stand_in)
    assert len(starts(stand_in)) == 1


@pytest.mark.parametrize(("name", "told"), [("port", "KAOS_PORT"), ("full", "free some space")])
def test_one_that_cannot_start_says_why(stand_in: Home, name: str, told: str) -> None:
    mode(stand_in, name)
    with pytest.raises(KaosError) as caught:
        connect(stand_in)
    assert caught.value.code == "backend_unavailable"
    assert told in caught.value.hint
    assert "in use" in caught.value.message or "No space" in caught.value.message


def test_a_hung_one_is_told_and_down_ends_it(stand_in: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    connect(stand_in)
    pid = int(starts(stand_in)[0])
    os.kill(pid, signal.SIGSTOP)
    monkeypatch.setattr(local, "HEALTH_TIMEOUT_S", 0.2)
    with pytest.raises(KaosError, match="does not answer") as caught:
        connect(stand_in)
    assert "kaos down && kaos up" in caught.value.hint
    assert local.stop(stand_in, timeout_s=0.2) == ["backend"]
    assert not is_locked(stand_in.lock("backend"))


def test_another_version_is_told_while_it_lives(stand_in: Home) -> None:
    connect(stand_in)
    path = stand_in.path / "backend.json"
    path.write_text(json.dumps(state(stand_in) | {"version": "0.0.1"}))
    with pytest.raises(KaosError) as caught:
        connect(stand_in)
    assert caught.value.code == "version_mismatch"
    assert "0.0.1" in caught.value.message
    assert __version__ in caught.value.message
    assert "kaos down" in caught.value.hint
    # Left behind by an older kaos, the file is no reason not to start.
    os.kill(int(starts(stand_in)[0]), signal.SIGKILL)
    eventually(lambda: not is_locked(stand_in.lock("backend")))
    connect(stand_in)


def test_down_stops_backend_and_engine_and_waits(stand_in: Home) -> None:
    connect(stand_in)
    engine = subprocess.Popen([sys.executable, "-P", "-m", "kaos_backend.engine"])
    reaper = threading.Thread(target=engine.wait)
    reaper.start()
    eventually(lambda: (stand_in.path / "engine.json").exists())
    assert local.stop(stand_in) == ["backend", "engine"]
    reaper.join()
    assert not is_locked(stand_in.lock("backend"))
    assert not is_locked(stand_in.lock("engine"))
    assert local.stop(stand_in) == []


def test_down_ends_one_that_does_not_listen(stand_in: Home) -> None:
    mode(stand_in, "stubborn")
    connect(stand_in)
    assert local.stop(stand_in, timeout_s=0.2) == ["backend"]
    assert not is_locked(stand_in.lock("backend"))


def test_what_was_stopped_is_not_started_by_who_lost_it_but_what_crashed_is(stand_in: Home) -> None:
    def reconnect() -> None:
        local.reconnect(stand_in, dict(os.environ), lambda _: None).close()

    connect(stand_in)
    os.kill(int(starts(stand_in)[0]), signal.SIGKILL)
    eventually(lambda: not is_locked(stand_in.lock("backend")))
    reconnect()
    assert len(starts(stand_in)) == 2
    local.stop(stand_in)
    with pytest.raises(KaosError) as caught:
        reconnect()
    assert (caught.value.code, caught.value.exit_code) == ("stopped", 4)
    assert len(starts(stand_in)) == 2
    # Whoever comes anew starts it, and from then on a crash is a crash again.
    connect(stand_in)
    os.kill(int(starts(stand_in)[2]), signal.SIGKILL)
    eventually(lambda: not is_locked(stand_in.lock("backend")))
    reconnect()
    assert len(starts(stand_in)) == 4


def test_down_never_ends_a_stranger(home: Home) -> None:
    """A stale file may name a pid that is an innocent program's now."""
    home.create()
    stranger = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        (home.path / "backend.json").write_text(
            json.dumps({"url": "http://127.0.0.1:9", "pid": stranger.pid})
        )
        assert local.stop(home) == []
        assert stranger.poll() is None
    finally:
        stranger.communicate()


def test_down_with_nothing_there(home: Home) -> None:
    assert local.stop(home) == []
    assert not home.path.exists()


def test_asking_for_a_lock_takes_it_from_nobody(home: Home) -> None:
    home.create()
    path = home.path / "backend.lock"
    assert not is_locked(home.lock("backend"))
    fd = os.open(path, os.O_RDWR | os.O_CREAT)
    fcntl.flock(fd, fcntl.LOCK_EX)
    assert is_locked(home.lock("backend"))
    os.close(fd)
    assert not is_locked(home.lock("backend"))


def test_versions_of_cli_and_backend_are_one() -> None:
    import kaos_backend

    assert __version__ == kaos_backend.__version__
