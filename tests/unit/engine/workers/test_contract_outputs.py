"""What every runtime must do with the output folder of a trial."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest

from kaos_backend.engine.errors import Unknown
from kaos_backend.engine.workers.port import InputPath, SmallInput
from kaos_formats.folders import clean_up

from .conftest import Bench, collected

NEST = 'import os; [(os.mkdir("d"), os.chdir("d")) for _ in range(1100)]'
OUT, DATA = "$PACH_PFS/out", "$PACH_PFS/data"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """An input as it is laid out: files of the repo at their paths."""
    folder = tmp_path / "data"
    (folder / "b1").mkdir(parents=True)
    (folder / "b1" / "x").write_text("input")
    return folder


@pytest.mark.parametrize(
    ("script", "expected"),
    [
        (f"cd {OUT}; mkdir m; echo w > m/w; ln m/w m/hard", {"/m/w": b"w\n", "/m/hard": b"w\n"}),
        (f"cd {OUT}; echo w > w; ln -s w l; ln -s {OUT}/w a", {"/w": b"w\n", "/l": b"w\n", "/a": b"w\n"}),
        (f"ln -s {DATA}/b1/x {OUT}/x", {"/x": b"@data:/b1/x"}),
        (f"ln -s {DATA} {OUT}/all", {"/all/b1/x": b"@data:/b1/x"}),
        (f'cd {OUT}; ln -s "$(realpath {DATA}/b1/x)" x', {"/x": b"@data:/b1/x"}),
        (f"rm -rf {OUT}/* && mkdir -p {OUT}/empty", {}),
    ],
)
def test_outputs_are_what_the_trial_saw(
    bench: Bench, data: Path, script: str, expected: dict[str, bytes]
) -> None:
    exit_, text = bench.run(script, inputs={"data": data}, input_paths={"data": "/b1"})
    assert (exit_.code, text) == (0, "")
    assert collected(exit_) == expected


def test_links_to_a_small_input_lead_to_that_of_the_trial(bench: Bench) -> None:
    """Also when its worker has another one already."""
    worker = bench.worker()
    exits = [
        bench.run(f"ln -s {DATA} {OUT}/all", worker, inputs={"data": SmallInput({"/b1/x": content})})[0]
        for content in (b"one", b"another")
    ]
    for exit_, content in zip(exits, (b"one", b"another"), strict=True):
        assert exit_.output is not None
        found = [(file.path, file.data.read(), file.origin) for file in exit_.output.files()]
        assert found == [("/all/b1/x", content, InputPath("data", "/b1/x"))]
        exit_.output.close()
    # Nothing is left of what they were read from.
    assert [path.name for path in bench.engine_dir.iterdir() if path.name.startswith("tmp")] == []


@pytest.mark.parametrize("name", ["l", "deep/er/l"])
@pytest.mark.parametrize(
    "target",
    [
        "{token}",
        "{home}",
        "/etc/passwd",
        "/etc",
        "/proc/self/environ",
        "../../../../../../../../../../etc/passwd",
        "/tmp/own",
        "nothing",
    ],
)
def test_links_to_anything_else_fail_the_trial_by_name(
    bench: Bench, tmp_path: Path, name: str, target: str
) -> None:
    home = tmp_path / "home"
    target = target.format(home=home, token=home / "token")
    script = f"echo own > /tmp/own; mkdir -p {OUT}/deep/er; ln -s {target} {OUT}/{name}"
    exit_, _ = bench.run(script)
    assert exit_.code == 0
    with pytest.raises(Unknown, match=f"/{name} ") as refused:
        collected(exit_)
    assert "secret" not in refused.value.message


@pytest.mark.parametrize(
    ("script", "message"),
    [
        ("mkfifo {out}/odd", "/odd is a pipe, which cannot be kept"),
        (
            "python3 -c \"import os,socket; os.chdir('{out}'); socket.socket(1).bind('odd')\"",
            "/odd is a socket",
        ),
        ("mkdir {out}/m; mkfifo {out}/m/p; ln -s m/p {out}/odd", "/m/p is a pipe"),
        (f"python3 -c '{NEST}'", "nested more than"),
    ],
)
def test_what_cannot_be_kept_fails_the_trial_by_name(bench: Bench, script: str, message: str) -> None:
    exit_, _ = bench.run(f"cd {OUT}\n" + script.replace("{out}", OUT))
    assert exit_.code == 0
    with pytest.raises(Unknown, match=message):
        collected(exit_)
    clean_up(bench.engine_dir / f"out{bench.runs}")


def test_the_folder_of_a_model_cannot_be_a_link_to_the_host(bench: Bench) -> None:
    exit_, _ = bench.run(f"mkdir {OUT}/m; mv {OUT}/m {OUT}/n; ln -s /etc {OUT}/m")
    with pytest.raises(Unknown, match="/m is a link to /etc, outside the output folder and the inputs"):
        collected(exit_)


def test_a_process_left_behind_swaps_nothing_while_it_is_collected(bench: Bench) -> None:
    swap = "while :; do mv d e; ln -s /etc d; rm d; mv e d; done"
    exit_, _ = bench.run(
        f"cd {OUT}; mkdir d; echo mine > d/passwd; (setsid sh -c '{swap}' 2>/dev/null &); sleep 0.2"
    )
    assert exit_.code == 0
    # It was killed somewhere in its round; a link is what it may have left.
    with contextlib.suppress(Unknown):
        assert set(collected(exit_).values()) <= {b"mine\n"}


def test_mounts_of_the_trials_own_are_not_collected(bench: Bench) -> None:
    mount = f"mount --bind /etc {OUT}/m && ls {OUT}/m/passwd"
    exit_, text = bench.run(f"mkdir {OUT}/m; unshare -Urm sh -c '{mount}' 2>&1 || echo refused")
    assert exit_.code == 0
    assert "refused" in text or "passwd" in text
    assert collected(exit_) == {}


def test_an_output_outlives_the_next_datum_and_the_worker(bench: Bench) -> None:
    worker = bench.worker()
    first, _ = bench.run(f"echo 1 > {OUT}/f", worker)
    second, _ = bench.run(f"ls {OUT}; echo 2 > {OUT}/f", worker)
    worker.close()
    assert collected(first) == {"/f": b"1\n"}
    assert collected(second) == {"/f": b"2\n"}


def test_folders_of_any_depth_go_with_their_worker(bench: Bench) -> None:
    worker = bench.worker()
    exit_, text = bench.run(f"cd ${{TMPDIR:-/tmp}} && python3 -c '{NEST}'", worker)
    assert (exit_.code, text) == (0, "")
    worker.close()
    assert list((bench.engine_dir / "scratch" / "workers").iterdir()) == []
