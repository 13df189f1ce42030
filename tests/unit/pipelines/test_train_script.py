"""train.sh with real shells, on a folder that imitates the /pfs of a Pachyderm worker."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kaos_pipelines.specs import train_script

from kaos_backend.engine.store.names import file_path
from kaos_formats.stored import MAP_FILE, read_map, restore, stored_names

SHELLS = [
    pytest.param([path, *arguments], id=name)
    for name, *arguments in (("dash",), ("bash", "--posix"), ("busybox", "sh"), ("mksh",), ("ksh",))
    if (path := shutil.which(name)) is not None
]
SOURCE, DATA, PARAMS = "5" * 32, "d" * 32, "828c4e55"
MODEL = f"{SOURCE[:6]}-{DATA[:6]}-{PARAMS}"
NAMES = [
    "my data (1).csv",
    "Größe_数据.csv",
    "a\nb\n",
    "%41",
    "(",
    "%28",
    "é" * 127,
    "(" * 255,
    "(" * 254 + ")",
    "plain",
    " ' \"$x`y`\\n\\",
    "-n",
    "%d%s",
    MAP_FILE,
    ".hidden [x]",
    "..odd?",
    "*",
    "tab\t",
]
TREE = [
    *NAMES,
    *(f"sub [é]/{name}" for name in NAMES),
    "back\\slash/(",
    "plain folder/deep/plain",
    f"x/{MAP_FILE}",
]


class Pfs:
    """What a worker hands to the script: inputs as PFS holds them, an empty output folder, an image."""

    def __init__(self, top: Path, shell: list[str]) -> None:
        self.top, self.shell = top, shell
        self.pfs, self.image = top / "pfs", top / "image"
        for folder in (self.pfs / "build" / SOURCE, self.pfs / "data", self.pfs / "hyper", self.pfs / "out"):
            folder.mkdir(parents=True)
        for folder in (self.image, top / "tmp"):
            folder.mkdir()
        (self.pfs / "hyper" / f"{PARAMS}.json").write_text("{}")
        self.data = self.pfs / "data" / DATA
        self.model = self.pfs / "out" / MODEL

    def put_data(self, files: list[str]) -> None:
        """The bundle of these files (each holds its own name), stored as PFS does it."""
        names = stored_names(files)
        for path in files:
            file = self.data / (path if names is None else names.path(path))
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(path.encode())
        if names is not None:
            (self.data / MAP_FILE).write_bytes(names.map_text(DATA) or b"")

    def start(self, train: str, **env: str) -> subprocess.Popen[bytes]:
        (self.image / "train").write_text(
            f"#!{sys.executable}\nimport json, os, sys\nout = sys.argv[1]\n{train}\n"
        )
        (self.image / "train").chmod(0o755)
        inputs = {"build": f"build/{SOURCE}", "data": f"data/{DATA}", "hyper": f"hyper/{PARAMS}.json"}
        process = subprocess.Popen(
            self.shell,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=self.image,
            env={name: str(self.pfs / path) for name, path in inputs.items()}
            | {"PATH": os.environ["PATH"], "PACH_PFS": str(self.pfs), "TMPDIR": str(self.top / "tmp")}
            | {"LANG": "C.UTF-8", **env},
        )
        assert process.stdin is not None
        process.stdin.write("".join(f"{line}\n" for line in train_script()).encode())
        process.stdin.close()
        return process

    def run(self, train: str, **env: str) -> tuple[int, str]:
        process = self.start(train, **env)
        assert process.stdout is not None
        with process.stdout as output:
            said = output.read().decode(errors="replace")
        return process.wait(), said


@pytest.fixture(params=SHELLS)
def pfs(request: pytest.FixtureRequest, tmp_path: Path) -> Pfs:
    return Pfs(tmp_path, request.param)


def files(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()
    }


def folders_of(paths: list[str]) -> set[str]:
    return {"/".join(p.split("/")[:n]) for p in paths for n in range(1, p.count("/") + 1)}


WRITE = """
for path in json.loads(os.environ["WANTED"]):
    os.makedirs(os.path.dirname(os.path.join(out, path)), exist_ok=True)
    open(os.path.join(out, path), "w").write(path)
"""
COPY = """
data = os.environ["KAOS_DATA_DIR"]
found = {}
for at, _, names in os.walk(data):
    for name in names:
        path = os.path.join(at, name)
        found[os.path.relpath(path, data)] = open(path, newline="").read()
