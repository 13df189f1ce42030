"""Runs datums for one worker slot; executed as a script by `launch`, or forked by `forkserver`.

The engine never imports it. Standard library only and few imports: it must be up in milliseconds and small to
fork. One JSON object per
line on stdin ({"run": …} or {"cancel": true}) and on stdout ({"pid": n} when the command runs, then {"exit":
…}).

It is the subreaper of everything the command starts, so nothing outlives its datum: however a process
detaches itself, it ends up as a child of this one and is killed. End of stdin means the engine is gone: the
command dies too.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import json
import os
import select
import signal
import sys
import time
from typing import Any

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
PR_SET_PDEATHSIG, PR_SET_CHILD_SUBREAPER = 1, 36
PAGE = os.sysconf("SC_PAGE_SIZE")
CHUNK = 1 << 16
LONGEST_LINE = 1 << 16
OOM_SCORE_ADJ = b"500"  # should the machine itself run out of memory, trials go before anything else
# How fast a process can dirty fresh pages on common hardware; sets how long a sample of its memory is good
# for.
BYTES_PER_S = 3 << 30
SAMPLE_S = (0.004, 0.25)
DRAIN_S = 2.0
KEPT_BYTES = 1 << 20

libc = ctypes.CDLL(None, use_errno=True)


class Log:
    """The datum's log file: stamps lines, survives binary output, endless lines and a full disk."""

    def __init__(self, path: str) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
        self._rest = b""

    def feed(self, data: bytes) -> None:
        lines, end, rest = data.rpartition(b"\n")
        if end:
            self._write(self._rest + lines)
            self._rest = rest
        else:
            self._rest += rest
        while len(self._rest) > LONGEST_LINE:
            cut = _before(self._rest, LONGEST_LINE)
            self._write(self._rest[:cut])
            self._rest = self._rest[cut:]

    def close(self) -> None:
        if self._rest:
            self._write(self._rest)
        os.close(self._fd)

    def _write(self, lines: bytes) -> None:
        """Lines with newlines between them; all at once, where they can be."""
        if b"\r" in lines or not _is_utf8(lines):
            lines = b"\n".join(map(_shown, lines.split(b"\n")))
        stamp = b"%d u " % (time.time_ns() // 1000)
        stamped = memoryview(b"%b%b\n" % (stamp, lines.replace(b"\n", b"\n" + stamp)))
        while stamped:
            try:
                stamped = stamped[os.write(self._fd, stamped) :]
            except OSError:  # disk full: the trial's fate must not hang on its log
                return


def _is_utf8(data: bytes) -> bool:
    if data.isascii():
        return True
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True


def _shown(line: bytes) -> bytes:
    """What a terminal would show in the end, as progress bars overwrite their line; in UTF-8."""
    line = line.removesuffix(b"\r").rpartition(b"\r")[2]
    return line if _is_utf8(line) else line.decode("utf-8", "replace").encode()


def _before(text: bytes, at: int) -> int:
    """The place at or before `at` where no character of UTF-8 is cut in two."""
    back = 0
    while back < 3 and text[at - back] & 0xC0 == 0x80:
        back += 1
    return at - back


class Datum:
    """One running command and all that it starts."""

    def __init__(self, request: dict[str, Any]) -> None:
        self.limit: int | None = request["memory"]
        # Without a group, or without a limit, there is nothing of ours to count.
        self.ooms: str | None = request["ooms"] if self.limit is not None else None
        self.sandboxed: bool = request["sandboxed"]
        self.started = time.monotonic()
        self.deadline = self.started + request["timeout"] if request["timeout"] is not None else None
        self.reason = ""
        self.message = ""
        self.peak = 0
        self.status: int | None = None
        # Where the kernel holds the limit, or there is none, what ends before the first sample needs none.
        self.next_sample = self.started + SAMPLE_S[self.limit is None or self.ooms is not None]
        self._kernel_kills = _oom_kills("/proc/vmstat")
        self._group_kills = _oom_kills(self.ooms) if self.ooms else 0
        self._feed = request["stdin"].encode("latin-1")
        self.log = Log(request["log"])
        self.out: int | None = None
        self.input: int | None = None
        parent = os.getpid()
        if request["tty"] is not None:
            self.pid = os.fork()
            if self.pid == 0:
                _become(request, parent, -1, -1)
            return
        in_r, in_w = os.pipe()
        out_r, out_w = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            _become(request, parent, in_r, out_w)
        os.close(in_r)
        os.close(out_w)
        self.out, self.input = out_r, in_w
        for fd in (out_r, in_w):
            os.set_blocking(fd, False)
        self.feed()

    def feed(self) -> None:
        """Push stdin; a command that does not read it to the end is fine."""
        if self.input is None:
            return
        try:
            while self._feed:
                self._feed = self._feed[os.write(self.input, self._feed[:CHUNK]) :]
        except BlockingIOError:
            return
        except OSError:
            pass
        os.close(self.input)
        self.input = None

    def drain(self) -> bool:
        """Take one chunk of output; False when there is none now."""
        if self.out is None:
            return False
        try:
            data = os.read(self.out, CHUNK)
        except BlockingIOError:
            return False
        if data:
            self.log.feed(data)
            return True
        os.close(self.out)
        self.out = None
        return False

    def tick(self, now: float) -> None:
        """Enforce the memory limit and the deadline."""
        if self.deadline is not None and now >= self.deadline:
            self.kill("timeout")
        elif now >= self.next_sample:
            self._sample()
            cost = time.monotonic() - now
            headroom = self.limit - self.peak if self.limit is not None else BYTES_PER_S
            wait = min(max(headroom / BYTES_PER_S, SAMPLE_S[0], 20 * cost), SAMPLE_S[1])
            self.next_sample = now + wait

    def _sample(self) -> None:
        pids = _descendants(os.getpid())
        used = sum(map(_rss, pids))
        if self.ooms:
            # The kernel ends one process; the rest may wait for it for ever.
            if _oom_kills(self.ooms) > self._group_kills:
                self.kill("oom")
        elif self.limit is not None and used > self.limit:
            # RSS counts a page once per process that maps it; before killing, count shared pages once.
            used = sum(map(_pss, pids))
            if used > self.limit:
                self.kill("oom", f"used {_mib(used)} MiB of {_mib(self.limit)} MiB")
        self.peak = max(self.peak, used)

    def kill(self, reason: str, message: str = "") -> None:
        if not self.reason:
            self.reason, self.message = reason, message
        with contextlib.suppress(OSError):
            os.killpg(self.pid, signal.SIGKILL)
        for pid in _descendants(os.getpid()):
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)

    def reap(self) -> None:
        """Collect ended children; remembers how the command itself ended."""
        with contextlib.suppress(ChildProcessError):
            while True:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
                if pid == 0:
                    break
                # A sandbox leaves without waiting for its init, which has what the command used.
                self.peak = max(self.peak, usage.ru_maxrss * 1024)
                if pid == self.pid:
                    self.status = status

    def finish(self) -> dict[str, Any]:
        """After the command ended: kill what it left running, take the last output, tell how it went."""
        until = time.monotonic() + DRAIN_S
        while time.monotonic() < until:
            try:
                pid, _, usage = os.wait4(-1, os.WNOHANG)
                self.peak = max(self.peak, usage.ru_maxrss * 1024)
                if pid == 0:
                    for pid in _descendants(os.getpid()):
                        with contextlib.suppress(OSError):
                            os.kill(pid, signal.SIGKILL)
                    while self.drain():
                        pass
                    _wait_child(0.01)
            except ChildProcessError:
                break
        while self.drain():
            pass
        for fd in (self.out, self.input):
            if fd is not None:
                os.close(fd)
        self.log.close()
        return self._outcome()

    def _outcome(self) -> dict[str, Any]:
        status = self.status if self.status is not None else 0
        code = os.waitstatus_to_exitcode(status)
        number: int | None = -code if code < 0 else None
        if self.sandboxed and 128 < code < 128 + signal.NSIG:
            number = code - 128  # bubblewrap, like a shell, tells of a signal this way
        if self.ooms and self.reason in ("", "oom") and _oom_kills(self.ooms) > self._group_kills:
            self.reason, self.peak = "oom", max(self.peak, self.limit or 0)
            self.message = f"used {_mib(self.peak)} MiB of {_mib(self.limit or 0)} MiB"
        if not self.reason:
            self.reason = "signal" if number else "exited"
            if number == signal.SIGKILL and _oom_kills("/proc/vmstat") > self._kernel_kills:
                self.reason = "oom"
                limit = "no limit of its own" if self.limit is None else f"{_mib(self.limit)} MiB"
                self.message = f"used {_mib(self.peak)} MiB of {limit}; the machine ran out of memory"
        return {
            "code": 128 + number if number else code,
            "signal": number,
            "reason": self.reason,
            "message": self.message,
            "max_rss_bytes": self.peak,
            "wall_s": time.monotonic() - self.started,
        }


