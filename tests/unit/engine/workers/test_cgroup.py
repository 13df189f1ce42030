"""Control groups: the kernel's own limits, where this user may make any."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from kaos_backend.engine.errors import Unknown
from kaos_backend.engine.workers.choice import choose
from kaos_backend.engine.workers.port import Grant
from kaos_backend.engine.workers.process import cgroup
from kaos_backend.engine.workers.process.cgroup import Groups
from tests.support.home import alive
from tests.unit.engine.workers.conftest import KINDS, Bench, Kind, _bench, text_of, until

MIB = 1 << 20
# Faster than any sampling: it is over in a few milliseconds.
GULP = """python3 - <<'EOF'
from mmap import MAP_ANONYMOUS, MAP_POPULATE, MAP_PRIVATE, mmap
mmap(-1, 400 << 20, flags=MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE)
EOF"""


@pytest.fixture
def groups(tmp_path: Path) -> Iterator[Groups]:
    try:
        made = Groups(tmp_path)
    except OSError as error:
        pytest.skip(f"this user may make no control groups here: {error}")
    yield made
    assert groups_of(made) == []


@pytest.fixture
def bench(groups: Groups, tmp_path: Path) -> Iterator[Bench]:
    kind = Kind("process-cgroup", KINDS["process-bare"].env | {"KAOS_ENGINE_LIMITS": "cgroup"})
    yield from _bench(tmp_path, kind)


def groups_of(groups: Groups) -> list[Path]:
    return [left for parent in groups._parents.values() for left in parent.glob(f"{groups._prefix}*")]


def test_no_trial_has_more_than_its_limit_for_a_moment(bench: Bench) -> None:
    exit_, _ = bench.run(GULP, grant=Grant(1.0, (), 100 * MIB, ()))
    assert exit_.reason == "oom"
    # Pages of shared libraries, which the kernel does not count for the trial, are in the figure.
    assert int(exit_.message.removeprefix("used ").removesuffix(" MiB of 100 MiB")) < 130
    assert bench.run("echo fine", grant=Grant(1.0, (), 100 * MIB, ()))[1] == "fine"


def test_a_trial_that_waits_for_what_the_kernel_killed_ends(bench: Bench) -> None:
    exit_, _ = bench.run(f"{GULP}\nexec sleep 600", grant=Grant(1.0, (), 100 * MIB, ()))
    assert exit_.reason == "oom"


def test_whatever_the_kernel_ends_in_a_sandbox_the_trial_ran_out_of_memory(
    groups: Groups, tmp_path: Path
) -> None:
    """The largest process in its group may be the one that starts the trials of that sandbox."""
    kind = Kind("sandbox", KINDS["process-bubblewrap"].env | {"KAOS_ENGINE_LIMITS": "cgroup"}, "bwrap")
    for bench in _bench(tmp_path, kind):
        worker = bench.worker()
        many = "for i in $(seq 60); do (head -c 4M /dev/zero; sleep 600) | tail & done; wait"
        assert bench.run(many, worker, grant=Grant(1.0, (), 64 * MIB, ()))[0].reason == "oom"
        assert bench.run("echo fine", worker, grant=Grant(1.0, (), 32 * MIB, ()))[1] == "fine"


def test_limits_follow_the_grant_of_each_run(bench: Bench) -> None:
    worker = bench.worker()
    assert bench.run(GULP, worker, grant=Grant(1.0, (), 100 * MIB, ()))[0].reason == "oom"
    assert bench.run(GULP, worker, grant=Grant(1.0, (), 600 * MIB, ()))[0].code == 0
    assert bench.run(GULP, worker, grant=Grant(1.0, (), 200 * MIB, ()))[0].reason == "oom"
    assert bench.run(GULP, worker, grant=Grant(1.0, (), None, ()))[0].code == 0


def test_half_a_core_is_half_a_core(bench: Bench) -> None:
    """Counted in processor time, however busy the machine is."""
    script = """python3 - <<'EOF'
