"""What every runtime must do, whatever it isolates; a new kind joins by an entry in `conftest.KINDS`."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest

from kaos_backend.engine.errors import EngineError
from kaos_backend.engine.workers.port import DatumRun, Exit, Grant
from kaos_backend.engine.workers.terminal import Terminal

from .conftest import Bench, named, text_of, until

MIB = 1 << 20
HOG = """
import sys, time
block = bytearray(int(sys.argv[1]) << 20)
for i in range(0, len(block), 4096): block[i] = 1
time.sleep(float(sys.argv[2]))
"""


def test_env_contract(bench: Bench, tmp_path: Path) -> None:
    data = tmp_path / "data"
    (data / "b1").mkdir(parents=True)
    (data / "b1" / "x").write_text("hello")
    worker = bench.worker(bench.image({"/app/f": "in the image"}, env={"FROM_IMAGE": "1"}), {"CONSTANT": "2"})
    exit_, text = bench.run(
        'cat "$data/x" f; echo; echo "$FROM_IMAGE$CONSTANT$PACH_JOB_ID-"'
        '"$OMP_NUM_THREADS-[$CUDA_VISIBLE_DEVICES]"\n'
        'cat "$PACH_PFS/data/b1/x" > "$PACH_PFS/out/y"; [ "$data" = "$PACH_PFS/data/b1" ] && echo same',
        worker,
        env={"PACH_JOB_ID": "j"},
        inputs={"data": data},
        input_paths={"data": "/b1"},
        grant=Grant(1.5, (), None, ()),
    )
    assert (exit_.reason, exit_.code, exit_.signal) == ("exited", 0, None)
    assert text == "helloin the image\n12j-2-[]\nsame"
    assert (bench.engine_dir / "out1" / "y").read_text() == "hello"


def test_secrets_are_files_in_memory(bench: Bench) -> None:
    """Wherever they are mounted, the system's folders included; gone from this machine with the worker."""
    value = f"value-{os.getpid()}-of-a-secret"
    secrets = {"/secrets/mine": {"a": value.encode(), "b": b"2"}, "/etc/creds": {"c": b"3"}}
    worker = bench.worker(secrets=secrets)
    assert value not in repr(worker)
    # Without a mount namespace they are below the root of the image's own files, where a run starts.
    show = (
        "for d in secrets/mine etc/creds; do [ -d /$d ] && d=/$d; for f in $d/*; do cat $f; echo; done; done"
    )
    exit_, text = bench.run(show, worker)
    assert (exit_.code, text) == (0, f"{value}\n2\n3")
    on_disk = [path for path in bench.engine_dir.rglob("*") if path.is_file() and value in _text(path)]
    assert on_disk == [path for path in on_disk if path.name.startswith("log")]
    worker.close()
    assert not [path for path in Path("/dev/shm").rglob("a") if value in _text(path)]


def _text(path: Path) -> str:
    try:
        return path.read_bytes().decode("utf-8", "replace")
    except OSError:
        return ""


