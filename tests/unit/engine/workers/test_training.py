"""Build and train as the engine runs them: builder image, environment, train.sh, both kinds of isolation."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from kaos_pipelines import specs

from kaos_backend.engine.workers.port import Exit, Grant
from kaos_formats.images import directory_name
from kaos_formats.names import image_name
from kaos_formats.tree import TreeEntry, format_tree

from .conftest import Bench

SOURCE, DATA = "5" * 32, "d" * 32
TRAIN = """#!/usr/bin/env python3
import json, os, sys
out = sys.argv[1]
keys = "DATA_DIR PARAMS OUTPUT_DIR CPU MEMORY GPU WORKSPACE JOB_ID MODEL_ID".split()
report = {key: os.environ.get("KAOS_" + key) for key in keys}
report |= {"argv": sys.argv[1:], "cuda": os.environ["CUDA_VISIBLE_DEVICES"]}
report["cwd_has_code"] = os.path.exists("helper.py")
report["params"] = json.load(open(os.environ["KAOS_PARAMS"]))
report["data"] = open(os.environ["KAOS_DATA_DIR"] + "/x.txt").read()
report["prefix"] = sys.prefix
json.dump(report, open(out + "/report.json", "w"))
print("trained")
"""


def image_of(bench: Bench) -> str:
    return image_name(bench.images.workspace, SOURCE, bench.runtime.builder.name)


def build(
    bench: Bench, tmp_path: Path, train: str = TRAIN, steps: str = "WORKDIR /app\nCOPY . .\n"
) -> tuple[Exit, str]:
    repo = tmp_path / "repo"
    source = repo / SOURCE
    source.mkdir(parents=True, exist_ok=True)
    (source / "Dockerfile").write_text(f"FROM {bench.images.python}\n{steps}")
    (source / "train").write_bytes(train.encode())
    (source / "helper.py").write_text("")
    (repo / f"{SOURCE}.tree").write_bytes(format_tree([TreeEntry("train", 1, "755", "0" * 64)]))
    spec = specs.build_spec(bench.images.workspace, SOURCE, bench.runtime.builder.name)["transform"]
    worker = bench.worker(spec["image"], spec["env"])
    return bench.run(
        worker=worker, cmd=tuple(spec["cmd"]), inputs={"source": repo}, input_paths={"source": "/"}
    )


def train(bench: Bench, tmp_path: Path) -> tuple[Exit, str, Path]:
    for name, file, text in (
        ("build", f"{SOURCE}/image.json", "{}"),
        ("data", f"{DATA}/x.txt", "the data"),
        ("hyper", "0a1b2c3d.json", '{"lr":0.1}\n'),
    ):
        (tmp_path / name / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name / file).write_text(text)
    spec = specs.train_spec(bench.images.workspace, image_of(bench), cpu=1, memory_bytes=1 << 30)["transform"]
    exit_, text = bench.run(
        worker=bench.worker(spec["image"], spec["env"]),
        cmd=tuple(spec["cmd"]),
        stdin=("\n".join(spec["stdin"]) + "\n").encode(),
        env={"PACH_JOB_ID": "job1"},
        inputs={name: tmp_path / name for name in ("build", "data", "hyper")},
        input_paths={"build": f"/{SOURCE}", "data": f"/{DATA}", "hyper": "/0a1b2c3d.json"},
        grant=Grant(1, (), 1 << 30, ()),
    )
    return exit_, text, bench.engine_dir / f"out{bench.runs}"


def test_build_then_train(bench: Bench, tmp_path: Path) -> None:
    exit_, text = build(bench, tmp_path)
    assert exit_.code == 0, text
    assert text.endswith(f"Successfully built {image_of(bench)}")
    assert json.loads((bench.engine_dir / "out1" / SOURCE / "image.json").read_text())["image"] == image_of(
        bench
    )
    exit_, text, out = train(bench, tmp_path)
    assert (exit_.code, text) == (0, "trained")
    model = "555555-dddddd-0a1b2c3d"
    report = json.loads((out / model / "report.json").read_text())
    pfs = report["OUTPUT_DIR"].removesuffix(f"/out/{model}")
    assert (pfs == "/pfs") == (bench.runtime.isolation != "none")
    assert report == {
        "DATA_DIR": f"{pfs}/data/{DATA}",
        "PARAMS": f"{pfs}/hyper/0a1b2c3d.json",
        "OUTPUT_DIR": f"{pfs}/out/{model}",
        "CPU": "1",
        "MEMORY": str(1 << 30),
        "GPU": "0",
        "WORKSPACE": bench.images.workspace,
        "JOB_ID": "job1",
        "MODEL_ID": model,
        "argv": [f"{pfs}/out/{model}"],
        "cwd_has_code": True,
        "cuda": "",
        "params": {"lr": 0.1},
        "data": "the data",
        "prefix": report["prefix"],
    }
    if bench.runtime.builder.name == "venv":
        assert report["prefix"].startswith(str(bench.engine_dir / "venvs"))


def test_images_that_nobody_wants_go(bench: Bench, tmp_path: Path) -> None:
    build(bench, tmp_path)
    image, runtime = image_of(bench), bench.runtime
    asked: list[str] = []

    def wanted(name: str) -> bool:
        asked.append(name)
        return True

    runtime.keep_images(wanted)
    assert asked == [image]
    assert runtime.image_problem(image) == ""
    runtime.keep_images(lambda _: False)
    assert image in runtime.image_problem(image)
    runtime.keep_images(lambda _: False)
    # What depends on it is made as ever.
    build(bench, tmp_path)
    assert train(bench, tmp_path)[0].code == 0


def test_a_failed_build_is_one_failed_datum(bench: Bench, tmp_path: Path) -> None:
    exit_, text = build(bench, tmp_path, steps="\nRUN no-such-program -y gcc\n")
    assert exit_.code == 1
    assert text.split("\n")[-1].startswith("Dockerfile:3: RUN no-such-program -y gcc: ")
    assert bench.runtime.image_problem(image_of(bench))
    assert not (bench.engine_dir / "out1" / SOURCE).exists()


@pytest.mark.parametrize(
    ("first", "code", "reason"),
    [
        ("#!/usr/bin/env python3\r\nprint(1)\r\n", 127, "Windows line endings"),
        ("#!/no/such/interpreter\n", 127, "asks for /no/such/interpreter"),
        ("#!/usr/bin/env no-such-program\n", 127, "asks for no-such-program"),
        ("#!/usr/local/bin/python3 -u\nimport sys; sys.exit(7)\n", 7, ""),
        ("echo a script without a first line; exit 5\n", 5, "a script without"),
    ],
)
def test_train_that_cannot_start_says_why(
    bench: Bench, tmp_path: Path, first: str, code: int, reason: str
) -> None:
    assert build(bench, tmp_path, first)[0].code == 0
    exit_, text, _ = train(bench, tmp_path)
    assert exit_.code == code, text
    assert reason in text


def test_train_that_is_gone_or_not_executable(bare: Bench, tmp_path: Path) -> None:
    build(bare, tmp_path)
    folder = bare.engine_dir / "images" / directory_name(image_of(bare))
    root = folder / "root"
    (root / "app" / "train").chmod(0o644)
    assert "has lost its /app/train" in bare.runtime.image_problem(image_of(bare))
    # Images of older builders do not say what must be in them.
    config = json.loads((folder / "config.json").read_text())
    del config["program"]
    (folder / "config.json").write_text(json.dumps(config))
    assert bare.runtime.image_problem(image_of(bare)) == ""
    exit_, text, _ = train(bare, tmp_path)
    assert (exit_.code, "not executable" in text) == (126, True)
    (root / "app" / "train").unlink()
    exit_, text, _ = train(bare, tmp_path)
    assert (exit_.code, "no train" in text) == (127, True)
