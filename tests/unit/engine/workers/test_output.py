"""Attacks on the collector of outputs: directly, with a folder as a hostile trial would leave it."""

from __future__ import annotations

import os
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from kaos_backend.engine.errors import Unknown
from kaos_backend.engine.workers.output import MAX_DEPTH, FolderOutput, Sight
from kaos_formats.folders import clean_up
from tests.support.files import nest

SECRET = b"the host's secret"


class Trial:
    """A trial's folders on the host: `out`, one input `data`, and what it must never get at."""

    def __init__(self, base: Path) -> None:
        self.out, self.data, self.host = base / "scratch" / "out", base / "trees" / "data", base / "host"
        for folder in (self.out, self.data / "b1" / "sub", self.host):
            folder.mkdir(parents=True)
        (self.data / "b1" / "x").write_bytes(b"input x")
        (self.data / "b1" / "sub" / "y").write_bytes(b"input y")
        (self.host / "secret").write_bytes(SECRET)
        self.output = FolderOutput(self.out, Sight("/pfs/out", {"/pfs/data": ("data", self.data)}))

    def collect(self) -> dict[str, bytes]:
        """path → content; what came by reference to an input reads as `@name:path`."""
        return {
            file.path: f"@{file.origin.name}:{file.origin.path}".encode() if file.origin else file.data.read()
            for file in self.output.files()
        }


@pytest.fixture
def trial(tmp_path: Path) -> Iterator[Trial]:
    trial = Trial(tmp_path)
    with closing(trial.output):
        yield trial
    opened = [fd.readlink() for fd in Path("/proc/self/fd").iterdir() if os.path.lexists(fd)]
    assert not [path for path in opened if path.is_relative_to(tmp_path)], "no descriptor is left"
    # Too deep for what the test's runner removes folders with.
    clean_up(trial.out)


def test_files_folders_and_hard_links(trial: Trial) -> None:
    (trial.out / "m" / "empty").mkdir(parents=True)
    (trial.out / "m" / "w").write_bytes(b"weights")
    (trial.out / "m" / "again").hardlink_to(trial.out / "m" / "w")
    (trial.out / "none").write_bytes(b"")
    assert trial.collect() == {"/m/w": b"weights", "/m/again": b"weights", "/none": b""}
    assert trial.collect() == trial.collect(), "as often as it takes"


@pytest.mark.parametrize(
    ("link", "target", "expected"),
    [
        ("l", "m/w", b"weights"),
        ("m/l", "w", b"weights"),
        ("m/l", "../m/./w", b"weights"),
        ("m/l", "/pfs/out/m/w", b"weights"),
        ("m/l", "../../out/m/w", b"weights"),
        ("m/l", "/pfs/../pfs//out/m/w", b"weights"),
        ("m/l", "../../../../../pfs/out/m/w", b"weights"),  # the parent of / is /
        ("l", "/pfs/data/b1/x", b"@data:/b1/x"),
        ("m/l", "../../data/b1/sub/y", b"@data:/b1/sub/y"),
        ("l", "chain1", b"weights"),
    ],
)
def test_links_inside_become_what_they_lead_to(trial: Trial, link: str, target: str, expected: bytes) -> None:
    (trial.out / "m").mkdir()
    (trial.out / "m" / "w").write_bytes(b"weights")
    (trial.out / "chain1").symlink_to("/pfs/out/chain2")
    (trial.out / "chain2").symlink_to("m/../m/w")
    (trial.out / link).symlink_to(target)
    assert trial.collect()[f"/{link}"] == expected


def test_linked_folders_bring_their_files(trial: Trial) -> None:
    (trial.out / "m").mkdir()
    (trial.out / "m" / "w").write_bytes(b"weights")
    (trial.out / "m" / "up").symlink_to("../n")
    (trial.out / "n").mkdir()
    (trial.out / "n" / "v").write_bytes(b"v")
    (trial.out / "data").symlink_to("/pfs/data/b1")
    (trial.out / "best").symlink_to("m")
    assert trial.collect() == {
        "/m/w": b"weights",
        "/m/up/v": b"v",
        "/n/v": b"v",
        "/best/w": b"weights",
        "/best/up/v": b"v",
        "/data/x": b"@data:/b1/x",
        "/data/sub/y": b"@data:/b1/sub/y",
    }