def test_host_secrets_do_not_reach_user_code(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAOS_TOKEN", "t")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "t")
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy:1")
    _, text = bench.run("env")
    names = {line.split("=")[0] for line in text.split("\n")}
    assert not names & {"KAOS_TOKEN", "AWS_SECRET_ACCESS_KEY"}
    assert "HTTPS_PROXY" in names


@pytest.mark.parametrize(
    ("script", "reason", "code", "number"),
    [
        ("exit 3", "exited", 3, None),
        ("kill -TERM $$", "signal", 143, 15),
        ("kill -KILL $$", "signal", 137, 9),
    ],
)
def test_exits(bench: Bench, script: str, reason: str, code: int, number: int | None) -> None:
    exit_, _ = bench.run(script)
    assert (exit_.reason, exit_.code, exit_.signal) == (reason, code, number)


def test_program_that_cannot_run(bench: Bench) -> None:
    worker = bench.worker(bench.image({"/app/bad": "#!/no/such/program\n"}))
    missing, text = bench.run(worker=worker, cmd=("no-such-program",))
    assert missing.code == 127
    assert "no-such-program" in text
    interpreter, text = bench.run(worker=worker, cmd=("./bad",))
    assert interpreter.code in (126, 127)
    assert "./bad" in text
    denied, text = bench.run("touch plain; exec ./plain", worker=worker)
    assert denied.code == 126


def test_stdin_larger_than_a_pipe_and_stdin_not_read(bench: Bench) -> None:
    worker = bench.worker()
    exit_, text = bench.run(worker=worker, cmd=("wc", "-c"), stdin=b"x" * 3_000_000)
    assert (exit_.code, text) == (0, "3000000")
    exit_, _ = bench.run(worker=worker, cmd=("true",), stdin=b"x" * 3_000_000)
    assert exit_.code == 0


def test_output_floods_and_garbage(bench: Bench) -> None:
    worker = bench.worker()
    exit_, text = bench.run("yes abcdefghi | head -n 200000; printf 'no newline'", worker)
    assert exit_.code == 0
    assert text == "abcdefghi\n" * 200_000 + "no newline"
    exit_, text = bench.run(
        r"printf 'a\377\376b\r\n\n\303\244\nc\000d\n'; head -c 300000 /dev/urandom", worker
    )
    assert exit_.code == 0
    assert text.startswith("a\ufffd\ufffdb\n\nä\nc\0d\n")
    head = (bench.engine_dir / "log2").read_text("utf-8").split("\n")[1].split(" ")
    assert abs(int(head[0]) / 1e6 - time.time()) < 60
    assert head[1] == "u"
    assert bench.run(r"printf '10%%\r50%%\rdone\n'", worker)[1] == "done"
    exit_, text = bench.run("head -c 1000000 /dev/zero | tr '\\0' x", worker)
    assert text.replace("\n", "") == "x" * 1_000_000


def test_memory_limit_kills_that_datum_by_name(bench: Bench) -> None:
    hog = bench.datum(HOG.join(("python3 - 900 60 <<'EOF'\n", "\nEOF")), grant=Grant(1, (), 200 * MIB, ()))
    other, cancel = bench.datum("echo up; sleep 1000"), threading.Event()
    calm, exits = bench.worker(), []
    thread = threading.Thread(target=lambda: exits.append(calm.run(other, cancel)))
    thread.start()
    until(lambda: text_of(other.log) == "up", "the other datum to start")
    exit_ = bench.worker().run(hog, threading.Event())
    assert exit_.reason == "oom"
    used = int(exit_.message.removeprefix("used ").removesuffix(" MiB of 200 MiB"))
    assert 200 <= used < 900
    assert exit_.max_rss_bytes >= 200 * MIB
    assert exits == []
    cancel.set()
    thread.join(20)
    assert exits[0].reason == "canceled"


def test_memory_is_that_of_the_whole_tree(bench: Bench) -> None:
    script = f"cat > $PACH_PFS/out/hog.py <<'EOF'\n{HOG}\nEOF\n" + "\n".join(
        "setsid python3 $PACH_PFS/out/hog.py 60 60 &" for _ in range(4)
    )
    exit_, _ = bench.run(script + "\nwait", grant=Grant(1, (), 150 * MIB, ()))
    assert exit_.reason == "oom"


def test_memory_below_the_limit_is_left_alone(bench: Bench) -> None:
    script = f"python3 - 100 0.1 <<'EOF'\n{HOG}\nEOF"
    exit_, _ = bench.run(script, grant=Grant(1, (), 200 * MIB, ()))
    assert (exit_.reason, exit_.code) == ("exited", 0)
    assert 100 * MIB < exit_.max_rss_bytes < 200 * MIB


def test_pages_shared_by_forks_count_once(bench: Bench) -> None:
    script = """python3 - <<'EOF'
import os, time
block = bytearray(80 << 20)
for i in range(0, len(block), 4096): block[i] = 1
for _ in range(3):
    if os.fork() == 0:
        time.sleep(0.5)
        os._exit(0)
for _ in range(3): os.wait()
EOF"""
    exit_, _ = bench.run(script, grant=Grant(1, (), 200 * MIB, ()))
    assert (exit_.reason, exit_.code) == ("exited", 0)


def test_timeout(bench: Bench) -> None:
    exit_, text = bench.run("echo before; sleep 1000", timeout_s=0.3)
    assert exit_.reason == "timeout"
    assert 0.3 <= exit_.wall_s < 5
    assert text == "before"


def test_cancel_before_and_while_running(bench: Bench) -> None:
    worker, cancel = bench.worker(), threading.Event()
    run = bench.datum("echo up; sleep 1000")
    thread_exit = []
    thread = threading.Thread(target=lambda: thread_exit.append(worker.run(run, cancel)))
    thread.start()
    until(lambda: text_of(run.log) == "up", "the datum to start")
    cancel.set()
    thread.join(20)
    assert thread_exit[0].reason == "canceled"
    again = worker.run(bench.datum("echo never"), cancel)
    assert again.reason == "canceled"
    assert bench.run("exit 0", worker)[0].code == 0


def test_leftovers_are_killed_however_they_hide(bench: Bench) -> None:
    mark = f"98{os.getpid()}.25"
    hiding = f"(setsid sleep {mark} &); nohup setsid sleep {mark} >/dev/null 2>&1 &"
    script = f"sleep {mark} & {hiding} sleep 0.1; exit 4"
    exit_, _ = bench.run(script)
    assert exit_.code == 4
    assert named(mark) == []


def test_each_worker_has_its_own_copy_of_the_image(bench: Bench) -> None:
    image = bench.image({"/app/f": "original\n"})
    first, second = bench.worker(image), bench.worker(image)
    assert bench.run("echo changed > f; cat f", first)[1] == "changed"
    assert (
        bench.run("cat f", first)[1] == "changed"
    )  # as in a worker pod: the layer lasts as long as the worker
    assert bench.run("cat f", second)[1] == "original"


def test_image_path_variables(bench: Bench) -> None:
    image = bench.image(
        {"/app/src/tool.py": "print('found')", "/opt/bin/hi": "#!/bin/sh\necho hi\n"},
        env={"PYTHONPATH": "/app/src", "PATH": "/opt/bin:/usr/bin"},
    )
    _, text = bench.run("python3 -m tool; hi; cd / && python3 -m tool", bench.worker(image))
    assert text == "found\nhi\nfound"


def test_close_kills_a_running_datum(bench: Bench) -> None:
    worker, run = bench.worker(), bench.datum("echo up; sleep 1000")
    exits = []
    thread = threading.Thread(target=lambda: exits.append(worker.run(run, threading.Event())))
    thread.start()
    until(lambda: text_of(run.log) == "up", "the datum to start")
    worker.close()
    thread.join(20)
    assert exits[0].reason == "canceled"
    assert bench.run("exit 0", worker)[0].reason == "error"


def test_missing_images(bench: Bench) -> None:
    assert "kaos/ws:none" in bench.runtime.image_problem("kaos/ws:none")
    with pytest.raises(EngineError, match="kaos/ws:none"):
        bench.worker("kaos/ws:none")
    assert bench.runtime.image_problem("ubuntu:20.04") == ""


def test_pfs_of_the_last_datum_is_gone(bench: Bench, tmp_path: Path) -> None:
    worker = bench.worker()
    old = tmp_path / "old"
    old.mkdir()
    bench.run("true", worker, inputs={"old": old}, input_paths={"old": "/"})
    assert bench.run("ls $PACH_PFS", worker)[1] == "out"


def test_working_dir(bench: Bench) -> None:
    for folder in ("/made/here", "/pfs/out"):
        _, text = bench.run("pwd", bench.worker(working_dir=folder))
        assert text.endswith(folder) or text == str(bench.engine_dir / f"out{bench.runs}")


def _until_size(size: str) -> bytes:
    """A loop in a shell, as a container learns of it a moment later."""
    look = "import os; print(*os.get_terminal_size(0))"
    return f'until [ "$(python3 -c \'{look}\')" = "{size}" ]; do :; done; '.encode()


def test_a_command_on_a_terminal(bench: Bench, tmp_path: Path) -> None:
    """Its size, also a new one, keys that are signals, and the code; its output folder as it was left."""
    worker = bench.worker()
    out, terminal = tmp_path / "out", Terminal(30, 100)
    (out / "model").mkdir(parents=True)
    (out / "model" / "half").write_text("left")
    grant, cancel = Grant(1.0, (), None, ()), threading.Event()
    half = "$PACH_PFS/out/model/half"
    shell = "command -v bash >/dev/null && exec bash --norc -i; exec sh -i"
    cmd = ("sh", "-c", f"cat {half}; echo more > {half}; {shell}")
    run = DatumRun(cmd, b"", {"PS1": "> "}, {}, {}, out, tmp_path / "log", grant, None, terminal)
    ended: list[Exit] = []
    thread = threading.Thread(target=lambda: ended.append(worker.run(run, cancel)))
    thread.start()
    shown = ""

    def shows(text: str, again: bytes = b"") -> None:
        """Waits for a text; what is typed `again` and again brings it about."""

        def look() -> bool:
            nonlocal shown
            terminal.write(again)
            shown += terminal.read(0.2).decode()
            return text in shown

        until(look, f"{text!r} to be shown")

    try:
        shows("left")
        # Put together by the shell what is waited for: what is typed is shown, too.
        terminal.write(_until_size("100 30") + b"echo si''zed\n")
        shows("sized")
        terminal.write(b"(trap : INT; echo be''gun; sleep 600; echo inter''rupted)\n")
        shows("begun")
        shows("interrupted", again=b"\x03")
        # One that comes late takes away what is typed then.
        shows("settled", again=b"echo se''ttled\n")
        terminal.resize(10, 40)
        terminal.write(_until_size("40 10") + b"echo re''sized; exit 7\n")
        shows("resized")
        thread.join(20)
    finally:
        cancel.set()
        thread.join()
        terminal.close()
    (exit_,) = ended
    assert (exit_.reason, exit_.code) == ("exited", 7), shown
    assert exit_.output is not None
    assert [(file.path, file.data.read()) for file in exit_.output.files()] == [("/model/half", b"more\n")]
    exit_.output.close()