def _become(request: dict[str, Any], parent: int, stdin: int, output: int) -> None:
    """In the forked child: take on the grant and turn into the command. Never returns."""
    argv = request["argv"]
    try:
        os.setsid()
        libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it ended before the line above took effect
            os._exit(1)
        if request["tty"] is not None:
            # The first terminal that the leader of a session opens is the one whose keys send it signals.
            stdin = output = os.open(request["tty"], os.O_RDWR)
            signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.dup2(stdin, 0)
        os.dup2(output, 1)
        os.dup2(output, 2)
        for number in (signal.SIGPIPE, signal.SIGCHLD, signal.SIGTERM):
            signal.signal(number, signal.SIG_DFL)
        os.umask(0o022)
        with contextlib.suppress(
            OSError
        ):  # a core that this container may not use: the engine's count still holds
            if request["cores"]:
                os.sched_setaffinity(0, request["cores"])
        with contextlib.suppress(OSError):
            fd = os.open("/proc/self/oom_score_adj", os.O_WRONLY)
            os.write(fd, OOM_SCORE_ADJ)
            os.close(fd)
        for members in request["groups"]:
            fd = os.open(members, os.O_WRONLY)
            os.write(fd, b"0")
            os.close(fd)
        os.chdir(request["cwd"])
        if IMPORTED and tuple(argv) == (sys.executable, "-m", IMPORTED):
            _run_imported(request["env"])
        os.execvpe(argv[0], argv, request["env"])  # noqa: S606
    except ValueError as error:
        os.write(2, f"kaos: cannot run {argv[0]!r}: {error}\n".encode("utf-8", "replace"))
    except OSError as error:
        # What a shell would say and return, so that logs read the same in every runtime.
        why = os.strerror(error.errno or 0)
        if error.errno == errno.ENOENT and os.path.exists(argv[0]):  # noqa: PTH110
            why = "the program that its first line names is missing"
        with contextlib.suppress(OSError):
            os.write(2, f"kaos: cannot run {argv[0]} in {request['cwd']}: {why}\n".encode("utf-8", "replace"))
        os._exit(127 if error.errno == errno.ENOENT else 126)
    finally:
        os._exit(126)