json.dump(found, open(out + "/found.json", "w"))
"""


def found(pfs: Pfs) -> dict[str, str]:
    content = json.loads((pfs.model / "found.json").read_bytes())
    assert isinstance(content, dict)
    return content


def test_a_trial_finds_the_true_names(pfs: Pfs) -> None:
    pfs.put_data(TREE)
    for _ in range(2):  # a worker runs one datum after the other
        code, said = pfs.run(COPY)
        assert (code, said) == (0, "")
        assert found(pfs) == {path: path for path in TREE}
    assert sorted(p.name for p in pfs.model.iterdir()) == ["found.json"]


def test_a_bundle_of_plain_names_is_seen_as_it_is(pfs: Pfs) -> None:
    pfs.put_data(["plain", "%41", MAP_FILE])
    code, said = pfs.run("print(os.environ['KAOS_DATA_DIR'])\n" + COPY)
    assert (code, said) == (0, f"{pfs.data}\n")
    assert found(pfs) == {path: path for path in ("plain", "%41", MAP_FILE)}
    assert list((pfs.top / "tmp").iterdir()) == []


def test_folders_with_many_files(pfs: Pfs) -> None:
    paths = [
        f"{folder}/{n:04} é.txt" if n % 400 == 0 else f"{folder}/{n:04}"
        for folder in "ab"
        for n in range(1200)
    ]
    pfs.put_data(paths)
    assert pfs.run(COPY) == (0, "")
    assert found(pfs) == {path: path for path in paths}


def held(pfs: Pfs) -> dict[str, bytes]:
    """The model as it comes back: everything must be what PFS takes, and the map tells the true names."""
    for path in files(pfs.model):
        assert file_path(f"/{path}") == f"/{path}"
        assert max(map(len, path.split("/"))) <= 255
    names = read_map(pfs.model)
    if names is not None:
        restore(pfs.model, names)
    return files(pfs.model)


def test_what_a_trial_writes_is_held_and_told(pfs: Pfs) -> None:
    code, said = pfs.run(WRITE, WANTED=json.dumps(TREE))
    assert (code, said) == (0, "")
    assert (pfs.model / "plain").exists()
    assert (pfs.model / "%28").read_bytes() == b"%28", "what PFS can hold keeps its name"
    assert (pfs.model / "my data %281%29.csv").exists()
    assert (pfs.model / "Gr%c3%b6%c3%9fe_%e6%95%b0%e6%8d%ae.csv").exists()
    assert held(pfs) == {path: path.encode() for path in TREE}


def test_an_output_of_plain_names_is_left_alone(pfs: Pfs) -> None:
    paths = ["plain", "a b/%41", "x.json", "back\\slash"]
    assert pfs.run(WRITE, WANTED=json.dumps(paths)) == (0, "")
    assert files(pfs.model) == {path: path.encode() for path in paths}


def test_links_are_renamed_and_not_followed(pfs: Pfs) -> None:
    body = """
os.mkdir(out + "/d")
open(out + "/d/(", "w").close()
os.symlink("d", out + "/l é")
os.symlink("no", out + "/(")
"""
    assert pfs.run(body) == (0, "")
    assert (pfs.model / "l %c3%a9").readlink() == Path("d")
    assert (pfs.model / "%28").readlink() == Path("no")


ELEMENT = st.text(st.sampled_from("aé(%2 \n\\.~数\t-$'\"*"), min_size=1, max_size=6).filter(
    lambda name: name not in (".", "..")
)
PATHS = st.lists(
    st.lists(ELEMENT, min_size=1, max_size=3).map("/".join), min_size=1, max_size=12, unique=True
).filter(lambda paths: not folders_of(paths) & set(paths))


@pytest.mark.parametrize("shell", SHELLS)
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(paths=PATHS)
def test_any_names_come_and_go(
    tmp_path_factory: pytest.TempPathFactory, shell: list[str], paths: list[str]
) -> None:
    pfs = Pfs(tmp_path_factory.mktemp("pfs"), shell)
    pfs.put_data(paths)
    assert pfs.run(COPY + WRITE.replace("(out, ", "(out, 'w', "), WANTED=json.dumps(paths)) == (0, "")
    assert found(pfs) == {path: path for path in paths}
    back = held(pfs)
    assert {path.removeprefix("w/"): content for path, content in back.items() if path.startswith("w/")} == {
        path: path.encode() for path in paths
    }


@pytest.mark.parametrize("any_name", ["", "1"])
@pytest.mark.parametrize(
    ("body", "code"), [("sys.exit(0)", 0), ("sys.exit(7)", 7), ("os.kill(os.getpid(), 9)", 137)]
)
def test_the_exit_code_is_the_trials(pfs: Pfs, body: str, code: int, any_name: str) -> None:
    ended, _ = pfs.run(f"open(out + '/(', 'w'); {body}", KAOS_ANY_NAME=any_name)
    # A worker that stores any name gets the trial itself in the place of the shell.
    assert ended == (-9 if any_name and code == 137 else code)
    assert [p.name for p in pfs.model.iterdir() if p.name != MAP_FILE] == ["(" if any_name else "%28"]


def test_signals_are_passed_on_and_what_was_written_is_held(pfs: Pfs) -> None:
    body = """
import signal
def end(*_):
    open(out + "/checkpoint (1)", "w").write("saved")
    sys.exit(3)
signal.signal(signal.SIGTERM, end)
print("ready", flush=True)
while True:
    signal.pause()
"""
    process = pfs.start(body)
    assert process.stdout is not None
    with process.stdout as output:
        assert output.readline() == b"ready\n"
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 3
    assert held(pfs) == {"checkpoint (1)": b"saved"}


@pytest.mark.parametrize("any_name", ["", "1"])
def test_a_trial_over_its_time_is_killed_and_named(pfs: Pfs, any_name: str) -> None:
    body = """
import signal
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print("begun", flush=True)
while True:
    signal.pause()
"""
    code, said = pfs.run(body, KAOS_TIMEOUT="0.2", KAOS_ANY_NAME=any_name)
    assert code == 124
    assert said.endswith("kaos: timed out after 0.2 s\n")
    # With time to spare nothing differs, and nobody waits for the rest of it.
    assert pfs.run("sys.exit(3)", KAOS_TIMEOUT="600", KAOS_ANY_NAME=any_name) == (3, "")


def test_a_name_that_cannot_be_held_beside_the_output_fails_by_name(pfs: Pfs) -> None:
    code, said = pfs.run("open(os.path.dirname(out) + '/stray (1)', 'w')")
    assert code == 1
    assert "stray (1)" in said
