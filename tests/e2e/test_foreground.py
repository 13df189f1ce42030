"""A trial and a shell in the foreground, as a person has them: on a terminal, with Ctrl-C."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import termios
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.bundles import write_source
from tests.support.home import Home
from tests.support.waiting import eventually


class Window:
    """A terminal in which one command runs."""

    def __init__(self, home: Home, *arguments: str | Path) -> None:
        self._ours, theirs = pty.openpty()
        self.resize(30, 100)
        self.process = subprocess.Popen(
            [str(home.kaos), *map(str, arguments)],
            env={**home.env, "TERM": "dumb"},
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            # It is the terminal whose keys send it signals.
            preexec_fn=lambda: (os.setsid(), fcntl.ioctl(0, termios.TIOCSCTTY, 0)),  # type: ignore[func-returns-value]
        )
        os.close(theirs)
        self.shown = ""

    def resize(self, rows: int, columns: int) -> None:
        fcntl.ioctl(self._ours, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def type(self, text: str) -> None:
        os.write(self._ours, text.encode())

    def shows(self, text: str) -> None:
        """Waits until the text is there, and forgets what was before it."""
        deadline = time.monotonic() + 20
        while text not in self.shown:
            assert time.monotonic() < deadline, f"{text!r} is not in {self.shown!r}"
            if select.select([self._ours], [], [], 0.2)[0]:
                try:
                    self.shown += os.read(self._ours, 1 << 16).decode(errors="replace")
                except OSError:
                    raise AssertionError(f"{text!r} is not in {self.shown!r}, and it has ended") from None
        self.shown = self.shown.partition(text)[2]

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._ours)


@pytest.fixture
def windows() -> Iterator[list[Window]]:
    opened: list[Window] = []
    yield opened
    for one in opened:
        one.close()


def test_run_and_shell(home: Home, workspace: str, tmp_path: Path, data: Path, windows: list[Window]) -> None:
    body = (
        "open(out + '/half', 'w').write('half')\n"
        "if params.get('wait'): time.sleep(600)\n"
        "if params.get('x', 0) < 2: sys.exit(7)"
    )
    src = write_source(tmp_path / "src", body=body)
    out = tmp_path / "out"
    run = ["train", "run", "-w", workspace, "-s", src, "-d", data]
    done = home.run(*run, "--set", "x=2", "-o", out)
    assert done.stdout == 'training {"x": 2}\ntrained\n'
    (model,) = out.iterdir()
    assert sorted(path.name for path in model.iterdir()) == ["half", "metrics.json", "model.bin"]
    assert home.run(*run, "--set", "x=1", check=False).returncode == 7
    assert home.json("train", "list", "-w", workspace)["jobs"] == []

    scratch = home.path / "engine" / "scratch" / "datums"
    waiting = Window(home, *run, "--set", "wait=true")
    windows.append(waiting)
    waiting.shows("training")
    waiting.type("\x03")
    waiting.shows("interrupted; the trial was ended")
    assert waiting.process.wait(60) == 130
    eventually(lambda: not list(scratch.iterdir()), "nothing of it is left")

    deploy = ["train", "deploy", "-w", workspace, "-s", src, "-d", data]
    assert home.run(*deploy, "--wait", check=False).returncode == 1
    shell = Window(home, "train", "shell", "-w", workspace, "--trial", "0")
    windows.append(shell)
    shell.shows("# " if os.geteuid() == 0 else "$ ")
    shell.type("cat $KAOS_OUTPUT_DIR/half; echo ' is le''ft'; stty size\r")
    shell.shows("half is left")
    shell.shows("30 100")
    shell.type("(trap : INT; echo be''gun; sleep 600; echo inter''rupted)\r")
    shell.shows("begun")
    shell.type("\x03")
    shell.shows("interrupted")
    shell.resize(10, 40)
    shell.process.send_signal(signal.SIGWINCH)
    shell.type("until [ \"$(stty size)\" = '10 40' ]; do :; done; echo re''sized; exit 9\r")
    shell.shows("resized")
    assert shell.process.wait(60) == 9
    eventually(lambda: not list(scratch.iterdir()), "nothing of it is left")