def _run_imported(env: dict[str, str]) -> None:
    """Be `python -m IMPORTED`, which a fork server has imported. Never returns."""
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))  # as an exec does
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    os.environ.clear()
    os.environ.update(env)
    code: Any = 0
    try:
        import runpy

        runpy.run_module(IMPORTED, run_name="__main__", alter_sys=True)
    except SystemExit as end:
        code = end.code
    except BaseException:
        code = 1
        sys.excepthook(*sys.exc_info())
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
    os._exit(code if isinstance(code, int) else int(code is not None))


def _descendants(pid: int) -> list[int]:
    """All living processes below `pid`. May miss some that are being born: callers sample or loop."""
    found: list[int] = []
    queue = [pid]
    while queue:
        parent = queue.pop()
        try:
            for task in os.listdir(f"/proc/{parent}/task"):  # noqa: PTH208
                with open(f"/proc/{parent}/task/{task}/children", "rb") as file:  # noqa: PTH123
                    children = [int(word) for word in file.read().split()]
                found += children
                queue += children
        except (OSError, ValueError):
            continue
    return found


def _rss(pid: int) -> int:
    try:
        with open(f"/proc/{pid}/statm", "rb") as file:  # noqa: PTH123
            return int(file.read().split()[1]) * PAGE
    except (OSError, ValueError, IndexError):
        return 0


def _pss(pid: int) -> int:
    """Proportional set size and swap in bytes; the RSS where the kernel does not tell."""
    try:
        with open(f"/proc/{pid}/smaps_rollup", "rb") as file:  # noqa: PTH123
            rows = [line.split() for line in file]
        return sum(int(row[1]) * 1024 for row in rows if row[0] in (b"Pss:", b"SwapPss:"))
    except (OSError, ValueError, IndexError):
        return _rss(pid)


