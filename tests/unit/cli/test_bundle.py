from __future__ import annotations

import json
import os
import socket
from pathlib import Path

import pytest
from blake3 import blake3

from kaos_cli import bundle, contents
from kaos_cli.errors import KaosError
from kaos_formats.folders import remove_tree
from tests.support.bundles import write_data, write_source
from tests.support.files import nest


def read(folder: Path, kind: bundle.Kind = "data", cache: Path | None = None) -> bundle.Bundle:
    return bundle.read(folder, kind, cache or folder.parent / "cache")


def refused(folder: Path, kind: bundle.Kind = "data") -> KaosError:
    with pytest.raises(KaosError) as caught:
        read(folder, kind)
    assert caught.value.code == "invalid_bundle"
    assert caught.value.hint
    return caught.value


def paths(made: bundle.Bundle) -> list[str]:
    return [entry.file.path for entry in made.entries]


def test_tree_text_lists_files_by_path_with_mode_and_hash(tmp_path: Path) -> None:
    data = write_data(tmp_path / "d", {"b/x": b"two", "a.txt": b"one", "b-1": b""})
    (data / "a.txt").chmod(0o700)
    made = read(data)
    lines = [json.loads(line) for line in made.tree.splitlines()]
    assert [line["path"] for line in lines] == ["a.txt", "b-1", "b/x"]
    assert lines[0] == {"path": "a.txt", "size": 3, "mode": "755", "hash": blake3(b"one").hexdigest()}
    assert made.tree.endswith(b"\n")
    assert made.tree.startswith(b'{"path":"a.txt","size":3,"mode":"755","hash":"')
    assert made.id == blake3(made.tree).hexdigest()[:32]
    assert (made.files, made.size_bytes, made.label) == (3, 6, f"d:{made.id[:6]}")


def test_id_depends_on_content_alone(tmp_path: Path) -> None:
    one, two = write_data(tmp_path / "one"), write_data(tmp_path / "elsewhere/two")
    os.utime(one / "a.txt", (1, 1))
    assert read(one).id == read(two).id
    (two / "a.txt").write_bytes(b"other")
    assert read(one).id != read(two).id


def test_awkward_but_allowed_names_are_quoted_as_json(tmp_path: Path) -> None:
    made = read(write_data(tmp_path / "d", {'a "b" \\c': b"x"}))
    assert json.loads(made.tree)["path"] == 'a "b" \\c'


def test_big_file_hashes_like_any(tmp_path: Path) -> None:
    content = os.urandom(contents.PARALLEL_BYTES * 9 + 7)
    made = read(write_data(tmp_path / "d", {"big": content}))
    assert made.entries[0].hash == blake3(content).hexdigest()


def test_empty_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "d/only/folders").mkdir(parents=True)
    assert "is empty" in refused(tmp_path / "d").message


def test_folder_of_ignored_files_is_refused_and_says_so(tmp_path: Path) -> None:
    write_data(tmp_path / "d", {".DS_Store": b"x"})
    assert ".DS_Store" in refused(tmp_path / "d").message


