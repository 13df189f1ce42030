"""What is the process runtime's own: launchers, sandboxes, and what there is without one."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import tempfile
import threading
from pathlib import Path

import psutil
import pytest

import kaos_backend.engine.workers
from kaos_backend.engine.errors import EngineError, InvalidArgument, Unknown
from kaos_backend.engine.workers.choice import choose
from kaos_backend.engine.workers.port import Grant, SmallInput, Worker
from kaos_backend.engine.workers.process import procs
from kaos_backend.engine.workers.process.launch import COMMAND
from kaos_backend.engine.workers.process.runtime import ProcessRuntime
from kaos_backend.engine.workers.process.worker import ProcessWorker
from kaos_formats.images import directory_name
from kaos_formats.sandbox import NAMESPACES, _private, private
from tests.support.home import alive

from .conftest import Bench, collected, engine_with_a_trial, launcher_request, named, text_of, until

NOBODY = 65534


def test_affinity(processes: Bench) -> None:
    core = max(os.sched_getaffinity(0))
    _, text = processes.run(
        "python3 -c 'import os; print(os.sched_getaffinity(0))'", grant=Grant(1, (core,), None, ())
    )
    assert text == f"{{{core}}}"
    assert processes.run("exit 0", grant=Grant(1, (4095,), None, ()))[0].code == 0


def test_trials_go_first_when_the_machine_is_out_of_memory(processes: Bench) -> None:
    assert processes.run("cat /proc/self/oom_score_adj")[1] == "500"


def test_a_worker_outlives_its_launcher(processes: Bench) -> None:
    worker = processes.worker()
    mark = f"97{os.getpid()}.25"
    run = processes.datum(f"sleep {mark} & echo up; wait")
    exits = []
    thread = threading.Thread(target=lambda: exits.append(worker.run(run, threading.Event())))
    thread.start()
    until(lambda: text_of(run.log) == "up", "the datum to start")
    assert isinstance(worker, ProcessWorker)
    os.kill(worker.launcher.pid or 0, signal.SIGKILL)
    thread.join(20)
    assert exits[0].reason == "error"
    assert "launcher" in exits[0].message
    until(lambda: named(mark) == [], "the trial to be gone")
    assert processes.run("exit 0", worker)[0].code == 0


def test_a_launcher_whose_engine_is_gone_leaves_after_its_trial(tmp_path: Path) -> None:
    mark = f"95{os.getpid()}.25"
    command = ("sh", "-c", f"sleep 0.5; exec sleep {mark}")
    request = launcher_request(command, tmp_path / "log", env=dict(os.environ))
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(COMMAND, **pipes) as launcher:
        assert launcher.stdin is not None
        assert launcher.stdout is not None
        # The kernel closes a dead engine's pipes one after the other.
        launcher.stdout.close()
        launcher.stdin.write(json.dumps({"run": request}).encode() + b"\n")
        launcher.stdin.flush()
        until(lambda: named(mark) != [] or launcher.poll() is not None, "the trial to start")
        assert launcher.poll() is None
        launcher.stdin.close()
        assert launcher.wait(20) == 0
        assert named(mark) == []


def test_trials_die_with_a_killed_engine(processes: Bench, tmp_path: Path) -> None:
    mark = f"96{os.getpid()}.25"
    engine = tmp_path / "other" / "engine"
    process = engine_with_a_trial(
        engine, f"ProcessRuntime(e, isolate={processes.runtime.isolation != 'none'})", "x", mark
    )
    process.send_signal(signal.SIGKILL)
    process.wait()
    until(lambda: named(mark) == [], "the trial to be gone")
    # A new engine on the same folder sweeps what the killed one left.
    ProcessRuntime(engine, isolate=False)
    assert list((engine / "scratch" / "workers").iterdir()) == []


@pytest.mark.parametrize("text", ["{ nothing", "{}", "[]", '{"workdir": 1}', "\x00", ""])
def test_a_garbled_image_is_told_by_name(processes: Bench, text: str) -> None:
    image = processes.image({"/app/train": "#!/bin/sh\n"})
    assert processes.runtime.image_problem(image) == ""
    (processes.engine_dir / "images" / directory_name(image) / "config.json").write_text(text)
    problem = processes.runtime.image_problem(image)
    assert image in problem
    assert "deploy its source again" in problem
    with pytest.raises(EngineError, match="cannot be read"):
        processes.worker(image)


def test_image_without_its_environment(processes: Bench) -> None:
    name = processes.image({"/app/f": ""})
    config = next((processes.engine_dir / "images").glob("*/config.json"))
    config.write_text(config.read_text().replace('"venv": null', '"venv": "gone"'))
    assert "gone" in processes.runtime.image_problem(name)
    with pytest.raises(EngineError, match="deploy its source again"):
        processes.worker(name)
    config.write_text("{")
    with pytest.raises(EngineError, match="cannot be read"):
        processes.worker(name)


@pytest.mark.parametrize("name", ["KAOS_RUNTIME", "KAOS_ENGINE_ISOLATION"])
def test_an_unknown_choice_is_refused_by_name(tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidArgument, match=f"{name} is 'podman': must be one of "):
        choose({name: "podman"}, tmp_path, tmp_path)


def test_sandbox_hides_the_store_and_protects_inputs(sandboxed: Bench, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / "x").write_text("precious")
    worker = sandboxed.worker(sandboxed.image({"/app/train": "", "/usr/src/app/lib.py": "", "/etc/own": "o"}))
    home = tmp_path / "home"
    _, text = sandboxed.run(
        f"ls -d {home} {data} 2>&1\n"
        "(echo no > /pfs/data/x) 2>&1; (rm -f /pfs/data/x) 2>&1; (echo no > /pfs/new) 2>&1\n"
        "(echo no > /etc/passwd) 2>&1; (mount -o remount,rw /pfs/data) 2>&1\n"
        "ls /usr/src/app; cat /etc/own; head -c 4 /etc/passwd; ls /root /home /tmp; echo yes > /pfs/out/y",
        worker,
        inputs={"data": data},
        input_paths={"data": "/"},
    )
    assert (data / "x").read_text() == "precious"
    assert (sandboxed.engine_dir / "out1" / "y").read_text() == "yes\n"
    assert "No such file" in text
    assert "secret" not in text
    assert text.count("Read-only file system") >= 3
    assert "lib.py\no" in text
    assert sandboxed.runtime.isolation == "bubblewrap"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root's sandboxes could read them")
@pytest.mark.parametrize("files", [{}, {"/etc/own": "o"}], ids=["the host's /etc", "merged"])
def test_sandbox_hides_what_only_root_may_read(sandboxed: Bench, files: dict[str, str]) -> None:
    secret = private()
    assert secret
    names = " ".join(f"'{path}'" for path in secret)
    _, text = sandboxed.run(
        f"for p in {names}; do ls -A $p/* || cat $p; done 2>/dev/null; cat /etc/passwd",
        sandboxed.worker(sandboxed.image({"/app/train": "", **files})),
    )
    assert text == Path("/etc/passwd").read_text().strip()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root's sandboxes could read them")
def test_a_secret_that_is_replaced_stays_hidden(sandboxed: Bench) -> None:
    secret = Path(f"/opt/kaos-test-{os.getpid()}")
    try:
        secret.write_text("old")
        secret.chmod(0o600)
        _private.cache_clear()  # it was not there when others looked, a moment ago
        worker = sandboxed.worker()
        assert "old" not in sandboxed.run(f"cat {secret}; ls -l {secret}", worker)[1]
        new = secret.with_suffix(".new")
        new.write_text("new")
        new.rename(secret)
        assert "new" not in sandboxed.run(f"cat {secret}", worker)[1]
    finally:
        secret.unlink()
        _private.cache_clear()


def test_a_root_full_of_traps_is_replaced(sandboxed: Bench, tmp_path: Path) -> None:
    worker = sandboxed.worker(sandboxed.image({"/app/f": "original"}))
    trap = tmp_path / "trap"
    trap.mkdir()
    assert isinstance(worker, ProcessWorker)
    root = worker.folder / "root"
    for name in ("pfs", "run", "home"):
        (root / name).rmdir()
        (root / name).symlink_to(trap)
    exit_, text = sandboxed.run("cat f", worker)
    assert (exit_.code, text) == (0, "original")
    assert list(trap.iterdir()) == []


def test_notes_say_what_is_not_isolated(bare: Bench) -> None:
    assert bare.runtime.isolation == "none"
    assert any("bubblewrap" in note for note in bare.runtime.notes)


@pytest.mark.parametrize("swap", ["ln -s /etc $OUT", "mkdir $OUT; echo fake > $OUT/f", ":"])
def test_an_output_folder_that_was_replaced_fails_the_trial(bare: Bench, swap: str) -> None:
    exit_, _ = bare.run(f"OUT=$(realpath $PACH_PFS/out); echo 1 > $OUT/f; mv $OUT $OUT.moved; {swap}")
    with pytest.raises(Unknown, match="the output folder was moved away"):
        collected(exit_)
    assert "No such file" not in text_of(bare.engine_dir / "log1")


def test_links_in_the_folder_of_links_are_not_followed(bare: Bench) -> None:
    exit_, _ = bare.run("echo 1 > $PACH_PFS/out/f; rm $PACH_PFS/out; ln -s /etc $PACH_PFS/out")
    assert collected(exit_) == {"/f": b"1\n"}


def test_a_trial_in_the_sandbox_cannot_move_its_output_folder(sandboxed: Bench) -> None:
    exit_, text = sandboxed.run("echo 1 > /pfs/out/f; mv -T /pfs/out /pfs/moved; rmdir /pfs/out")
    assert exit_.code != 0, text
    assert collected(exit_) == {"/f": b"1\n"}


def kept(worker: Worker) -> int:
    """The process id of what keeps the sandbox of a worker."""
    assert isinstance(worker, ProcessWorker)
    (bubblewrap,) = (pid for pid in procs.children(worker.launcher.pid or 0) if b"bwrap" in command_line(pid))
    return procs.descendants(bubblewrap)[-1]


def command_line(pid: int) -> bytes:
    return Path(f"/proc/{pid}/cmdline").read_bytes()


def test_trials_of_a_worker_share_a_sandbox(sandboxed: Bench) -> None:
    worker = sandboxed.worker()
    look = "ls -A /pfs /pfs/out; ls /proc | grep -c '^[0-9]'"
    first, text = sandboxed.run(f"echo 1 > /pfs/out/f; {look}", worker)
    keeper = kept(worker)
    second, again = sandboxed.run(f"{look}; exit 3", worker)
    assert kept(worker) == keeper
    assert (first.code, second.code) == (0, 3)
    # Its own three processes, the init and what keeps it: nobody else is there to be met.
    assert text == "/pfs:\nout\n\n/pfs/out:\nf\n5"
    assert again == "/pfs:\nout\n\n/pfs/out:\n5"
    assert collected(first) == {"/f": b"1\n"}


@pytest.mark.parametrize(
    "leave",
    [
        "setsid sleep 600 >/dev/null 2>&1 & until pgrep -x sleep >/dev/null; do :; done",
        "echo 1 > /dev/shm/x",
        "ipcmk -M 10",
        "kill -9 2; kill -9 -1",
    ],
)
def test_what_a_trial_leaves_meets_no_other(sandboxed: Bench, leave: str) -> None:
    worker = sandboxed.worker()
    sandboxed.run("exit 0", worker)
    keeper = kept(worker)
    sandboxed.run(leave, worker)
    until(lambda: not alive(keeper), "the sandbox to go")
    look = "ls /dev/shm; ipcs -m | grep -c 0x; ps -A -o comm= | grep -c sleep"
    exit_, text = sandboxed.run(look, worker)
    if exit_.reason == "error":
        # What keeps it was dying when it was looked at: the engine tries again then.
        exit_, text = sandboxed.run(look, worker)
    assert (exit_.code, text) == (1, "0\n0")


def test_a_sandbox_that_somebody_ended_costs_a_trial_another_try(sandboxed: Bench) -> None:
    worker = sandboxed.worker()
    sandboxed.run("exit 0", worker)
    keeper = kept(worker)
    os.kill(keeper, signal.SIGKILL)
    until(lambda: not alive(keeper), "the sandbox to go")
    exit_, _ = sandboxed.run("exit 0", worker)
    # Whether it was found dead before or after the trial was handed to it.
    assert exit_.reason == "error" or exit_.code == 0
    assert sandboxed.run("exit 0", worker)[0].code == 0


def test_a_trial_whose_starter_was_killed_is_no_failure_of_its_own(sandboxed: Bench) -> None:
    worker = sandboxed.worker()
    mark = f"94{os.getpid()}.25"
    run = sandboxed.datum(f"exec sleep {mark}")
    exits = []
    thread = threading.Thread(target=lambda: exits.append(worker.run(run, threading.Event())))
    thread.start()
    until(lambda: named(mark) != [], "the trial to start")
    os.kill(psutil.Process(named(mark)[0]).ppid(), signal.SIGKILL)
    thread.join(20)
    assert (exits[0].reason, exits[0].message) == ("error", "its sandbox was killed")
    until(lambda: named(mark) == [], "the trial to be gone")
    assert sandboxed.run("exit 0", worker)[0].code == 0


def test_a_trial_has_no_rights_and_cannot_get_any(sandboxed: Bench) -> None:
    _, text = sandboxed.run("grep -E 'Cap|NoNewPrivs' /proc/self/status")
    values = dict(line.split(":\t") for line in text.splitlines())
    assert values.pop("NoNewPrivs") == "1"
    assert set(values.values()) == {"0" * 16}


def test_inputs_are_those_of_the_trial(sandboxed: Bench, tmp_path: Path) -> None:
    """Large ones are mounted, which takes another sandbox; small ones change in the same."""
    sizes = {"large": 1 << 20, "larger": 2 << 20, "small": 1, "smaller": 0}
    inputs: dict[str, Path | SmallInput] = {}
    for name, size in sizes.items():
        if name.startswith("small"):
            inputs[name] = SmallInput({"/f": b"x" * size})
        else:
            inputs[name] = folder = tmp_path / name
            folder.mkdir()
            (folder / "f").write_bytes(b"x" * size)
    worker = sandboxed.worker()
    for data, hyper in (("large", "small"), ("large", "smaller"), ("larger", "small"), ("small", "large")):
        given = {"data": inputs[data], "hyper": inputs[hyper]}
        paths = dict.fromkeys(given, "/")
        _, text = sandboxed.run("stat -c %s /pfs/*/f; ls /pfs", worker, inputs=given, input_paths=paths)
        assert text.split() == [str(sizes[data]), str(sizes[hyper]), "data", "hyper", "out"]
        (sandboxed.engine_dir / f"out{sandboxed.runs}").rmdir()


@pytest.mark.parametrize("setuid", [False, True], ids=["own", "setuid"])
def test_whoever_starts_it_a_command_runs_in_the_sandbox(setuid: bool) -> None:
    """As nobody: with namespaces of one's own, and with a bubblewrap of root's, which nobody may enter."""
    python = shutil.which("python3", path="/usr/bin")
    if os.geteuid() != 0 or python is None or shutil.which("bwrap") is None:
        pytest.skip("needs root, bubblewrap and the system's Python")
    with tempfile.TemporaryDirectory() as name:
        top = Path(name)
        bwrap = top / "bwrap"
        shutil.copy(shutil.which("bwrap") or "", bwrap)
        bwrap.chmod(0o4755 if setuid else 0o755)
        modules = top / "lib" / "kaos_backend" / "engine" / "workers"
        shutil.copytree(Path(kaos_backend.engine.workers.__file__).parent, modules)
        folders = [top, *(path for path in top.rglob("*") if path.is_dir())]
        for folder in folders:
            folder.chmod(0o755)
        out = top / "out"
        out.mkdir()
        os.chown(out, NOBODY, NOBODY)
        sandbox = [str(bwrap), *NAMESPACES, "--ro-bind", "/", "/", "--proc", "/proc", "--dev", "/dev"]
        request = launcher_request(
            ["sh"],
            out / "log",
            env={"PATH": "/usr/bin:/bin", "LD_X": "a b"},
            cwd="/usr",
            sandbox=[*sandbox, "--bind", str(out), "/mnt"],
            stdin="id -u; pwd; echo $LD_X; grep CapEff /proc/self/status; echo 1 > /mnt/f; exit 7\n",
        )
        line = json.dumps({"run": request}) + "\n"
        as_nobody = ["setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups"]
        command = [*as_nobody, python, *COMMAND[1:-1], str(top / "lib")]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as launcher:
            assert launcher.stdin is not None
            assert launcher.stdout is not None
            for stands in (not setuid, not setuid):
                launcher.stdin.write(line)
                launcher.stdin.flush()
                assert "pid" in json.loads(launcher.stdout.readline())
                told = json.loads(launcher.stdout.readline())["exit"]
                assert (told["code"], told["reason"], told["kept"]) == (7, "exited", stands), told
            launcher.stdin.close()
            assert launcher.wait(20) == 0
        lines = text_of(out / "log").splitlines()
        assert lines == [str(NOBODY), "/usr", "a b", "CapEff:\t0000000000000000"] * 2
        assert (out / "f").read_text() == "1\n"


def test_gpus_are_told_by_their_index(processes: Bench) -> None:
    _, text = processes.run('echo "$CUDA_VISIBLE_DEVICES"', grant=Grant(1.0, (), None, ("1", "3")))
    assert text == "1,3"


def test_images_of_registries_stand_for_the_machine(processes: Bench) -> None:
    processes.run("echo x", processes.worker("ubuntu:20.04"))
    system = (processes.engine_dir / "log1").read_text().split("\n")[0]
    assert " s kaos: image ubuntu:20.04 is of a registry" in system
