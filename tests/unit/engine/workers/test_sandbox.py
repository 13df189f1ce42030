"""The sandbox as a value: what is merged, what is hidden, in which order it is mounted."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kaos_backend.engine.workers.process import sandbox
from kaos_formats.sandbox import (
    SYSTEM,
    Listing,
    layout,
    prepare,
    private,
    scan,
    split_environment,
    visible_path,
)

HOST: dict[str, dict[str, str]] = {
    "/": {
        "usr": "d",
        "etc": "d",
        "bin": "l:usr/bin",
        "home": "d",
        "root": "d",
        "secret": "d",
        "swap": "f",
        "opt": "d",
    },
    "/usr": {"bin": "d", "lib": "d", "local": "d"},
    "/usr/local": {"bin": "d", "lib": "d"},
    "/usr/local/bin": {"tool": "f", "link": "l:tool"},
    "/etc": {"passwd": "f", "ssl": "d"},
    "/bin": {"sh": "f"},
}


def listing(tree: Mapping[str, Mapping[str, str]]) -> Listing:
    return lambda folder: tree.get(folder, {})


def test_an_image_without_system_files_gets_the_hosts() -> None:
    plan = layout(listing({"/": {"app": "d"}}), listing(HOST))
    assert plan.binds == ("/etc", "/opt", "/usr")
    assert plan.links == (("usr/bin", "/bin"),)
    assert "/home" in plan.dirs  # empty, the worker's own
    assert not any("secret" in path or "swap" in path for path in (*plan.dirs, *plan.binds, *plan.files))


def test_folders_of_both_are_merged_and_files_of_the_image_win() -> None:
    image = {
        "/": {"usr": "d", "etc": "d", "bin": "d"},
        "/usr": {"local": "d", "src": "d"},
        "/usr/local": {"bin": "d"},
        "/usr/local/bin": {"tool": "f"},
        "/etc": {"passwd": "f"},
    }
    plan = layout(listing(image), listing(HOST))
    assert plan.binds == ("/bin/sh", "/etc/ssl", "/opt", "/usr/bin", "/usr/lib", "/usr/local/lib")
    assert plan.links == (("tool", "/usr/local/bin/link"),)


def test_a_link_of_the_image_is_never_mounted_through() -> None:
    plan = layout(listing({"/": {"usr": "l:/home", "var": "f", "tmp": "l:/etc"}}), listing(HOST))
    assert not any(path.startswith("/usr") for path in plan.binds)
    assert "/var/tmp" not in plan.dirs
    assert "/tmp" not in plan.dirs


def view(**changes: object) -> sandbox.View:
    values: dict[str, object] = {
        "root": Path("/k/scratch/root"),
        "binds": ("/usr", "/etc"),
        "hidden": (Path("/k"), Path("/usr/share")),
        "extra": (Path("/usr/lib/py"), Path("/usr/share/venvs/1"), Path("/home/me/.pyenv/3")),
        "inputs": {"data": Path("/k/trees/1"), "build": Path("/k/trees/2")},
        "pfs": Path("/k/pfs"),
        "out": Path("/k/out"),
    }
    return sandbox.View(**(values | changes))  # type: ignore[arg-type]


def test_argv() -> None:
    line = sandbox.argv("bwrap", view())
    text = " ".join(line)
    assert line[0] == "bwrap"
    assert "--bind /k/scratch/root / --ro-bind /usr /usr --ro-bind /etc /etc --tmpfs /usr/share" in text
    assert "--tmpfs /k " not in text  # not visible anyway
    assert "--ro-bind /usr/lib/py" not in text  # below a bind already
    assert "--ro-bind /usr/share/venvs/1 /usr/share/venvs/1" in text
    assert "--ro-bind /home/me/.pyenv/3 /home/me/.pyenv/3" in text
    pfs = "--ro-bind /k/pfs /pfs --ro-bind /k/trees/2 /pfs/build --ro-bind /k/trees/1 /pfs/data"
    assert text.endswith(f"{pfs} --bind /k/out /pfs/out")
    assert "--die-with-parent" in line
    assert line[line.index("--cap-drop") + 1] == "ALL"
    assert "/dev/nvidia0" not in text


def test_argv_of_a_grant() -> None:
    text = " ".join(sandbox.argv("bwrap", view(devices=("/dev/nvidia0",), shm_bytes=5)))
    assert "--size 5 --tmpfs /dev/shm" in text
    assert "--dev-bind /dev/nvidia0 /dev/nvidia0" in text
    assert text.index("--dev /dev") < text.index("--tmpfs /dev/shm")


KINDS = st.sampled_from(["d", "f", "l:/etc"])
TREES = st.dictionaries(
    st.sampled_from(["/", "/usr", "/etc", "/usr/local", "/bin"]),
    st.dictionaries(st.sampled_from(["usr", "etc", "local", "bin", "app", "home", "x"]), KINDS),
)


@given(TREES, TREES)
def test_only_system_folders_are_ever_mounted(
    image: dict[str, dict[str, str]], host: dict[str, dict[str, str]]
) -> None:
    plan = layout(listing(image), listing(host))
    for path in plan.binds:
        assert path.split("/")[1] in SYSTEM
        folder, _, name = path.rpartition("/")
        assert name not in image.get(folder or "/", {})
    assert len(set(plan.binds)) == len(plan.binds)


def test_prepare_and_scan(tmp_path: Path) -> None:
    (tmp_path / "root" / "usr").mkdir(parents=True)
    plan = layout(scan(tmp_path / "root"), listing(HOST))
    for _ in range(2):
        prepare(tmp_path / "root", plan)
    found = scan(tmp_path / "root")
    assert found("/")["bin"] == "l:usr/bin"
    assert found("/usr") == {"bin": "d", "lib": "d", "local": "d"}
    assert found("/nothing") == {}
    assert (tmp_path / "root" / "tmp").stat().st_mode & 0o7777 == 0o1777


def test_what_the_host_keeps_for_its_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    modes = {
        "etc/passwd": 0o644,
        "etc/shadow": 0o640,
        "etc/empty": 0o600,
        "etc/ssh/key": 0o600,
        "etc/ssl/private/key": 0o644,
        "opt/own/key": 0o644,
        "opt/tool/key": 0o600,
    }
    for name, mode in modes.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text("" if name.endswith("empty") else "x")
        (tmp_path / name).chmod(mode)
    for name in ("etc/ssl/private", "opt/own"):
        (tmp_path / name).chmod(0o710)
    (tmp_path / "etc" / "link").symlink_to("shadow")
    monkeypatch.setattr("os.geteuid", lambda: 0)
    hidden = {"etc/shadow", "etc/ssh/key", "etc/ssl/private", "opt/own"}
    assert {str(path.relative_to(tmp_path)) for path in private(tmp_path)} == hidden
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    assert private(tmp_path) == ()


def test_what_the_loader_reads_never_reaches_bubblewrap_itself() -> None:
    env = {"LD_PRELOAD": "/app/evil.so", "GLIBC_TUNABLES": "x", "PATH": "/bin", "OLD_LD_X": "1"}
    outside, options = split_environment(env)
    assert outside == {"PATH": "/bin", "OLD_LD_X": "1"}
    assert options == ["--setenv", "LD_PRELOAD", "/app/evil.so", "--setenv", "GLIBC_TUNABLES", "x"]


def test_probe() -> None:
    assert "not installed" in (sandbox.probe(None) or "")
    assert "exit code" in (sandbox.probe("/bin/false") or "")
    assert "does not run" in (sandbox.probe("/no/such") or "")


@pytest.mark.parametrize(
    ("path", "seen"), [("/usr/bin:/root/x:/opt/c/bin:rel:", "/usr/bin:/opt/c/bin"), ("", "")]
)
def test_visible_path(path: str, seen: str) -> None:
    assert visible_path(path) == seen