@pytest.mark.parametrize("level", ["", "a/", "a/b/c/"])
@pytest.mark.parametrize(
    "target",
    [
        "{host}/secret",
        "{host}",
        "/etc/passwd",
        "/etc",
        "/",
        "/pfs",
        "..",
        "../../../../../../etc/passwd",
        "/proc/self/environ",
        "/proc/self/root/etc/passwd",
        "/proc/self/fd/0",
        "/dev/zero",
        "/pfs/data/../../etc/passwd",
        "/pfs/data/b1/../../../etc/passwd",
        "/pfs/outside",
        "/pfs/out/../out2/x",
        "nothing",
        "/pfs/data/nothing",
        "file/../file",
        "file/",
        "self",
        "loop1",
        "x" * 255,
    ],
)
def test_any_other_link_fails_by_name(trial: Trial, level: str, target: str) -> None:
    folder = trial.out / level
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "loop1").symlink_to("loop2")
    (folder / "loop2").symlink_to("loop1")
    for loop in ("loop1", "loop2"):
        (folder / loop).unlink() if target != "loop1" else None
    (folder / "file").write_bytes(b"")
    # A trailing slash asks for a folder; that it is a file is no harm.
    name = "self" if target == "self" else "a_link"
    (folder / name).symlink_to(target.format(host=trial.host))
    if target == "file/":
        assert set(trial.collect().values()) == {b""}
        return
    with pytest.raises(Unknown, match=rf"/{level}(a_link|self|loop1)") as refused:
        trial.collect()
    assert SECRET.decode() not in refused.value.message


def test_a_link_to_where_the_folder_is_on_the_host_is_outside(trial: Trial) -> None:
    (trial.out / "w").write_bytes(b"w")
    (trial.out / "l").symlink_to(trial.out / "w")
    with pytest.raises(Unknown, match=r"/l is a link to .* outside the output folder and the inputs"):
        trial.collect()


def test_without_a_sandbox_the_hosts_names_are_the_trials(tmp_path: Path) -> None:
    trial = Trial(tmp_path)
    trial.output.close()
    pfs = tmp_path / "worker" / "pfs"
    links = {str(pfs / "out"): str(trial.out), str(pfs / "data"): str(trial.data)}
    sight = Sight(str(trial.out), {str(trial.data): ("data", trial.data)}, links)
    (trial.out / "w").write_bytes(b"w")
    with closing(FolderOutput(trial.out, sight)) as trial.output:
        (trial.out / "own").symlink_to(trial.out / "w")
        (trial.out / "named").symlink_to(pfs / "out" / "w")
        (trial.out / "data").symlink_to(pfs / "data" / "b1" / "x")
        (trial.out / "up").symlink_to("../../trees/data/b1/sub")
        got = trial.collect()
        assert got.pop("/up/y") == got.pop("/data").replace(b"x", b"sub/y")
        assert got == {"/w": b"w", "/own": b"w", "/named": b"w"}
        (trial.out / "bad").symlink_to(trial.host / "secret")
        with pytest.raises(Unknown, match="/bad is a link to "):
            trial.collect()


@pytest.mark.parametrize("kind", ["pipe", "socket", "device"])
@pytest.mark.parametrize("by_link", [False, True])
def test_what_is_no_file_is_never_opened(trial: Trial, kind: str, by_link: bool) -> None:
    odd = trial.out / "odd"
    if kind == "pipe":
        os.mkfifo(odd)
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as one:
            one.bind(os.path.relpath(odd))
    elif os.geteuid() != 0:
        pytest.skip("only root can make devices")
    else:
        os.mknod(odd, 0o600 | 0o020000, os.makedev(1, 5))  # /dev/zero: it would never end
    if by_link:
        (trial.out / "a_link").symlink_to("odd")
    with pytest.raises(Unknown, match=f"/{'a_link' if by_link else 'odd'} is a {kind}, which cannot be kept"):
        trial.collect()


