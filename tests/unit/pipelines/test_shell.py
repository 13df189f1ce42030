"""Builds whose RUNs a real shell carries out, in sandboxes: what they may, what they see, what is kept."""

from __future__ import annotations

import re
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from kaos_pipelines.build import with_venv
from kaos_pipelines.build.bundle import load_bundle
from kaos_pipelines.build.errors import BuildError
from kaos_pipelines.build.log import BuildLog
from kaos_pipelines.build.sandbox import Sandbox

from kaos_backend.engine.workers.process import environment, images

from .conftest import HERE, bundle, config, make

BWRAP = shutil.which("bwrap")
pytestmark = [
    pytest.mark.usefixtures("wheels"),
    pytest.mark.skipif(BWRAP is None, reason="bwrap is not installed"),
]
START = f"FROM python:{HERE}-slim\nWORKDIR /app\nCOPY . .\n"


def build(source: Path, engine: Path, image: str = "kaos/w:1") -> Path:
    """The image's files."""
    sandbox = Sandbox(BWRAP or "", (engine,))
    with_venv.build(load_bundle(source), image, engine, BuildLog(), sandbox=sandbox)
    found = images.ImageStore(engine).get(image).root
    assert found is not None
    return found


def test_a_run_is_what_a_shell_does_in_the_images_own_root(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    engine = tmp_path / "engine"
    dockerfile = (
        START + "ARG WHO=world\nENV GREETING=hello\n"
        'RUN echo "$GREETING $WHO" | tr a-z A-Z > said && for i in 1 2; do echo $i; done >> said\n'
        "RUN (touch /usr/bin/x /run/kaos/cache/x; ls /root/.ssh; ls -d "
        + f"{engine}/images || true) 2>&1 | wc -l > refused\n"
        "RUN cat /etc/shadow /etc/gshadow /etc/ssh/ssh_host_* > secrets 2>/dev/null || true\n"
        "RUN useradd me && chown -R me . && mkfifo pipe && chmod u+s train\n"
        "RUN echo x > /etc/x && echo > $HOME/y\n"
        'SHELL ["/bin/bash", "-o", "pipefail", "-c"]\n'
        "RUN false | true || echo $((6 * 7)) > /usr/local/bin/answer\n"
        'RUN ["python", "-c", "import sys; open(\'version\', \'w\').write(sys.version)"]\n'
        "RUN --network=none cat /proc/net/route | wc -l > routes\n"
        "RUN --mount=type=cache,target=/root/.cache echo big > /root/.cache/big && sleep 1000 &\n"
    )
    root = build(bundle(tmp_path, dockerfile), engine)
    assert (root / "app/said").read_text() == "HELLO WORLD\n1\n2\n"
    assert (root / "app/refused").read_text() == "4\n"
    assert (root / "usr/local/bin/answer").read_text() == "42\n"
    assert (root / "app/version").read_text().startswith(HERE)
    assert (root / "app/secrets").read_text() == ""
    assert (root / "app/routes").read_text() == "1\n"  # the heading alone
    assert not (root / "app/train").stat().st_mode & 0o6000
    said = capfd.readouterr().out
    assert "useradd: noted" in said
    assert "/app/pipe is left out" in said
    # Nothing is left of what was mounted.
    found = {str(path.relative_to(root)) for path in root.rglob("*") if not path.is_dir()}
    app = {"Dockerfile", "train", "said", "refused", "secrets", "version", "routes"}
    assert found == {"etc/x", "root/y", "usr/local/bin/answer", *(f"app/{name}" for name in app)}


def test_what_pip_is_asked_for_decides_the_environment(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    engine = tmp_path / "engine"
    run = (
        "RUN if [ -f r.txt ] ; then pip3 install -r r.txt | tee /tmp/log; fi\n"
        "RUN for name in $(cat more); do python -m pip install $name; done; python -c 'import tiny, other'\n"
        "RUN which python > where && pip freeze > frozen\n"
    )
    files = {"r.txt": "tiny==1.0\n", "more": "other\n"}
    root = build(bundle(tmp_path, START + run, files), engine)
    venv = config(engine, "kaos/w:1")["venv"]
    # Also where the image's own files name it.
    assert (root / "app/where").read_text() == f"{engine}/venvs/{venv}/bin/python\n"
    assert (root / "app/frozen").read_text() == "other==1.0\ntiny==1.0\n"
    assert capfd.readouterr().out.count("Installing collected packages") == 2
    # Code and comments change: the same environment, no pip.
    files["code.py"] = "x = 1"
    build(bundle(tmp_path, START + "# once more\n" + run, files, "s2"), engine, "kaos/w:2")
    said = capfd.readouterr().out
    assert "Installing" not in said
    assert said.count("using the cached environment") == 2
    assert said.count("Step 1/") == 1
    assert config(engine, "kaos/w:2")["venv"] == venv
    # Something else in the second place.
    files["more"] = "tiny==2.0 other"
    root = build(bundle(tmp_path, START + run, files, "s4"), engine, "kaos/w:4")
    assert (root / "app/frozen").read_text() == "other==1.0\ntiny==2.0\n"
    assert not list((engine / "venvs" / ".making").glob("*"))
    assert len(list((engine / "venvs").glob("*/.kaos-ready"))) == 2


def test_with_and_without_a_shell_it_is_the_same_environment(tmp_path: Path) -> None:
    engine = tmp_path / "engine"
    dockerfile = START + "ENV A=b\nRUN pip install --no-cache-dir -r r.txt\n"
    source = bundle(tmp_path, dockerfile, {"r.txt": "-r s.txt\n", "s.txt": "tiny\n"})
    make(source, "kaos/w:1", engine)
    build(source, engine, "kaos/w:2")
    assert config(engine, "kaos/w:1")["venv"] == config(engine, "kaos/w:2")["venv"]


@pytest.mark.parametrize(
    ("run", "reason"),
    [
        ("echo one; echo two; exit 3", r"exit code 3: two"),
        ("apt-get update && apt-get install -y gcc", "gcc: it installs system packages"),
        ("set -e; apt-get update", "exit code 100: apt-get: it installs system packages"),
        ("pip install tiny==99", "exit code 1: ERROR: No matching distribution found for tiny==99"),
        ("pip install -e .", "exit code 1: ERROR: there is no /app/pyproject.toml"),
        ("pip install -r none.txt", "exit code 1: ERROR: there is no /app/none.txt"),
        ("no-such-program", "exit code 127: .*not found"),
        ('python -c \'import os; [(os.mkdir("d"), os.chdir("d")) for _ in range(300)]\'', "nested"),
    ],
)
def test_a_run_that_fails_is_named_with_its_line(tmp_path: Path, run: str, reason: str) -> None:
    engine = tmp_path / "engine"
    with pytest.raises(BuildError, match=reason) as caught:
        build(bundle(tmp_path, f"{START}RUN {run}\n"), engine)
    assert caught.value.line == 4
    assert not list((engine / "images" / ".building").glob("*/"))
    assert list((engine / "venvs" / ".making").glob("*")) == []


def test_hostile_runs_stay_where_they_are(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    engine, outside = tmp_path / "engine", tmp_path / "outside"
    outside.mkdir()
    talk = (
        "import socket\n"
        "for data in (b'x' * 9999999, b'{}\\n', b'[1]\\n', b'{\"tool\": 1}\\n',"
        ' b\'{"tool":"pip","argv":["install","../x.whl"],"cwd":"/","env":{}}\\n\'):\n'
        "    s = socket.socket(socket.AF_UNIX); s.connect('/run/kaos/socket')\n"
        "    try: s.sendall(data); s.shutdown(socket.SHUT_WR); s.recv(9999)\n"
        "    except OSError: pass\n"
    )
    dockerfile = (
        START
        + "RUN python talk.py; pip install other\n"
        # What is mounted in the next RUN would be made behind these.
        + f"RUN rm -rf /srv /media /var 2>/dev/null; ln -sfn {outside} /srv; ln -sfn {outside} /media; "
        f"ln -sfn {outside} /var; ln -sfn {outside} /app/out; true\n"
        "RUN touch /srv/x || touch /var/x || touch out/x || true\n"
        "RUN python -c 'import other'\n"
    )
    root = build(bundle(tmp_path, dockerfile, {"talk.py": talk}), engine)
    assert list(outside.iterdir()) == []
    assert re.search("Successfully installed other", capfd.readouterr().out)
    assert (root / "app/train").is_file()


def test_what_failed_once_is_asked_for_again(tmp_path: Path, wheels: Path) -> None:
    engine = tmp_path / "engine"
    run = "RUN pip install later || pip install tiny\n"
    build(bundle(tmp_path, START + run), engine)
    first = config(engine, "kaos/w:1")["venv"]
    shutil.copy(wheels / "other-1.0-py3-none-any.whl", wheels / "later-1.0-py3-none-any.whl")
    build(bundle(tmp_path, START + run, {"x": ""}, "s2"), engine, "kaos/w:2")
    assert config(engine, "kaos/w:2")["venv"] != first


def test_concurrent_builders_share_one_install(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    engine = tmp_path / "engine"
    dockerfiles = [f"{START}RUN pip install other\nENV N={number}\n" for number in range(3)]
    sources = [bundle(tmp_path, text, name=f"s{number}") for number, text in enumerate(dockerfiles)]
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda source: build(source, engine, f"kaos/w:{source.name}"), sources))
    assert capfd.readouterr().out.count("Successfully installed other") == 1
    assert len({config(engine, f"kaos/w:{source.name}")["venv"] for source in sources}) == 1


def test_an_environment_that_the_dockerfile_makes_has_its_own_pip(tmp_path: Path) -> None:
    run = (
        "RUN python -m venv --without-pip /opt/venv\nENV PATH=/opt/venv/bin:$PATH\n"
        "RUN pip install --target /opt/venv/lib/python*/site-packages tiny\n"
        "RUN python -c 'import tiny; print(tiny.VALUE)' > value\n"
    )
    root = build(bundle(tmp_path, START + run), tmp_path / "engine")
    assert (root / "app/value").read_text() == "two\n"
    image = images.ImageStore(tmp_path / "engine").get("kaos/w:1")
    path = environment.container({}, image, {}, "/root", str)["PATH"].split(":")
    assert path[:3] == ["/opt/venv/bin", f"{image.venv}/bin", "/usr/local/bin"]


def test_what_the_image_preloads_is_not_loaded_outside(tmp_path: Path) -> None:
    """bubblewrap itself would, before there is a sandbox."""
    mark = tmp_path / "mark"
    source = tmp_path / "evil.c"
    touch = f'fclose(fopen("{mark}", "w"));'
    source.write_text(f"#include <stdio.h>\n__attribute__((constructor)) void f(void) {{ {touch} }}\n")
    library = tmp_path / "evil.so"
    if shutil.which("cc") is None:
        pytest.skip("there is no compiler here")
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, source], check=True)
    build(bundle(tmp_path, START + f"ENV LD_PRELOAD={library}\nRUN true\n"), tmp_path / "engine")
    assert not mark.exists()