import time
end = time.monotonic() + 1
while time.monotonic() < end: pass
print(time.process_time())
EOF"""
    _, text = bench.run(script, grant=Grant(0.3, (), None, ()))
    assert float(text) < 0.6


def test_a_group_that_is_gone_costs_a_worker_and_no_trial(bench: Bench) -> None:
    worker = bench.worker()
    grant = Grant(1.0, (), 100 * MIB, ())
    assert bench.run("echo one", worker, grant=grant)[1] == "one"
    launcher = worker.launcher.pid  # type: ignore[attr-defined]
    os.kill(launcher, signal.SIGTERM)
    until(lambda: not alive(launcher), "the launcher to go")
    exit_, _ = bench.run("echo two", worker, grant=grant)
    assert exit_.reason == "error"
    assert bench.run("echo three", grant=grant)[1] == "three"


def test_a_group_goes_with_its_launcher_when_the_engine_was_killed(bench: Bench, groups: Groups) -> None:
    worker = bench.worker()
    running = bench.datum("echo up; exec sleep 600", grant=Grant(1.0, (), 100 * MIB, ()))
    thread = threading.Thread(target=worker.run, args=(running, threading.Event()))
    thread.start()
    until(lambda: text_of(running.log) == "up", "the trial")
    group = worker._group  # type: ignore[attr-defined]
    assert all(folder.is_dir() for folder in group.folders.values())
    # What an engine's death is to a launcher: the end of its input.
    worker.launcher._process.stdin.close()  # type: ignore[attr-defined]
    until(lambda: not any(folder.exists() for folder in group.folders.values()), "the groups to go")
    thread.join(20)


def test_what_a_killed_engine_left_is_swept(groups: Groups, tmp_path: Path) -> None:
    left = groups.make("left")
    sleeper = subprocess.Popen(["sleep", "600"])
    for members in left.members:
        Path(members).write_text(str(sleeper.pid))
    Groups(tmp_path)
    # Somebody is in there: it is left alone, and its processes are nobody's to kill.
    assert sleeper.poll() is None
    sleeper.kill()
    sleeper.wait()
    Groups(tmp_path)
    assert not any(folder.exists() for folder in left.folders.values())


def test_two_engines_have_groups_of_their_own(groups: Groups, tmp_path: Path) -> None:
    other = Groups(tmp_path / "other")
    held = other.make("held")
    Groups(tmp_path)
    assert all(folder.is_dir() for folder in held.folders.values())
    held.close()
    assert groups_of(other) == []


V1 = """\
32 31 0:29 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu
35 31 0:32 /docker/abc {memory} rw,relatime - cgroup cgroup rw,memory
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
"""


def test_a_mount_that_shows_a_part_of_the_hierarchy(tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    mounts = V1.format(memory=tmp_path)
    version, found = cgroup._hierarchies(mounts, "4:memory:/docker/abc/inner\n1:cpu:/\n0::/\n")
    assert (version, found["memory"]) == (1, tmp_path / "inner")
    assert cgroup._hierarchies(mounts, "4:memory:/elsewhere\n1:cpu:/\n")[1]["memory"] == tmp_path


def test_version_2_is_taken_where_controllers_are_handed_on(tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    mounts = f"41 31 0:38 / {tmp_path} rw,relatime - cgroup2 cgroup2 rw\n"
    with pytest.raises(OSError, match="no control groups"):
        cgroup._hierarchies(mounts, "0::/own\n")
    (tmp_path / "cgroup.subtree_control").write_text("cpu memory pids\n")
    assert cgroup._hierarchies(mounts, "0::/own\n") == (2, {"memory": tmp_path, "cpu": tmp_path})
    (tmp_path / "own" / "cgroup.subtree_control").write_text("cpu memory\n")
    assert cgroup._hierarchies(mounts, "0::/own\n")[1]["cpu"] == tmp_path / "own"


def test_limits_of_version_2(tmp_path: Path) -> None:
    for name in ("memory.max", "memory.swap.max", "cpu.max"):
        (tmp_path / name).touch()
    group = cgroup.Group(2, {"memory": tmp_path, "cpu": tmp_path})
    group.limit(Grant(0.5, (), 100 * MIB, ()))
    written = {name: (tmp_path / name).read_text() for name in ("memory.max", "memory.swap.max", "cpu.max")}
    assert written == {"memory.max": str(100 * MIB), "memory.swap.max": "0", "cpu.max": "50000 100000"}
    assert group.members == [str(tmp_path / "cgroup.procs")]


def test_without_control_groups_memory_is_sampled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nothing = tmp_path / "nothing"
    nothing.touch()
    monkeypatch.setattr(Groups.__init__, "__defaults__", (nothing, nothing))
    pair = choose({"KAOS_ENGINE_ISOLATION": "none"}, tmp_path / "a", tmp_path)
    assert "limited by sampling (no control groups for memory and cpu are mounted)" in pair.notes[-1]
    with pytest.raises(Unknown, match="limits by control groups were asked for"):
        choose({"KAOS_ENGINE_LIMITS": "cgroup"}, tmp_path / "b", tmp_path)
