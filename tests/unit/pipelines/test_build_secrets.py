"""What a Dockerfile has in its URLs is nobody's business but the build's."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from .conftest import HERE, bundle

SECRET = "s3cret-of-mine"


LEAKS = {
    "index": f"RUN pip install -i https://u:{SECRET}@127.0.0.1:1/simple --retries 0 nothing",
    "token": f"RUN pip install --index-url=https://{SECRET}@127.0.0.1:1/simple --retries 0 nothing",
    "argument": f"ARG WORD={SECRET}\nRUN pip install -i https://u:${{WORD}}@127.0.0.1:1/ --retries 0 nothing",
    "environment": f"ENV PIP_INDEX_URL=https://u:{SECRET}@127.0.0.1:1/\nRUN pip install --retries 0 nothing",
    "requirement": f"RUN pip install --retries 0 'nothing @ https://u:{SECRET}@127.0.0.1:1/nothing-1.0.zip'",
    "git": f"RUN pip install git+https://u:{SECRET}@127.0.0.1:1/nothing.git",
    "refused": f"RUN pip install --frobnicate https://u:{SECRET}@127.0.0.1:1/x",
    "editable": f"RUN pip install -e git+https://u:{SECRET}@127.0.0.1:1/x",
    "program": f"RUN curl https://u:{SECRET}@127.0.0.1:1/x",
    "copy": f"COPY https://u:{SECRET}@127.0.0.1:1/x /x",
    "long": f"RUN pip install {'x' * 30} --index-url https://u:{SECRET}@127.0.0.1:1/simple --frobnicate",
}


def build_process(
    tmp_path: Path, dockerfile: str, files: dict[str, str] | None = None
) -> tuple[int, str, Path]:
    """(exit code, log, folder of the output) of the build pipeline's command."""
    source = bundle(tmp_path, dockerfile, {}, "5" * 32)
    env = {
        **os.environ,
        "PACH_PFS": str(tmp_path / "pfs"),
        "KAOS_SOURCE_ID": source.name,
        "KAOS_IMAGE": "kaos/w:1",
        "KAOS_IMAGE_STORE": str(tmp_path / "engine"),
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    (tmp_path / "pfs" / "out").mkdir(exist_ok=True)
    done = subprocess.run(
        [sys.executable, "-m", "kaos_pipelines.build"], env=env, capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout + done.stderr, tmp_path / "pfs" / "out" / source.name


@pytest.mark.parametrize("leak", LEAKS)
def test_secrets_stay_out_of_the_log_of_a_build_that_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, leak: str
) -> None:
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    code, said, _ = build_process(tmp_path, f"FROM python:{HERE}\nWORKDIR /app\nCOPY . .\n{LEAKS[leak]}\n")
    assert code == 1
    assert "127.0.0.1" in said
    assert SECRET not in said


def test_secrets_stay_out_of_the_output_of_a_build(wheels: Path, tmp_path: Path) -> None:
    dockerfile = (
        f"FROM python:{HERE}\nARG WORD={SECRET}\nWORKDIR /app\nCOPY . .\n"
        "RUN pip install --extra-index-url https://user:$WORD@127.0.0.1:1/simple tiny\n"
        f"RUN pip install --extra-index-url https://user:{SECRET}@127.0.0.1:1/simple other\n"
    )
    code, said, out = build_process(tmp_path, dockerfile)
    assert code == 0, said
    assert SECRET not in said
    text = (out / "image.json").read_text()
    assert SECRET not in text
    assert "ARG WORD=****" in text
    assert "https://****@127.0.0.1:1/simple tiny" in text
    again = build_process(tmp_path, dockerfile)
    assert (again[0], (out / "image.json").read_text()) == (0, text)
