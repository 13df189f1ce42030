"""``kaos train run`` and ``kaos train shell``: what runs while the terminal waits for it."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import threading
from base64 import b64decode, b64encode
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from kaos_cli import text
from kaos_cli.client import KaosClient
from kaos_cli.errors import ConnectionLost, KaosError
from kaos_cli.session import Session
from kaos_cli.transport import Transport

_SPOOLED_BYTES = 16 << 20
_TYPED_BYTES = 32 << 10
_TRY = "kaos status shows whether it is up; try again"
Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Run:
    """What was typed. None: as it is in the workspace. ``out``: where the files go; None: they are not
    kept.
    """

    source: Path | None
    data: Path | None
    params: Mapping[str, Any]
    cpu: float | None
    memory: str | None
    gpu: int | None
    tries: int | None
    timeout_s: float | None
    out: Path | None
    force: bool


def run(session: Session, ws: str, asked: Run) -> int:
    """Run one trial while it is waited for; its exit code. Ctrl-C ends it."""
    from kaos_cli.deploying import interrupted, list_bundle, send_all
    from kaos_cli.inputs import check_resources

    session.home.create()
    check_resources(None, asked.cpu, asked.memory, asked.gpu, asked.tries)
    with interrupted("interrupted; nothing was run"):
        listed = [list_bundle(session, asked.source, "source")] if asked.source is not None else []
        listed += [list_bundle(session, asked.data, "data")] if asked.data is not None else []
    ids = {one.bundle.kind: one.bundle.id for one in send_all(session, ws, listed)}
    granted = {name: getattr(asked, name) for name in ("cpu", "memory", "gpu", "tries", "timeout_s")}
    request = {
        "source": ids.get("source"),
        "data": ids.get("data"),
        "params": dict(asked.params),
        "resources": granted,
        "keep": asked.out is not None,
    }
    written = None
    with tempfile.SpooledTemporaryFile(_SPOOLED_BYTES) as packed:
        end = _follow(session, session.client.run(ws, request), packed)
        if asked.out is not None and packed.tell():
            written = _place(packed, asked.out, asked.force)
    code = int(end["code"] or 0)
    if session.terminal.json:
        files = {"out": str(asked.out), "files": written} if written is not None else {}
        session.terminal.answer_json({"code": code, "reason": end["reason"], **files})
        return code
    if end["reason"]:
        session.terminal.warn(f"kaos: {text.printable(end['reason'])}")
    if written is not None:
        session.terminal.say(f"{text.files(written)} → {asked.out}")
    return code


def _follow(session: Session, lines: Iterator[Json], packed: IO[bytes]) -> Json:
    """Show what is printed until the end, which is returned; what the output folder held goes to
    ``packed``.
    """
    name = ""
    # Under --json stdout has the answer alone.
    out = sys.stderr.buffer if session.terminal.json else sys.stdout.buffer
    sys.stdout.flush()
    try:
        for line in lines:
            name = line.get("session") or name
            if line.get("end"):
                return _checked(line)
            _remark(session, line)
            if printed := b64decode(line.get("printed", "")):
                if line.get("stage"):
                    for told in printed.decode("utf-8", "replace").splitlines():
                        session.terminal.say(f"{line['stage']}  {text.printable(told)}")
                else:
                    out.write(printed)
                    out.flush()
            packed.write(b64decode(line.get("output", "")))
    except KeyboardInterrupt:
        # Not to be read any more ends it as well, but a moment later.
        with suppress(KaosError, ConnectionLost):
            _typist(session).type(name, {"end": True})
        raise KaosError(
            "interrupted", "interrupted; the trial was ended, and nothing of it is kept"
        ) from None
    except ConnectionLost as error:
        lost = f"lost the connection to the backend, and with it the trial: {error}"
        raise KaosError("connection_lost", lost, hint=_TRY) from error
    raise KaosError("connection_lost", "the backend ended the trial", hint=_TRY)


def _remark(session: Session, line: Json) -> None:
    if line.get("waiting"):
        session.terminal.say(f"waits for {text.printable(line['waiting'])}")
    if line.get("note"):
        session.terminal.say(text.printable(line["note"]))


def _checked(end: Json) -> Json:
    """The end of a command; raises KaosError if it was an error of kaos."""
    if told := end.get("error"):
        raise KaosError(str(told["code"]), str(told["message"]), hint=str(told.get("hint") or ""))
    return end


def _place(packed: IO[bytes], out: Path, force: bool) -> int:
    """Write the files of an output folder; how many there are."""
    from kaos_cli.extract import place, staging, unpack

    packed.seek(0)
    with staging(out) as staged:
        written = unpack(packed, staged)  # type: ignore[arg-type]
        place(staged, out, force)
    return written.files


def shell(session: Session, ws: str, ref: str, trial: int) -> int:
    """A shell where a trial was, on this terminal; its exit code."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise KaosError("usage", "a shell needs a terminal", hint="call it without pipes and redirections")
    size = _size()
    asked = {"rows": size.lines, "columns": size.columns, "term": os.environ.get("TERM", "dumb")}
    lines, name = session.client.shell(ws, ref, trial, asked), ""
    try:
        for line in lines:
            name = line.get("session") or name
            _remark(session, line)
            if line.get("running"):
                session.terminal.say(f"where trial {trial} was; $KAOS_OUTPUT_DIR is its output folder")
                with _raw(), _typing(session, name):
                    end = _show(lines)
                return _shell_ended(session, end)
            if line.get("end"):
                return _shell_ended(session, line)
    except KeyboardInterrupt:
        raise KaosError("interrupted", "interrupted; there was no shell yet") from None
    except ConnectionLost as error:
        lost = f"lost the connection to the backend, and with it the shell: {error}"
        raise KaosError("connection_lost", lost, hint=_TRY) from error
    raise KaosError("connection_lost", "the backend ended the shell", hint=_TRY)


