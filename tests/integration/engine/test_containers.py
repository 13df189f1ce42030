"""What trials once did to the process runtime, tried in containers: links out of the output folder, a link
in the place of that folder, and trees too deep to walk or to remove by recursion.

Each is tried on every runtime by itself in `tests/unit/engine/workers/test_contract_outputs.py`; here with
the whole engine above, which has to end the job, start again, and go on.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
from pachyderm_sdk.api import pfs, pps

from kaos_backend.engine.workers.docker.runtime import DockerRuntime
from kaos_backend.engine.workers.port import Runtime
from tests.integration.engine.conftest import Engine
from tests.support.docker_engine import base_image, engine_or_skip

NEST = 'python3 -c \'import os; [(os.mkdir("d"), os.chdir("d")) for _ in range(1100)]\''
# By datum: what it does in its output folder, and with what words that is refused ("": it is not).
TRICKS = {
    "token": ("ln -s {home}/token l", "output refused: /l is a link to "),
    "store": ("ln -s {home}/engine/engine.sqlite l", "output refused: /l is a link to "),
    "profile": ("ln -s /root/.bashrc l", "output refused: /l is a link to "),
    "folder": ("mkdir m; ln -s /etc m/l", "output refused: /m/l is a link to /etc"),
    "swapped": ("cd /; mv /pfs/out /pfs/o || rm -rf /pfs/out; ln -s /etc /pfs/out", "exit code "),
    "deep": (NEST, "output refused: /d/d/"),
    "long": (NEST.replace('"d"', '"d" * 200'), "output refused: /ddd"),
    "litter": ("cd /tmp; " + NEST, ""),
    "input": ("ln -s $a copy", ""),
}


@pytest.fixture
def image() -> str:
    with engine_or_skip() as api:
        return base_image(api)


def test_links_out_and_trees_too_deep_cost_a_containers_trial_only(
    engine_on: Callable[[Callable[[], Runtime]], Engine], image: str, tmp_path: Path
) -> None:
    engine = engine_on(partial(DockerRuntime, tmp_path / "engine", os.environ))
    (tmp_path / "token").write_text("secret")
    scripts = {f"/{name}": trick.format(home=tmp_path).encode() for name, (trick, _) in TRICKS.items()}
    engine.repo("a", scripts)
    engine.client.pps.create_pipeline(
        pipeline=pps.Pipeline(name="p", project=pfs.Project(name="default")),
        transform=pps.Transform(cmd=["sh", "-ec", 'cd /pfs/out; . "$a" 2>&1'], err_cmd=["true"], image=image),
        input=pps.Input(pfs=pps.PfsInput(repo="a", glob="/*")),
        datum_tries=1,
    )
    job = engine.wait("p")
    assert job.state == pps.JobState.JOB_SUCCESS
    for info in engine.client.pps.list_datum(job=job.job):
        (name,) = (Path(file.file.path).name for file in info.data)
        refusal = TRICKS[name][1]
        logs = engine.client.pps.get_logs(job=job.job, datum=info.datum)
        said = [line.message for line in logs if not line.user]
        assert (info.state == pps.DatumState.SUCCESS) == (refusal == ""), (name, said)
        assert any(f"datum failed: {refusal}" in line for line in said) or not refusal, (name, said)
    # A link to an input is what it leads to, as on Pachyderm; nothing else of anybody's came along.
    assert engine.files("p") == {"/copy": scripts["/input"]}

    again = engine_on(partial(DockerRuntime, tmp_path / "engine", os.environ))
    scratch = tmp_path / "engine" / "scratch"
    assert [path for kind in scratch.iterdir() for path in kind.iterdir()] == []
    assert again.files("p") == {"/copy": scripts["/input"]}
