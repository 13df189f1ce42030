"""What RUNs made is kept by all that decides it, and used again."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from kaos_pipelines.build.errors import BuildError
from kaos_pipelines.build.store import tree_digest

from kaos_backend.engine.workers.process.images import ImageStore

from .conftest import HERE, bundle
from .test_shell import build

pytestmark = [
    pytest.mark.usefixtures("wheels"),
    pytest.mark.skipif(shutil.which("bwrap") is None, reason="bwrap is not installed"),
]
FROM = f"FROM python:{HERE}-slim\nWORKDIR /app\n"
# Another one each time that it is carried out.
STAMP = "cat /proc/sys/kernel/random/uuid >"
CHANGES = (
    "RUN mkdir -p gone/deep other && echo x > gone/deep/f && echo y > other/f"
    " && ln -s f other/link && touch was\n"
    f"RUN {STAMP} stamp && rm -r gone was && mkdir was && chmod 700 was && rm other/f && chmod +x other"
    " && ln -sf ../stamp other/link && ln stamp twin && echo z > gone\n"
)


def layers(engine: Path) -> set[str]:
    return {path.name for path in (engine / "layers").iterdir() if path.name != ".making"}


def test_a_code_only_change_repeats_no_run(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    engine = tmp_path / "engine"
    dockerfile = FROM + CHANGES + "RUN pip install tiny==1.0\n" + f"RUN {STAMP} last\nCOPY train .\n"
    first = build(bundle(tmp_path, dockerfile), engine)
    assert capfd.readouterr().out.count("before") == 0
    second = build(bundle(tmp_path, dockerfile + "COPY *.py .\n", {"code.py": "x"}, "s2"), engine, "kaos/w:2")
    assert capfd.readouterr().out.count("using what it made before") == 3
    assert (second / "app" / "code.py").read_text() == "x"
    (second / "app" / "code.py").unlink()
    assert tree_digest(second) == tree_digest(first)
    # What a RUN depends on: what came before it, its text, and the environment.
    before = [(first / f"app/{name}").read_text() for name in ("stamp", "last")]
    others = {
        dockerfile.replace("echo y", "echo Y"): [True, True],
        dockerfile.replace("tiny==1.0", "tiny==2.0"): [False, True],
        dockerfile.replace(" last", "  last"): [False, True],
    }
    for number, (other, new) in enumerate(others.items()):
        root = build(bundle(tmp_path, other, name=f"t{number}"), engine, f"kaos/w:t{number}")
        now = [(root / f"app/{name}").read_text() for name in ("stamp", "last")]
        assert [one != two for one, two in zip(now, before, strict=True)] == new, other
    assert not list((engine / "layers" / ".making").iterdir())


def test_what_a_failing_build_has_done_is_not_done_again(tmp_path: Path) -> None:
    engine = tmp_path / "engine"
    with pytest.raises(BuildError):
        build(bundle(tmp_path, FROM + f"RUN {STAMP} /stamp\nRUN false\nCOPY . .\n"), engine)
    (key,) = layers(engine)
    stamp = (engine / "layers" / key / "root" / "stamp").read_text()
    root = build(bundle(tmp_path, FROM + f"RUN {STAMP} /stamp\nRUN true\nCOPY . .\n", name="s2"), engine)
    assert (root / "stamp").read_text() == stamp


@pytest.mark.parametrize("name", ["root/app/stamp", "layer.json"])
def test_a_damaged_layer_is_made_again(tmp_path: Path, name: str) -> None:
    engine = tmp_path / "engine"
    dockerfile = FROM + f"RUN {STAMP} stamp\nCOPY . .\n"
    build(bundle(tmp_path, dockerfile), engine)
    (key,) = layers(engine)
    file = engine / "layers" / key / name
    good = file.read_bytes()
    data = bytearray(good)
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    root = build(bundle(tmp_path, dockerfile, {"a": "b"}, "s2"), engine, "kaos/w:2")
    assert (root / "app/stamp").read_bytes() not in (good, bytes(data))
    assert layers(engine) == set()
    root = build(bundle(tmp_path, dockerfile, {"a": "c"}, "s3"), engine, "kaos/w:3")
    assert layers(engine) == {key}
    assert (engine / "layers" / key / "root/app/stamp").read_text() == (root / "app/stamp").read_text()


def test_layers_go_with_the_last_image_that_names_them(tmp_path: Path) -> None:
    engine = tmp_path / "engine"
    for number, run in enumerate(("echo 1 > x", "echo 1 > x", "echo 2 > x")):
        source = bundle(tmp_path, FROM + f"RUN {run}\nCOPY . .\n", {"n": str(number)}, f"s{number}")
        build(source, engine, f"kaos/w:{number}")
    both = layers(engine)
    assert len(both) == 2
    store = ImageStore(engine)
    store.keep(lambda name: name != "kaos/w:0")
    assert layers(engine) == both
    store.keep(lambda name: name == "kaos/w:2")
    assert len(layers(engine)) == 1
    store.keep(lambda _: False)
    assert layers(engine) == set()