@pytest.mark.parametrize("name", ["nowhere", "file"])
def test_what_is_no_folder_is_refused(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").write_text("")
    assert name in refused(tmp_path / name).message


@pytest.mark.parametrize(
    "name", ["x*y", "my data (1).csv", "Größe_数据.csv", "a\nb", "\x7f", "%41", ".kaos-tree"]
)
def test_any_name_of_linux_can_be_packed(tmp_path: Path, name: str) -> None:
    data = write_data(tmp_path / "d", {name: b"1", f"[{name}]/f": b"2"})
    made = read(data)
    assert sorted(paths(made)) == sorted([name, f"[{name}]/f"])
    assert read(data).id == made.id


def test_names_that_are_no_utf8_are_listed(tmp_path: Path) -> None:
    data = write_data(tmp_path / "d", {"fine": b""})
    for number in range(30):
        (data / f"{number:02}\udcff").write_text("")
    message = refused(data).message
    assert "30 file name(s)" in message
    assert "04\\xff: the name is no UTF-8" in message
    assert "05\\xff" not in message
    assert "fine" not in message
    assert "25 more" in message
    message.encode()


def test_ignored_names_can_be_printed(tmp_path: Path) -> None:
    data = write_data(tmp_path / "d", {".kaosignore": b"*.tmp\n", "f": b"", "a\n.tmp": b""})
    (data / "b\udcff.tmp").write_text("")
    made = read(data)
    assert made.ignored == ("a\\n.tmp", "b\\xff.tmp")
    json.dumps(made.ignored, ensure_ascii=False).encode()


def test_unreadable_file_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = write_data(tmp_path / "d")
    real = os.open

    def denied(path: str, *args: int) -> int:
        # Tests may run as root, for whom every file is readable.
        if path.endswith("a.txt"):
            raise PermissionError(13, "Permission denied", path)
        return real(path, *args)

    monkeypatch.setattr(os, "open", denied)
    assert "Permission denied" in refused(data).message


# symlinks and special files


def test_links_that_stay_inside_become_what_they_point_to(tmp_path: Path) -> None:
    data = write_data(tmp_path / "d", {"real/f": b"content"})
    (data / "link").symlink_to("real/f")
    (data / "folder").symlink_to(data / "real")
    made = read(data)
    assert paths(made) == ["folder/f", "link", "real/f"]
    assert {entry.hash for entry in made.entries} == {blake3(b"content").hexdigest()}


@pytest.mark.parametrize("target", ["/etc/passwd", "../outside", "/etc", "nowhere", "loop", "."])
def test_links_that_leave_dangle_or_circle_are_refused(tmp_path: Path, target: str) -> None:
    (tmp_path / "outside").write_text("")
    data = write_data(tmp_path / "d")
    (data / "loop").symlink_to(target)
    assert "loop is a symlink" in refused(data).message


def test_a_sibling_that_shares_the_prefix_is_outside(tmp_path: Path) -> None:
    write_data(tmp_path / "data-2", {"f": b""})
    data = write_data(tmp_path / "data")
    (data / "l").symlink_to(tmp_path / "data-2/f")
    assert "leaves the bundle" in refused(data).message


def test_links_between_folders_do_not_explode(tmp_path: Path) -> None:
    data = tmp_path / "d"
    for level in range(20):
        (data / f"l{level}").mkdir(parents=True)
        for twin in "ab":
            (data / f"l{level}/{twin}").symlink_to(f"../l{level + 1}")
    write_data(data / "l20", {"f": b""})
    assert "symlinks to folders" in refused(data).message


def test_an_ignored_link_is_nobodys_business(tmp_path: Path) -> None:
    data = write_data(tmp_path / "d", {".kaosignore": b"out\n", "f": b""})
    (data / "out").symlink_to("/etc/passwd")
    assert paths(read(data)) == ["f"]


def test_the_folder_itself_may_be_a_link(tmp_path: Path) -> None:
    data = write_data(tmp_path / "d", {"f": b""})
    (tmp_path / "l").symlink_to(data)
    made = read(tmp_path / "l")
    assert paths(made) == ["f"]
    assert made.name == "l"


def test_sockets_and_pipes_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    data = write_data(tmp_path / "d")
    os.mkfifo(data / "pipe")
    monkeypatch.chdir(data)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("sock")
        message = refused(data).message
    assert "pipe is a named pipe" in message
    assert "sock is a socket" in message


# the shape of a source bundle


def test_plain_shape_takes_the_folders_name(tmp_path: Path) -> None:
    assert read(write_source(tmp_path / "my code"), "source").name == "my-code"


@pytest.mark.parametrize(
    ("files", "name"),
    [
        (["mnist/Dockerfile", "mnist/model/train", "mnist/model/x.py"], "mnist"),
        (["mnist/Dockerfile", "mnist/train"], "mnist"),
        (["Dockerfile", "model/train"], None),
        (["Dockerfile", "train", "other/Dockerfile"], None),
    ],
)
def test_accepted_shapes(files: list[str], name: str | None) -> None:
    assert bundle.check_source(dict.fromkeys(files, True), Path("d")).name == name


@pytest.mark.parametrize(
    ("files", "told"),
    [
        (["train"], "no Dockerfile"),
        (["Dockerfile"], "no train"),
        (["a/Dockerfile", "a/train", "b/Dockerfile", "b/train"], "several training programs: a/.*, b/"),
        (["a/b/Dockerfile", "a/b/train"], "no Dockerfile"),
        (["m/Dockerfile", "train"], "looked for m/train"),
        ([], "no Dockerfile"),
    ],
)
def test_refused_shapes_show_the_accepted_ones(files: list[str], told: str) -> None:
    with pytest.raises(KaosError, match=told) as caught:
        bundle.check_source(dict.fromkeys(files, True), Path("d"))
    assert "DIR/<name>/model/train" in caught.value.message


def test_train_without_x_says_chmod(tmp_path: Path) -> None:
    error = refused(write_source(tmp_path / "s", mode=0o644), "source")
    assert error.hint == f"chmod +x {tmp_path / 's' / 'train'}"


# files that change meanwhile


def test_file_that_changes_between_walk_and_read_is_told(tmp_path: Path) -> None:
    data = write_data(tmp_path / "d", {"f": b"abc"})
    file = read(data).entries[0].file
    (data / "f").write_bytes(b"abcd")
    with pytest.raises(KaosError, match="changed while") as caught:
        contents.hash_file(str(data / "f"), file, lambda _: None)
    assert caught.value.code == "changed"


def test_big_file_that_shrinks_is_told(tmp_path: Path) -> None:
    data = write_data(tmp_path / "d", {"f": bytes(contents.PARALLEL_BYTES + 1)})
    file = read(data).entries[0].file
    os.truncate(data / "f", 10)
    with pytest.raises(KaosError, match="changed while"):
        contents.hash_file(str(data / "f"), file, lambda _: None)


@pytest.mark.parametrize("start", [b"#!/bin/sh\n", b"#!/usr/bin/env python3", b"\x7fELF\x02\x01\x01"])
def test_programs_that_the_kernel_can_start(tmp_path: Path, start: bytes) -> None:
    (tmp_path / "train").write_bytes(start)
    bundle.check_program(tmp_path / "train")


@pytest.mark.parametrize(
    ("start", "told"),
    [
        (b"import sys\n", "#!/usr/bin/env python3"),
        (b"", "#!/usr/bin/env python3"),
        (b"\n#!/bin/sh\n", "#!/usr/bin/env python3"),
        (b"\xef\xbb\xbf#!/bin/sh\n", "#!/usr/bin/env python3"),
        (b"#!/bin/sh\r\necho\r\n", "sed -i"),
    ],
)
def test_programs_that_would_run_as_something_else(tmp_path: Path, start: bytes, told: str) -> None:
    (tmp_path / "train").write_bytes(start)
    with pytest.raises(KaosError, match="train") as caught:
        bundle.check_program(tmp_path / "train")
    assert caught.value.code == "invalid_bundle"
    assert told in caught.value.hint


def test_folders_of_any_depth_are_refused_by_name(tmp_path: Path) -> None:
    data = write_data(tmp_path / "d")
    nest(data, 1_500)
    assert "d/d/d" in (message := refused(data).message)
    assert "path is too long" in message
    remove_tree(data)
