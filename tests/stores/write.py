"""Writes a store as some version of kaos leaves it on the disk, for all later versions to open.

    git worktree add /tmp/kaos-old COMMIT && make -C /tmp/kaos-old install
    python -m tests.stores.write COMMIT --kaos /tmp/kaos-old/.venv/bin/kaos

makes COMMIT.tar.zst (the engine's folder, as `kill -9` left it) and COMMIT.json (all that was to be found in
it) beside this file. Only `kaos` and pachyderm-sdk are used, so that this script drives any version.
Run it once for a version whose store must stay readable; never again for one that is here.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
import tarfile
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import zstandard
from pachyderm_sdk import Client
from pachyderm_sdk.api import metadata, pfs, pps

from tests.stores import inputs
from tests.stores.contents import UNFINISHED, contents
from tests.support.home import Home
from tests.support.waiting import eventually

HERE = Path(__file__).parent
# Environments, images and caches can be made again, and name paths of the machine that made them.
KEPT = ("engine.sqlite", "engine.sqlite-wal", "packs", "objects", "logs", "tmp")
ARCHIVE = pfs.Project(name="archive")


def fill(home: Home, folder: Path) -> None:
    """Put into an empty home one of everything that a store can hold."""
    fill_workspaces(home, folder)
    client = home.client()
    client.pfs.create_project(project=ARCHIVE, description="what a stranger's programs made")
    fill_repos(client)
    fill_history(client)
    fill_pipelines(client)
    fill_metadata(client)
    leave_unfinished(client)


def fill_workspaces(home: Home, folder: Path) -> None:
    source_1 = inputs.write_folder(folder / "v1" / "code", inputs.SOURCE_1)
    source_2 = inputs.write_folder(folder / "v2" / "code", inputs.SOURCE_2)
    data_1 = inputs.write_folder(folder / "v1" / "numbers", inputs.DATA_1)
    data_2 = inputs.write_folder(folder / "v2" / "numbers", inputs.DATA_2)
    grid_1, grid_2, slow = (
        inputs.write_grid(folder / f"{name}.json", grid)
        for name, grid in (("one", inputs.GRID_1), ("two", inputs.GRID_2), ("slow", inputs.GRID_SLOW))
    )
    home.run("workspace", "create", "digits", "-d", "several deploys, one trial that fails")
    home.run("workspace", "set", "digits")
    home.run("train", "deploy", "-s", source_1, "-d", data_1, "-h", grid_1, "--wait", check=False)
    home.run("train", "deploy", "-d", data_2, "--cpu", "1", "--wait", check=False)
    home.run("train", "deploy", "-s", source_2, "-h", grid_2, "--wait")
    home.run("workspace", "create", "stopped", "-d", "a job that was killed")
    home.run("train", "deploy", "-w", "stopped", "-s", source_1, "-d", data_1, "-h", slow)
    eventually(
        lambda: any(t["state"] == "success" for t in home.json("train", "info", "-w", "stopped")["trials"]),
        "the fast trial is done",
    )
    home.run("train", "stop", "-w", "stopped")
    home.run("workspace", "create", "gone")
    home.run("train", "deploy", "-w", "gone", "-s", source_1, "-d", data_1, "--wait", check=False)
    home.run("workspace", "kill", "gone", "-y")


def repo(name: str, project: pfs.Project = ARCHIVE) -> pfs.Repo:
    return pfs.Repo(name=name, type="user", project=project)


def branch(name: str, branch: str = "master", project: pfs.Project = ARCHIVE) -> pfs.Branch:
    return pfs.Branch(repo=repo(name, project), name=branch)


def put(
    client: Client,
    target: pfs.Branch,
    files: Mapping[str, bytes],
    *,
    append: bool = False,
    delete: tuple[str, ...] = (),
    description: str = "",
) -> pfs.Commit:
    """One finished commit."""
    commit = client.pfs.start_commit(branch=target, description=description)
    modify(client, commit, files, append=append, delete=delete)
    client.pfs.finish_commit(commit=commit)
    client.pfs.wait_commit(commit)
    return commit


def modify(
    client: Client,
    commit: pfs.Commit,
    files: Mapping[str, bytes],
    *,
    append: bool = False,
    delete: tuple[str, ...] = (),
) -> None:
    def requests() -> Any:
        yield pfs.ModifyFileRequest(set_commit=commit)
        for path in delete if append else (*delete, *files):
            yield pfs.ModifyFileRequest(delete_file=pfs.DeleteFile(path=path))
        for path, content in files.items():
            yield pfs.ModifyFileRequest(add_file=pfs.AddFile(path=path, raw=content))

    client.pfs.modify_file(requests())


def fill_repos(client: Client) -> None:
    """Edits, branches, directories in chunks; objects in the database, in packs and loose."""
    for name in ("letters", "many", "large", "derived"):
        client.pfs.create_repo(repo=repo(name), description=f"holds {name}")
    letters = branch("letters")
    first = put(client, letters, {"/a": b"alpha\n", "/dir/b": b"beta\n", "/dir/c": b""}, description="first")
    client.pfs.create_branch(
        branch=branch("letters", "prod"), trigger=pfs.Trigger(branch="master", commits=2)
    )
    put(client, letters, {"/a": b"and more\n"}, append=True, description="appended")
    second = put(client, letters, {"/100%": b"per cent", "/a%20b": b"twenty", "/~x y'\"&;": b"odd"})
    put(client, branch("letters", "dev"), {"/dev": b"on a branch of its own"})
    put(client, letters, {"/dir/b": b"overwritten\n"}, delete=("/dir/c", "/a%20b"))
    with client.pfs.commit(branch=letters) as commit:
        commit.copy_file(src=pfs.File(commit=second, path="/dir"), dst="/copied")
    broken = client.pfs.start_commit(branch=letters, description="given up")
    modify(client, broken, {"/half": b"half"})
    client.pfs.finish_commit(commit=broken, error="given up on purpose")
    collision = put(client, letters, {"/a": b"now a file and a directory", "/a/x": b"below"})
    assert client.pfs.inspect_commit(commit=collision).error
    put(client, letters, {})
    client.pfs.create_branch(branch=branch("letters", "release"), head=first)

    many = branch("many")
    put(client, many, {f"/{i:03}": bytes([i % 7]) * 300 for i in range(300)})
    put(client, many, {"/150x": b"one in the middle"})
    put(client, many, {}, delete=tuple(f"/{i:03}" for i in range(80, 290)))
    put(client, branch("many", "dirs"), {f"/{i:03}/f": b"in one of many" for i in range(270)})
    put(client, branch("many", "packed"), {f"/{i}": bytes([i]) * 40_000 for i in range(5)})

    large = branch("large")
    put(client, large, {"/big": bytes(range(256)) * 5000})
    put(client, large, {"/big": b"a little more", "/other": b"\0" * (1 << 20)}, append=True)
    put(client, large, {"/just-below": b"\1" * ((1 << 20) - 1)}, delete=("/other",))

    derived = branch("derived")
    client.pfs.create_branch(branch=derived, provenance=[letters, large])
    head = client.pfs.inspect_branch(branch=derived).head
    modify(client, head, {"/out": b"made from both"})
    client.pfs.finish_commit(commit=head, force=True)
    client.pfs.wait_commit(head)
    # Two commits that stay open, one on top of the other.
    put(client, large, {"/last": b"1"})
    modify(client, client.pfs.inspect_branch(branch=derived).head, {"/out": b"not finished"})
    left_open = client.pfs.start_commit(branch=letters, description="never finished")
    modify(client, left_open, {"/open": b"readable all the same"}, delete=("/100%",))


def fill_history(client: Client) -> None:
    """Commits that were folded into others, dropped, deleted with their repo."""
    client.pfs.create_repo(repo=repo("history"))
    commits = [put(client, branch("history"), {f"/{i}": b"%d" % i}) for i in range(5)]
    client.pfs.squash_commit_set(commit_set=pfs.CommitSet(id=commits[1].id))
    client.pfs.drop_commit_set(commit_set=pfs.CommitSet(id=commits[4].id))
    client.pfs.create_repo(repo=repo("deleted"))
    put(client, branch("deleted"), {"/x": b"is gone"})
    client.pfs.delete_repo(repo=repo("deleted"))
    client.pfs.create_repo(repo=repo("empty"), description="nothing in it")


def create_pipeline(
    client: Client, name: str, source: pfs.Repo, script: str, update: bool = False, **more: Any
) -> pps.Pipeline:
    pipeline = pps.Pipeline(name=name, project=source.project)
    client.pps.create_pipeline(
        pipeline=pipeline,
        transform=pps.Transform(
            cmd=["sh"], stdin=["set -e", 'OUT="${PACH_PFS:-/pfs}/out"', *script.splitlines()]
        ),
        input=pps.Input(
            pfs=pps.PfsInput(project=source.project.name, repo=source.name, glob="/*", name="in")
        ),
        update=update,
        datum_tries=1,
        **more,
    )
    return pipeline


def await_job(client: Client, pipeline: pps.Pipeline) -> pps.JobState:
    job = next(client.pps.list_job(pipeline=pipeline, history=-1, number=1)).job
    return client.pps.inspect_job(job=job, wait=True).state


COPY = 'echo "copying $in"\ncp -r "$in" "$OUT"'


def fill_pipelines(client: Client) -> None:
    """Versions, jobs that succeeded and failed, a stopped pipeline, one that was deleted."""
    points = repo("points")
    client.pfs.create_repo(repo=points)
    put(client, branch("points"), {"/p1": b"1", "/p2": b"2"})
    client.pps.set_project_defaults(
        project=ARCHIVE, project_defaults_json='{"createPipelineRequest": {"description": "by default"}}'
    )
    copy = create_pipeline(client, "copy", points, COPY, description="copies its input")
    assert await_job(client, copy) == pps.JobState.JOB_SUCCESS
    put(client, branch("points"), {"/p3": b"3"}, delete=("/p1",))
    assert await_job(client, copy) == pps.JobState.JOB_SUCCESS
    create_pipeline(
        client, "copy", points, COPY + '\necho again > "$OUT/again-$(basename "$in")"', update=True
    )
    assert await_job(client, copy) == pps.JobState.JOB_SUCCESS
    fails = create_pipeline(client, "fails", points, COPY + "\n! grep -q 3 $in")
    assert await_job(client, fails) == pps.JobState.JOB_FAILURE
    halted = create_pipeline(client, "halted", points, COPY, output_branch="made")
    await_job(client, halted)
    client.pps.stop_pipeline(pipeline=halted)
    removed = create_pipeline(client, "removed", points, COPY)
    await_job(client, removed)
    client.pps.delete_pipeline(pipeline=removed, keep_repo=True)
    put(client, branch("points"), {"/p4": b"4"})
    assert await_job(client, copy) == pps.JobState.JOB_SUCCESS
    assert await_job(client, fails) == pps.JobState.JOB_FAILURE


def fill_metadata(client: Client) -> None:
    note = metadata.EditReplace(replacement={"owner": "somebody", "note": "Größe 数据"})
    commit = client.pfs.inspect_branch(branch=branch("large")).head
    picker = pfs.CommitPicker(
        id=pfs.CommitPickerCommitByGlobalId(repo=repo("large").as_picker(), id=commit.id)
    )
    copy = pps.PipelinePicker(
        name=pps.PipelinePickerPipelineName(project=pfs.ProjectPicker(name=ARCHIVE.name), name="copy")
    )
    client.metadata.edit_metadata(
        edits=[
            metadata.Edit(project=pfs.ProjectPicker(name=ARCHIVE.name), replace=note),
            metadata.Edit(repo=repo("letters").as_picker(), replace=note),
            metadata.Edit(branch=branch("letters", "dev").as_picker(), replace=note),
            metadata.Edit(commit=picker, replace=note),
            metadata.Edit(pipeline=copy, replace=note),
        ]
    )


def leave_unfinished(client: Client) -> None:
    """A job that is in the middle of its work, one that waits for a commit, and a transaction."""
    project = pfs.Project(name=UNFINISHED)
    client.pfs.create_project(project=project)
    ready, late, target = (repo(name, project) for name in ("ready", "late", "target"))
    for one in (ready, late, target):
        client.pfs.create_repo(repo=one)
    put(client, branch("ready", project=project), {"/r": b"ready"})
    # Sleeps in the one run that is interrupted; whoever runs it again does so later.
    nap = f"test $(date +%s) -gt {int(time.time()) + 60} || sleep 600\n"
    interrupted = create_pipeline(client, "interrupted", ready, nap + COPY)
    eventually(
        lambda: (
            client.pps.list_job(pipeline=interrupted, history=-1).__next__().state == pps.JobState.JOB_RUNNING
        ),
        "the job that will be interrupted runs",
    )
    waiting = client.pfs.start_commit(branch=branch("late", project=project))
    modify(client, waiting, {"/l": b"late"})
    create_pipeline(client, "waits", late, COPY)
    client.transaction.start_transaction()
    client.pfs.start_commit(branch=branch("target", project=project), description="in a transaction")
    client.transaction_id = None


def pack(home: Path, target: Path) -> None:
    """A tar that tells nothing of who made it."""
    raw = io.BytesIO()
    with tarfile.open(fileobj=raw, mode="w", format=tarfile.PAX_FORMAT) as tar:

        def anonymous(info: tarfile.TarInfo) -> tarfile.TarInfo:
            info.uid = info.gid = 0
            info.uname = info.gname = ""
            info.mtime = int(info.mtime)
            return info

        for name in KEPT:
            if (home / "engine" / name).exists():
                tar.add(home / "engine" / name, f"engine/{name}", filter=anonymous)
    level = zstandard.ZstdCompressionParameters.from_level(22, window_log=25)
    target.write_bytes(zstandard.ZstdCompressor(compression_params=level).compress(raw.getvalue()))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("version", help="name of the files to make: the commit of that kaos")
    parser.add_argument("--kaos", type=Path, required=True, help="its command line")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        home = Home(
            folder / "home",
            env={"KAOS_ENGINE_CPUS": "2"},
            kaos=args.kaos,
        )
        try:
            fill(home, folder / "inputs")
            found = contents(home)
            home.kill("engine")
            pack(home.path, HERE / f"{args.version}.tar.zst")
        finally:
            home.down()
    text = json.dumps(found, indent=1, sort_keys=True, ensure_ascii=False)
    (HERE / f"{args.version}.json").write_text(text + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
