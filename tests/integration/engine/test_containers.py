"""What trials once did to the process runtime, tried in containers: links out of the output folder, a link
in the place of that folder, and trees too deep to walk or to remove by recursion.

Each is tried on every runtime by itself in `tests/unit/engine/workers/test_contract_outputs.py`; here with
the whole engine above, which has to end the job, start again, and go on.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import docker
import pytest
from pachyderm_sdk.api import pfs, pps

from kaos_backend.engine.workers.docker.runtime import HOME_LABEL, WORKER_LABEL, DockerRuntime
from kaos_backend.engine.workers.port import Runtime
from kaos_formats.images import claim, home_label
from tests.integration.engine.conftest import Engine
from tests.support.docker_engine import add_files, base_image, engine_or_skip
from tests.support.waiting import eventually

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
def api() -> Iterator[docker.APIClient]:
    with engine_or_skip() as api:
        yield api


@pytest.fixture
def image(api: docker.APIClient) -> str:
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


@pytest.fixture
def own(api: docker.APIClient, image: str) -> Iterator[Callable[[str, Path], str]]:
    """Makes images of kaos' own, each claimed by a home; what is left of them is removed in the end."""
    run = uuid.uuid4().hex

    def make(name: str, home: Path) -> str:
        made = f"kaos/{run}:{name}"
        add_files(api, made, image, {}, f"LABEL made={run}-{name}")
        claimed_as(api, made, home)
        return made

    yield make
    for one in api.images(f"*/{run}"):
        api.remove_image(one["Id"], force=True)


def claimed_as(api: docker.APIClient, image: str, home: Path) -> str:
    """The name by which a home claims the image from now on."""
    name = claim(image, home_label(home))
    api.tag(image, *name.rsplit(":", 1))
    return name


def test_a_project_takes_its_containers_and_images_along_and_nothing_of_others(
    own: Callable[[str, Path], str],
    engine_on: Callable[[Callable[[], Runtime]], Engine],
    api: docker.APIClient,
    tmp_path: Path,
) -> None:
    home = tmp_path / "engine"
    engine = engine_on(partial(DockerRuntime, home, os.environ))
    gone, kept, lent = (own(name, home) for name in ("gone", "kept", "lent"))
    others = claimed_as(api, lent, tmp_path / "elsewhere")

    def pipeline(project: str, name: str, image: str, glob: str) -> None:
        engine.client.pps.create_pipeline(
            pipeline=pps.Pipeline(name=name, project=pfs.Project(name=project)),
            transform=pps.Transform(cmd=["sleep", "600"], image=image),
            input=pps.Input(pfs=pps.PfsInput(repo="data", project=project, glob=glob)),
        )

    for project, image in {"gone": gone, "kept": kept}.items():
        engine.client.pfs.create_project(project=pfs.Project(name=project))
        repo = pfs.Repo(name="data", type="user", project=pfs.Project(name=project))
        engine.client.pfs.create_repo(repo=repo)
        with engine.client.pfs.commit(branch=pfs.Branch(repo=repo, name="master")) as commit:
            commit.put_file_from_bytes("/f", project.encode())
        pipeline(project, "p", image, "/")
    pipeline("gone", "none", lent, "/none")

    def running() -> dict[str, str]:
        """The containers of this engine by whose worker they are."""
        found = api.containers(filters={"label": f"{HOME_LABEL}={home_label(home)}"})
        return {one["Labels"][WORKER_LABEL].partition("-")[0]: one["Id"] for one in found}

    def names() -> set[str]:
        return {name for one in api.images(f"*/{gone[5:37]}") for name in one["RepoTags"]}

    eventually(lambda: running().keys() == {"gone", "kept"}, "a trial of each runs")
    assert engine.handle is not None
    upkeep, before, container = engine.handle.jobs.upkeep, names(), running()["kept"]
    projects = upkeep.disk_use().projects
    assert projects["gone"].images > projects["kept"].images > 0
    engine.client.pps.delete_pipelines(projects=[pfs.Project(name="gone")], force=True)
    engine.client.pfs.delete_project(project=pfs.Project(name="gone"), force=True)

    mine = {gone, *(claim(one, home_label(home)) for one in (gone, lent))}
    eventually(lambda: names() == before - mine, "its images go, once its containers have")
    assert {lent, others, kept} < before - mine
    assert running() == {"kept": container}

    def given_back() -> bool:
        use = upkeep.disk_use()
        can_go = use.unneeded
        return use.projects["kept"] == projects["kept"] and not (
            can_go.images or can_go.inputs or can_go.logs
        )

    eventually(given_back, "the space comes back")
