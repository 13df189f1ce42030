"""Inputs: which datums they make."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import pytest
from pachyderm_sdk.api import pfs, pps

from tests.parity.pachd import UNKNOWN, Pachd, eventually, file, is_set, paths, refused

pytestmark = pytest.mark.workers("waits for jobs")

# Writes what a datum was given to a file named by it.
SHOW = "n=; for f in ${PACH_PFS:-/pfs}/[abc]/*; do [ -e $f ] && n=$n-$(basename $f); done; echo > $OUT/x$n"


def datums(pachd: Pachd, node: pps.Input) -> set[tuple[str, ...]]:
    """What each datum of an input consists of: the paths of its files."""
    infos = pachd.client.pps.list_datum(input=node)
    return {tuple(one.file.path for one in info.data) for info in infos}


def shown(pachd: Pachd, node: pps.Input) -> set[str]:
    """What each datum saw when it ran."""
    pachd.succeeded(pachd.pipeline("p", SHOW, node))
    return {path.removeprefix("/x-") for path in pachd.files(pachd.commit("p"))}


def test_one_datum_a_match(pachd: Pachd) -> None:
    """§11.2: files and directories; no match, no datum."""
    pachd.repo("a", {"/1": b"", "/d/2": b"", "/d/3": b""})
    assert datums(pachd, pachd.input("a", "/*")) == {("/1",), ("/d/",)}
    assert datums(pachd, pachd.input("a", "/d/*")) == {("/d/2",), ("/d/3",)}
    assert datums(pachd, pachd.input("a", "/none*")) == set()


def test_the_whole_commit(pachd: Pachd) -> None:
    """§11.2: `/` is one datum, none when the commit is empty."""
    pachd.repo("a", {"/1": b""})
    pachd.repo("b")
    pachd.client.pfs.create_branch(branch=pachd.branch("b"))
    assert datums(pachd, pachd.input("a", "/")) == {("/",)}
    assert datums(pachd, pachd.input("b", "/")) == set()


def test_a_cross(pachd: Pachd) -> None:
    """§11.2: the product; nothing as soon as one side has nothing."""
    pachd.repo("a", {"/1": b"", "/2": b""})
    pachd.repo("b", {"/x": b"", "/y": b""})
    assert shown(pachd, pachd.cross({"a": "/*", "b": "/*"})) == {"1-x", "1-y", "2-x", "2-y"}
    assert datums(pachd, pachd.cross({"a": "/*", "b": "/none"})) == set()


def test_a_union(pachd: Pachd) -> None:
    """§11.2: one after the other; code sees the child that matched."""
    pachd.repo("a", {"/1": b"", "/2": b""})
    pachd.repo("b", {"/x": b""})
    node = pps.Input(union=[pachd.input("a", "/*"), pachd.input("b", "/*")])
    assert shown(pachd, node) == {"1", "2", "x"}


def test_a_union_collapses_equal_datums(pachd: Pachd) -> None:
    """§11.2: the same file under the same name twice."""
    pachd.repo("a", {"/1": b"", "/2": b""})
    node = pps.Input(union=[pachd.input("a", "/*", name="c"), pachd.input("a", "/1", name="c")])
    assert shown(pachd, node) == {"1", "2"}


def test_a_cross_in_a_union(pachd: Pachd) -> None:
    """§11.1: nodes nest."""
    pachd.repo("a", {"/1": b""})
    pachd.repo("b", {"/x": b"", "/y": b""})
    node = pps.Input(union=[pachd.cross({"a": "/*", "b": "/*"}), pachd.input("b", "/y", name="c")])
    assert shown(pachd, node) == {"1-x", "1-y", "y"}


def test_a_join(pachd: Pachd) -> None:
    """§11.2: by key; tuples that lack a child are dropped."""
    pachd.repo("a", {"/1.a": b"", "/2.a": b""})
    pachd.repo("b", {"/2.b": b"", "/3.b": b""})
    node = pps.Input(
        join=[pachd.input("a", "/(*).a", join_on="$1"), pachd.input("b", "/(*).b", join_on="$1")]
    )
    assert shown(pachd, node) == {"2.a-2.b"}


def test_an_outer_join(pachd: Pachd) -> None:
    """§11.2: members with outer_join are delivered alone, too."""
    pachd.repo("a", {"/1.a": b"", "/2.a": b""})
    pachd.repo("b", {"/2.b": b"", "/3.b": b""})
    node = pps.Input(
        join=[
            pachd.input("a", "/(*).a", join_on="$1", outer_join=True),
            pachd.input("b", "/(*).b", join_on="$1"),
        ]
    )
    assert shown(pachd, node) == {"2.a-2.b", "1.a"}


def test_a_group(pachd: Pachd) -> None:
    """§11.2: all that have a key are one datum."""
    pachd.repo("a", {"/x-1": b"", "/x-2": b"", "/y-1": b""})
    node = pps.Input(group=[pachd.input("a", "/(*)-*", group_by="$1")])
    assert shown(pachd, node) == {"x-1-x-2", "y-1"}


def test_a_group_of_two_repos(pachd: Pachd) -> None:
    """§11.2: a child may be absent."""
    pachd.repo("a", {"/x-1": b"", "/y-1": b""})
    pachd.repo("b", {"/x-2": b"", "/z-2": b""})
    node = pps.Input(
        group=[pachd.input("a", "/(*)-*", group_by="$1"), pachd.input("b", "/(*)-*", group_by="$1")]
    )
    assert shown(pachd, node) == {"x-1-x-2", "y-1", "z-2"}


def test_code_is_told_the_key(pachd: Pachd) -> None:
    """§13: PACH_DATUM_<name>_JOIN_ON and _GROUP_BY."""
    pachd.repo("a", {"/x-1": b""})
    node = pps.Input(group=[pachd.input("a", "/(*)-*", group_by="$1")])
    pachd.succeeded(pachd.pipeline("p", "echo > $OUT/$PACH_DATUM_a_GROUP_BY", node))
    assert set(pachd.files(pachd.commit("p"))) == {"/x"}


def test_an_input_of_another_name_and_branch(pachd: Pachd) -> None:
    """§11.1: `name` is the folder below /pfs; commits on other branches start no job."""
    pachd.repo("a", {"/old": b""})
    pachd.put("a", {"/1": b""}, branch="dev")
    node = pachd.input("a", "/*", name="c", branch="dev")
    assert shown(pachd, node) == {"1"}
    pachd.put("a", {"/2": b""})
    assert len(pachd.jobs(pps.Pipeline(name="p", project=pachd.project))) == 1


def test_files_that_come_empty(pachd: Pachd) -> None:
    """§13: `empty_files` have the right names and no content."""
    pachd.repo("a", {"/1": b"content"})
    node = pachd.input("a", "/*", empty_files=True)
    pachd.succeeded(pachd.pipeline("p", "wc -c < $a > $OUT/$(basename $a)", node))
    assert int(pachd.read(pachd.commit("p"), "/1")) == 0


def test_a_repo_of_another_project(pachd: Pachd) -> None:
    """§11.1: `project` of an input."""
    other = pachd.new_project()
    repo = pfs.Repo(name="a", project=other)
    pachd.client.pfs.create_repo(repo=repo)
    with pachd.client.pfs.commit(branch=pfs.Branch(repo=repo, name="master")) as commit:
        commit.put_file_from_bytes("/1", b"")
    node = pps.Input(pfs=pps.PfsInput(project=other.name, repo="a", glob="/*"))
    assert shown(pachd, node) == {"1"}
    pachd.client.pps.delete_pipelines(projects=[pachd.project], force=True)


def test_a_side_that_starts_no_jobs(pachd: Pachd) -> None:
    """§11.1: propagation_spec never; the next job reads the head."""
    pachd.repo("a", {"/1": b""})
    pachd.repo("b", {"/x": b""})
    quiet = pachd.input("b", "/*", propagation_spec=pfs.PropagationSpec(never=True))
    pipeline = pachd.pipeline("p", SHOW, pps.Input(cross=[pachd.input("a", "/*"), quiet]))
    pachd.succeeded(pipeline)
    pachd.put("b", {"/y": b""})
    assert len(pachd.jobs(pipeline)) == 1
    pachd.succeeded(pipeline, pachd.put("a", {"/2": b""}).id)
    assert set(pachd.files(pachd.commit("p"))) == {"/x-1-x", "/x-1-y", "/x-2-x", "/x-2-y"}


def test_the_meta_repo_of_a_pipeline_as_an_input(pachd: Pachd) -> None:
    """§11.1: repo_type."""
    pachd.repo("a", {"/1": b""})
    pachd.succeeded(pachd.pipeline("q", "echo 1 > $OUT/f", {"a": "/*"}))
    node = pachd.input("q", "/", name="c", repo_type="meta")
    pachd.succeeded(pachd.pipeline("p", "cat $c/meta/*/meta > $OUT/seen", node))
    assert b'"name":"a"' in pachd.read(pachd.commit("p"), "/seen").replace(b" ", b"")


def test_a_trigger_in_an_input(pachd: Pachd) -> None:
    """§11.1: a branch of its own moves with the trigger, and only then a job starts."""
    pachd.repo("a", {"/1": b""})
    node = pachd.input("a", "/*", trigger=pfs.Trigger(size="10B"))
    pipeline = pachd.pipeline("p", SHOW, node)
    before = len(pachd.jobs(pipeline))
    pachd.put("a", {"/2": b"1"})
    assert len(pachd.jobs(pipeline)) == before
    big = pachd.put("a", {"/3": bytes(11)})
    eventually(lambda: len(pachd.jobs(pipeline)) == before + 1, "the trigger fires")
    pachd.succeeded(pipeline)
    info = pachd.client.pps.inspect_pipeline(pipeline=pipeline, details=True)
    branch = info.details.input.pfs.branch
    assert branch.startswith("p-trigger-")
    assert pachd.head(pachd.branch("a", branch)).id == big.id


def ticks(pachd: Pachd, repo: str = "p_tick") -> list[str]:
    return paths(pachd.client.pfs.list_file(file=file(pachd.commit(repo), "/")))


def cron(spec: str, **more: object) -> pps.Input:
    return pps.Input(cron=pps.CronInput(name="tick", spec=spec, **more))


def test_a_cron_input(pachd: Pachd) -> None:
    """§16 and §11.1: a repo of its own for ticks, which RunCron makes, too; a datum each."""
    show = 'basename $tick > $OUT/$(basename $tick); [ -e "$tick" ]'
    pipeline = pachd.pipeline("p", show, cron("@never"))
    assert pachd.succeeded(pipeline).data_total == 0
    given = pachd.client.pps.inspect_pipeline(pipeline=pipeline, details=True).details.input.cron
    assert (given.repo, given.project, given.spec) == ("p_tick", pachd.project.name, "@never")
    assert is_set(given.start)
    pachd.client.pps.run_cron(pipeline=pipeline)
    eventually(lambda: len(pachd.jobs(pipeline)) == 2, "the tick makes a job")
    job = pachd.succeeded(pipeline, details=True)
    assert (job.data_processed, job.details.input.cron.commit) == (1, job.job.id)
    (tick,) = ticks(pachd)
    assert re.fullmatch(r"/\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", tick)
    assert pachd.files(pachd.commit("p")) == {tick: tick.removeprefix("/").encode() + b"\n"}


def test_ticks_that_were_missed(pachd: Pachd) -> None:
    """§16: from `start` on they are made up one by one, at once."""
    now = datetime.now(UTC).replace(second=0, microsecond=0)
    pipeline = pachd.pipeline("p", "true", cron("* * * * *", start=now - timedelta(minutes=3)))
    eventually(lambda: len(ticks(pachd)) >= 3, "the missed ticks are made")
    pachd.client.pps.stop_pipeline(pipeline=pipeline)
    expected = [f"/{now - timedelta(minutes=ago):%Y-%m-%dT%H:%M:%SZ}" for ago in (2, 1, 0)]
    assert ticks(pachd)[:3] == expected
    assert len(pachd.jobs(pipeline)) >= 4


def test_ticks_that_replace_each_other(pachd: Pachd) -> None:
    """§16: overwrite."""
    now = datetime.now(UTC).replace(second=0, microsecond=0)
    node = cron("* * * * *", overwrite=True, start=now - timedelta(minutes=3))
    pipeline = pachd.pipeline("p", "true", node)
    last = f"/{now:%Y-%m-%dT%H:%M:%SZ}"
    eventually(lambda: ticks(pachd) and ticks(pachd)[-1] >= last, "the missed ticks are made")
    pachd.client.pps.stop_pipeline(pipeline=pipeline)
    assert len(ticks(pachd)) == 1


def test_a_cron_beside_files(pachd: Pachd) -> None:
    """§11.1: it nests as others do."""
    pachd.repo("a", {"/1": b""})
    pipeline = pachd.pipeline("p", "true", pps.Input(cross=[pachd.input("a", "/*"), cron("@never")]))
    assert pachd.succeeded(pipeline).data_total == 0
    pachd.client.pps.run_cron(pipeline=pipeline)
    eventually(lambda: len(pachd.jobs(pipeline)) == 2, "the tick makes a job")
    assert pachd.succeeded(pipeline).data_total == 1


def test_a_cron_goes_with_its_pipeline(pachd: Pachd) -> None:
    """§14: DeletePipeline removes the repo of its ticks."""
    pipeline = pachd.pipeline("p", "true", cron("@never"))
    assert pachd.client.pfs.repo_exists(pachd.named("p_tick"))
    pachd.client.pps.delete_pipeline(pipeline=pipeline)
    assert not pachd.client.pfs.repo_exists(pachd.named("p_tick"))


@pytest.mark.parametrize("spec", ["", "every day", "* * * *"])
def test_what_is_no_cron_spec(pachd: Pachd, spec: str) -> None:
    """§11.1 and §5.3: the texts are those of robfig's parser."""
    with refused(UNKNOWN, "cron"):
        pachd.pipeline("p", "true", cron(spec))


def test_datums_of_a_cron(pachd: Pachd) -> None:
    """§14: ListDatum of an input refuses it, as there are none before the pipeline."""
    with refused(UNKNOWN, "cron input"):
        list(pachd.client.pps.list_datum(input=cron("@never")))


def test_a_lazy_input(pachd: Pachd) -> None:
    """§13: lazy files can be read once from their beginning to their end."""
    pachd.repo("a", {"/1": b"one", "/2": b"two"})
    pachd.succeeded(pachd.pipeline("p", 'cat "$a" > $OUT/$(basename $a)', pachd.input("a", "/*", lazy=True)))
    assert pachd.files(pachd.commit("p")) == {"/1": b"one", "/2": b"two"}