def _size() -> os.terminal_size:
    """That of the terminal; as large as any for one that knows none (a serial line, a script's)."""
    columns, lines = os.get_terminal_size(0)
    return os.terminal_size((columns or 80, lines or 24))


def _show(lines: Iterator[Json]) -> Json:
    for line in lines:
        data = b64decode(line.get("printed", ""))
        while data:
            data = data[os.write(1, data) :]
        if line.get("end"):
            return line
    raise ConnectionLost("it ended its answer")


def _shell_ended(session: Session, end: Json) -> int:
    code = int(_checked(end)["code"] or 0)
    if session.terminal.json:
        session.terminal.answer_json({"code": code, "reason": end["reason"]})
    elif end["reason"]:
        session.terminal.warn(f"kaos: {text.printable(end['reason'])}")
    return code


@contextmanager
def _raw() -> Iterator[None]:
    """The terminal passes on every key as it is, Ctrl-C too."""
    import termios
    import tty

    before = termios.tcgetattr(0)
    try:
        tty.setraw(0)
        yield
    finally:
        termios.tcsetattr(0, termios.TCSADRAIN, before)


@contextmanager
def _typing(session: Session, name: str) -> Iterator[None]:
    """Keys and sizes of the window go to the command ``name``, in a thread, as long as the block lasts."""
    import select

    wake_r, wake_w = os.pipe()
    for end in (wake_r, wake_w):
        os.set_blocking(end, False)
    over = threading.Event()
    typist = _typist(session)

    def pass_on() -> None:
        size = _size()
        while not over.is_set():
            ready, _, _ = select.select([0, wake_r], [], [])
            typed: Json = {}
            if wake_r in ready:
                os.read(wake_r, _TYPED_BYTES)
                if (now := _size()) != size:
                    size = now
                    typed |= {"rows": size.lines, "columns": size.columns}
            if 0 in ready and not over.is_set():
                data = os.read(0, _TYPED_BYTES)
                typed |= {"typed": b64encode(data).decode()} if data else {"end": True}
            try:
                if typed:
                    typist.type(name, typed)
            except (KaosError, ConnectionLost):
                return  # it has ended, or nobody is there: the other stream says so

    # Of signals the thread that types learns at once; the main one may be waiting for what is printed.
    before = signal.signal(signal.SIGWINCH, lambda *_: None)
    waking = signal.set_wakeup_fd(wake_w, warn_on_full_buffer=False)
    thread = threading.Thread(target=pass_on, name="typist", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        signal.set_wakeup_fd(waking)
        signal.signal(signal.SIGWINCH, before)
        os.write(wake_w, b".")
        thread.join()
        typist.close()
        os.close(wake_r)
        os.close(wake_w)


def _typist(session: Session) -> KaosClient:
    """A client on a connection of its own, to the backend that the session has."""
    endpoint = session.client.transport().endpoint
    return KaosClient(lambda: Transport(endpoint))
