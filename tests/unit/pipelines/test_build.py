"""Whole builds with real environments: small wheels made here, installed by the real pip."""

from __future__ import annotations

import json
import os
import ssl
import subprocess
import sys
import threading
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import trustme
from kaos_pipelines.build import authorities, pythons, store, with_venv
from kaos_pipelines.build import main as building
from kaos_pipelines.build.errors import BuildError, Refused
from kaos_pipelines.build.pythons import find_python
from kaos_pipelines.build.venvs import Recipe, VenvStore

from kaos_backend.engine.workers.process import images
from kaos_formats.images import directory_name
from kaos_formats.stored import MAP_FILE

from .conftest import HERE, TRAIN, bundle, config, is_ready, make

DOCKERFILE = (
    f"FROM python:{HERE}-slim\nWORKDIR /app\nCOPY r.txt .\nRUN pip install -r r.txt\nCOPY . .\nENV LR=0.1\n"
)


@pytest.fixture
def installs(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Counts the runs of pip, which still run."""
    seen: list[str] = []
    real = with_venv.install

    def counting(venv: Any, python: Any, command: Any, fs: Any, say: Any) -> None:
        seen.append(command.text)
        real(venv, python, command, fs, say)

    monkeypatch.setattr(with_venv, "install", counting)
    return seen


@pytest.mark.usefixtures("wheels")
def test_environments_are_made_once(
    tmp_path: Path, installs: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    engine = tmp_path / "engine"
    first = make(bundle(tmp_path, DOCKERFILE, {"r.txt": "tiny==1.0\n"}), "kaos/w:1", engine)
    assert installs == ["pip install -r r.txt"]
    assert first["image"] == "kaos/w:1"
    assert first["workdir"] == "/app"
    assert "Step 4/6 : RUN pip install -r r.txt" in capfd.readouterr().out
    # Code, ENV and comments change: another image, the same environment, no pip.
    code = {"r.txt": "tiny==1.0\n", "more.py": "x = 1"}
    make(bundle(tmp_path, DOCKERFILE + "ENV MORE=1\n", code, "source2"), "kaos/w:2", engine)
    assert len(installs) == 1
    assert "using the cached environment" in capfd.readouterr().out
    assert config(engine, "kaos/w:1")["venv"] == config(engine, "kaos/w:2")["venv"]
    # The content of the requirements changes: another environment.
    make(bundle(tmp_path, DOCKERFILE, {"r.txt": "tiny==2.0\n"}, "source3"), "kaos/w:3", engine)
    assert len(installs) == 2
    assert len(list((engine / "venvs").glob("*/.kaos-ready"))) == 2
    for image, value in (("kaos/w:1", "one"), ("kaos/w:3", "two")):
        image_ = images.ImageStore(engine).get(image)
        assert image_.venv is not None
        assert image_.root is not None
        python = image_.venv / "bin" / "python"
        run = subprocess.run([python, image_.root / "app/train"], capture_output=True, text=True, check=True)
        assert run.stdout.split() == [value, str(image_.venv)]


@pytest.mark.usefixtures("wheels")
def test_output_is_a_function_of_the_source(tmp_path: Path) -> None:
    source = bundle(tmp_path, DOCKERFILE, {"r.txt": "tiny\n"})
    env = {
        "KAOS_IMAGE": "kaos/w:1",
        "KAOS_SOURCE_ID": source.name,
        "KAOS_IMAGE_STORE": str(tmp_path / "engine"),
        "PACH_PFS": str(tmp_path / "pfs"),
    }
    found = []
    for _ in range(2):
        building.run(env)
        found.append((tmp_path / "pfs" / "out" / source.name / "image.json").read_bytes())
        env["KAOS_IMAGE_STORE"] = str(tmp_path / "engine2")
    assert found[0] == found[1]
    assert json.loads(found[0]) == {
        "image": "kaos/w:1",
        "source": source.name,
        "builder": "venv",
        "python": HERE,
        "workdir": "/app",
        "steps": [line for line in DOCKERFILE.split("\n") if line],
    }


@pytest.mark.usefixtures("wheels")
def test_files_pip_reads_decide_the_environment(tmp_path: Path) -> None:
    dockerfile = f"FROM python:{HERE}\nCOPY . /\nRUN pip install -r r/a.txt -c c.txt\n"
    files = {"r/a.txt": "-r b.txt\n", "r/b.txt": "tiny\n", "c.txt": "tiny<2\n"}
    keys = set()
    for number, change in enumerate(
        ({}, {"r/b.txt": "tiny # again\n"}, {"c.txt": "tiny<1.5\n"}, {"train": TRAIN + "#"})
    ):
        image = f"kaos/w:{number}"
        make(bundle(tmp_path, dockerfile, {**files, **change}, f"s{number}"), image, tmp_path / "e")
        keys.add(config(tmp_path / "e", image)["venv"])
    assert len(keys) == 3


@pytest.mark.parametrize(
    ("requirements", "reason"),
    [
        ("tiny==99\n", r"pip: No matching distribution found for tiny==99 \(exit code 1\)"),
        ("tiny==1.0\ntiny==2.0\n", r"pip: Cannot install tiny==1.0 and tiny==2.0 because .*conflict"),
        ("-r ../../../../../etc/passwd\n", "not below the image"),
        ("-r /etc/passwd\n", "not below the image"),
        ("-r nothing.txt\n", "there is no /app/nothing.txt"),
        ("x @ file:///etc\n", "file of this machine"),
        ("-e .\n", "-e"),
        ("-r r.txt\n", "includes itself"),
    ],
)
def test_failures_leave_nothing(tmp_path: Path, wheels: Path, requirements: str, reason: str) -> None:
    source = bundle(tmp_path, DOCKERFILE, {"r.txt": requirements})
    with pytest.raises(BuildError, match=reason) as caught:
        make(source, "kaos/w:1", tmp_path / "engine")
    assert str(caught.value).startswith("Dockerfile:4: RUN pip install -r r.txt: ")
    images_ = tmp_path / "engine" / "images"
    assert [p.name for p in images_.iterdir()] == [store.BUILDING]
    assert [p.name for p in (images_ / store.BUILDING).iterdir() if p.is_dir()] == []
    assert list((tmp_path / "engine").glob("venvs/*/")) == []
    assert not is_ready(tmp_path / "engine", "kaos/w:1")


@pytest.mark.usefixtures("wheels")
def test_half_built_environments_are_made_again(tmp_path: Path, installs: list[str]) -> None:
    engine = tmp_path / "engine"
    source = bundle(tmp_path, DOCKERFILE, {"r.txt": "tiny\n"})
    make(source, "kaos/w:1", engine)
    venv = images.ImageStore(engine).get("kaos/w:1").venv
    assert venv is not None
    (venv / ".kaos-ready").unlink()  # as a builder killed in the middle leaves it
    (engine / "images" / store.BUILDING / "dead").mkdir()
    assert not is_ready(engine, "kaos/w:1")
    make(source, "kaos/w:1", engine)
    assert len(installs) == 2
    assert is_ready(engine, "kaos/w:1")
    assert [p.name for p in (engine / "images" / store.BUILDING).iterdir() if p.is_dir()] == []


@pytest.mark.usefixtures("wheels")
def test_concurrent_builders_share_one_install(tmp_path: Path, installs: list[str]) -> None:
    engine, failures = tmp_path / "engine", []
    sources = [bundle(tmp_path, DOCKERFILE, {"r.txt": "other\n", "n": str(n)}, f"s{n}") for n in range(3)]

    def one(number: int) -> None:
        try:
            make(sources[number], f"kaos/w:{number}", engine)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=one, args=(n,)) for n in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert failures == []
    assert len(installs) == 1
    assert all(is_ready(engine, f"kaos/w:{n}") for n in range(3))


@pytest.mark.usefixtures("wheels")
def test_local_project_and_wheel(tmp_path: Path, wheels: Path) -> None:
    dockerfile = f"FROM python:{HERE}\nWORKDIR /app\nCOPY . .\nRUN pip install ./tiny-1.0-py3-none-any.whl\n"
    source = bundle(tmp_path, dockerfile)
    (source / "tiny-1.0-py3-none-any.whl").write_bytes((wheels / "tiny-1.0-py3-none-any.whl").read_bytes())
    make(source, "kaos/w:1", tmp_path / "engine")
    venv = images.ImageStore(tmp_path / "engine").get("kaos/w:1").venv
    assert venv is not None
    done = subprocess.run(
        [venv / "bin/python", "-c", "import tiny; print(tiny.VALUE)"], capture_output=True, check=True
    )
    assert done.stdout == b"one\n"


def test_the_command_says_why_it_ends(tmp_path: Path) -> None:
    source = bundle(tmp_path, "FROM python:3\n\nRUN apt-get install gcc\n")
    env = {
        "KAOS_IMAGE": "kaos/w:1",
        "KAOS_SOURCE_ID": source.name,
        "KAOS_IMAGE_STORE": str(tmp_path / "engine"),
        "PACH_PFS": str(tmp_path / "pfs"),
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(Path(building.__file__).parents[2]),
    }
    command = [sys.executable, "-m", "kaos_pipelines.build"]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stdout.strip().split("\n")[-1].startswith("Dockerfile:3: RUN apt-get install gcc: ")
    assert "Docker" in done.stdout
    assert done.stderr == ""
    done = subprocess.run(
        command, env={**env, "KAOS_SOURCE_ID": "nope"}, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "nope is not in the source repo" in done.stdout


def test_interpreters() -> None:
    assert find_python("").short == HERE  # the one that runs this
    assert find_python(HERE).short == HERE
    assert find_python(f"{HERE}.999").short == HERE
    with pytest.raises(Refused, match=r"no Python 3\.99.*Docker"):
        find_python("3.99")
    with pytest.raises(Refused):
        find_python("3", candidates=["/no/such", "/bin/false"])


def test_another_version_of_python_is_found(tmp_path: Path) -> None:
    other = next(
        (p for p in pythons._candidates("3.12") if (found := pythons._ask(p)) and found.short == "3.12"), None
    )
    if other is None or HERE == "3.12":
        pytest.skip("this machine has no second Python")
    python = find_python("3.12")
    venv = VenvStore(tmp_path).make(Recipe(python), lambda path: None, print)
    done = subprocess.run([venv / "bin/python", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("Python 3.12")


def test_both_sides_name_image_folders_alike() -> None:
    for name in ("kaos/default:0123456789abcdef", "a b/ü:x", "kaos/" + "x" * 300, "..", "kaos/w:1"):
        folder = store.directory_name(name)
        assert folder == images.directory_name(name)
        assert "/" not in folder
        assert not folder.startswith(".")
        assert len(folder) < 100


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


def test_pip_trusts_a_company(wheels: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    company = trustme.CA()
    company.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    company.issue_cert("127.0.0.1").configure_cert(context)
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=wheels.parent)) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        links = f"https://127.0.0.1:{server.server_port}/wheels/"
        bundle(tmp_path, f"FROM python:{HERE}\nRUN pip install --retries 0 -f {links} tiny\nCOPY . .\n")
        monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
        monkeypatch.setenv("PIP_NO_INDEX", "1")
        asked = {
            "KAOS_IMAGE": "kaos/w:1",
            "KAOS_SOURCE_ID": "source1",
            "KAOS_IMAGE_STORE": str(tmp_path / "e"),
        }
        asked["PACH_PFS"] = str(tmp_path / "pfs")
        with pytest.raises(BuildError, match="tiny"):
            building.run(asked)
        for name in authorities.VARIABLES:
            monkeypatch.setenv(name, "")
        building.run(asked | {"KAOS_BUILD_CA": str(tmp_path / "ca.pem")})
        server.shutdown()
    (made,) = (tmp_path / "e" / "venvs").glob("*/lib/*/site-packages/tiny.py")
    assert made.read_text() == "VALUE = 'two'\n"


def test_a_source_bundle_as_pachyderm_holds_it_is_built_under_its_true_names(tmp_path: Path) -> None:
    source_id = "5" * 32
    source = bundle(
        tmp_path,
        f'FROM python:{HERE}\nWORKDIR /app\nCOPY ["my data (1).csv", "./"]\nCOPY . .\n',
        {
            "my data %281%29.csv": "x",
            MAP_FILE: f"kaos-names 1 {source_id}\nmy data %281%29.csv\tmy data (1).csv\n",
        },
        source_id,
    )
    for folder in (source, source.parent):
        folder.chmod(0o555)
    engine = tmp_path / "engine"
    building.run(
        {
            "KAOS_IMAGE": "kaos/w:1",
            "KAOS_IMAGE_STORE": str(engine),
            "KAOS_SOURCE_ID": source_id,
            "PACH_PFS": str(tmp_path / "pfs"),
        }
    )
    app = engine / "images" / directory_name("kaos/w:1") / "root" / "app"
    assert sorted(path.name for path in app.iterdir()) == ["Dockerfile", "my data (1).csv", "train"]
    assert (app / "train").stat().st_mode & 0o111
    assert json.loads((tmp_path / "pfs/out" / source_id / "image.json").read_text())["source"] == source_id