def _oom_kills(counters: str) -> int:
    with contextlib.suppress(OSError, ValueError), open(counters, "rb") as file:  # noqa: PTH123
        for line in file:
            if line.startswith(b"oom_kill "):
                return int(line.split()[1])
    return 0


def _remove(groups: list[str]) -> None:
    """Remove the control groups that datums ran in: an engine that was killed cannot."""
    until = time.monotonic() + DRAIN_S
    for members in groups:
        while time.monotonic() < until:
            try:
                os.rmdir(os.path.dirname(members))  # noqa: PTH106, PTH120
            except OSError as error:
                if error.errno == errno.EBUSY:  # what was killed leaves in a moment
                    time.sleep(0.01)
                    continue
            break


def _mib(size: int) -> int:
    return -(-size // (1 << 20))


def _wait_child(timeout_s: float) -> None:
    """Sleep until a child ends (its signal lands in the wake-up pipe) or the time is over."""
    select.select([WAKE], [], [], timeout_s)
    _clear_wake()


def _clear_wake() -> None:
    with contextlib.suppress(BlockingIOError):
        while os.read(WAKE, 4096):
            pass


def _say(message: dict[str, Any]) -> None:
    data = json.dumps(message).encode() + b"\n"
    # An engine that is gone has closed stdin as well: that ends the datum, and only then this process. Ending
    # first would leave what has not yet asked to die with it: a sandbox that is being set up.
    with contextlib.suppress(BrokenPipeError):
        while data:
            data = data[os.write(REPLIES, data) :]


def main() -> None:
    """Serve one engine until it closes stdin."""
    global WAKE, REPLIES
    libc.prctl(PR_SET_CHILD_SUBREAPER, 1)
    # Of a log as fast as a disk, each piece would else be in memory that comes from the kernel and goes back.
    with contextlib.suppress(AttributeError):  # glibc's own
        libc.mallopt(M_TRIM_THRESHOLD, KEPT_BYTES)
        libc.mallopt(M_MMAP_THRESHOLD, KEPT_BYTES)
    REPLIES = os.dup(1)
    os.dup2(2, 1)
    WAKE, wake_w = os.pipe()
    os.set_blocking(WAKE, False)
    os.set_blocking(wake_w, False)
    signal.set_wakeup_fd(wake_w, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    stopping: list[int] = []
    signal.signal(signal.SIGTERM, lambda *_: stopping.append(1))
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    requests = b""
    datum: Datum | None = None
    groups: list[str] = []
    while True:
        poll = select.poll()
        poll.register(0, select.POLLIN)
        poll.register(WAKE, select.POLLIN)
        timeout = None
        if datum is not None:
            if datum.out is not None:
                poll.register(datum.out, select.POLLIN)
            if datum.input is not None:
                poll.register(datum.input, select.POLLOUT)
            due = datum.next_sample if datum.deadline is None else min(datum.next_sample, datum.deadline)
            timeout = max(0.0, due - time.monotonic()) * 1000
        ready = {fd for fd, _ in poll.poll(timeout)}
        if WAKE in ready:
            _clear_wake()
        if 0 in ready:
            data = os.read(0, CHUNK)
            if not data:
                stopping.append(1)
            requests += data
        if stopping:
            if datum is not None:
                datum.kill("canceled")
                datum.finish()
            _remove(groups)
            return
        *lines, requests = requests.split(b"\n")
        for line in lines:
            message = json.loads(line)
            if "cancel" in message and datum is not None:
                datum.kill("canceled")
            elif "run" in message:
                groups = message["run"]["groups"]
                try:
                    datum = Datum(message["run"])
                    _say({"pid": datum.pid})
                except OSError as error:
                    _say({"exit": {"reason": "error", "message": f"cannot start the command: {error}"}})
        if datum is None:
            continue
        if datum.input in ready:
            datum.feed()
        if datum.out in ready:
            datum.drain()
        datum.reap()
        if datum.status is None:
            datum.tick(time.monotonic())
        else:
            outcome, datum = datum.finish(), None
            _say({"exit": outcome})


WAKE = REPLIES = -1
# The module that a fork server has imported, whose launchers run it without another interpreter.
IMPORTED = ""

if __name__ == "__main__":
    main()
    sys.exit(0)