@pytest.mark.parametrize("put_back", ["link", "folder", "file", "nothing"])
def test_another_thing_in_place_of_the_output_folder_fails(trial: Trial, put_back: str) -> None:
    (trial.out / "w").write_bytes(b"w")
    trial.out.rename(trial.out.with_name("moved"))
    if put_back == "link":
        trial.out.symlink_to(trial.host)
    elif put_back == "folder":
        trial.out.mkdir()
    elif put_back == "file":
        trial.out.write_bytes(b"")
    with pytest.raises(Unknown, match="the output folder was moved away"):
        trial.collect()


def test_a_parent_that_was_swapped_leads_nowhere_else(trial: Trial) -> None:
    fake = trial.host / "out"
    fake.mkdir()
    (fake / "secret").write_bytes(SECRET)
    trial.out.parent.rename(trial.out.parent.with_name("moved"))
    trial.out.parent.symlink_to(trial.host)
    with pytest.raises(Unknown, match="the output folder was moved away"):
        trial.collect()


def test_an_input_that_was_swapped_leads_nowhere_else(trial: Trial) -> None:
    (trial.out / "l").symlink_to("/pfs/data/secret")
    trial.data.rename(trial.data.with_name("moved"))
    trial.data.symlink_to(trial.host)
    with pytest.raises((Unknown, OSError)):
        trial.collect()


def test_folders_that_hold_themselves_and_bombs_of_links(trial: Trial) -> None:
    (trial.out / "a").mkdir()
    (trial.out / "a" / "back").symlink_to("..")
    with pytest.raises(Unknown, match="/a/back is a link to a folder that holds it"):
        trial.collect()
    (trial.out / "a" / "back").unlink()
    for n in range(30):
        folder = trial.out / f"level{n}"
        folder.mkdir()
        for half in ("l", "r"):
            (folder / half).symlink_to(f"../level{n + 1}")
    (trial.out / "level30").mkdir()
    with pytest.raises(Unknown, match="linked folders inside linked folders"):
        trial.collect()


def test_depth_is_refused_by_name(trial: Trial) -> None:
    nest(trial.out, 1_100)
    with pytest.raises(Unknown, match=rf"^/d/d/.* is nested more than {MAX_DEPTH} folders deep"):
        trial.collect()


def test_as_deep_as_it_may_be(trial: Trial) -> None:
    nest(trial.out, MAX_DEPTH, "f")
    assert list(trial.collect()) == ["/d" * MAX_DEPTH + "/f"]


def test_names_that_are_no_text_can_be_named(trial: Trial) -> None:
    (trial.out / "bad\udcff").symlink_to("/etc/passwd")
    with pytest.raises(Unknown, match=re.escape(r"/bad\udcff is a link to /etc/passwd")) as refused:
        trial.collect()
    refused.value.message.encode()


def test_a_process_that_swaps_while_it_is_collected(trial: Trial) -> None:
    """Whatever the interleaving: the folder's own file, a refusal, never what the link leads to."""
    (trial.out / "d").mkdir()
    (trial.out / "d" / "secret").write_bytes(b"mine")
    aside = trial.out.parent / "aside"
    stop = threading.Event()

    def swap() -> None:
        while not stop.is_set():
            (trial.out / "d").rename(aside)
            (trial.out / "d").symlink_to(trial.host)
            (trial.out / "d").unlink()
            aside.rename(trial.out / "d")

    attacker = threading.Thread(target=swap)
    attacker.start()
    seen = set()
    try:
        for _ in range(1_000):
            try:
                seen |= {(path, content) for path, content in trial.collect().items()}
            except Unknown:
                seen.add(("refused", b""))
    finally:
        stop.set()
        attacker.join()
    assert SECRET not in {content for _, content in seen}
    assert {path for path, _ in seen} <= {"/d/secret", "refused"}
