"""Ticks of cron inputs: empty files in the input's repo, named by the time. Reference: section 16."""

from __future__ import annotations

from datetime import UTC, datetime

from kaos_backend.engine import cronspec
from kaos_backend.engine.errors import Unknown
from kaos_backend.engine.jobs.spec.spec import CronInput
from kaos_backend.engine.store.model import USER_REPO, BranchKey, RepoKey
from kaos_backend.engine.store.reads import Reads
from kaos_backend.engine.store.store import Txn
from kaos_backend.engine.store.trees.upload import Upload

_MOST_MISSED = 10_000


def branch_of(cron: CronInput) -> BranchKey:
    return BranchKey(RepoKey(cron.project, cron.repo, USER_REPO), "master")


def moment(us: int) -> datetime:
    return datetime.fromtimestamp(us / 1e6, UTC)


def latest(reads: Reads, cron: CronInput) -> datetime:
    """The tick that the next one comes after: the newest in the repo, or the input's start."""
    branch = reads.find_branch(branch_of(cron))
    newest = (
        datetime.fromisoformat(cron.start).astimezone(UTC) if cron.start else datetime.min.replace(tzinfo=UTC)
    )
    if branch is None:
        return newest
    names = [entry.path.strip("/") for entry in reads.list_dir(reads.inspect_commit(branch.head).root, "/")]
    for name in sorted(names, reverse=True):
        try:
            tick = datetime.fromisoformat(name)
        except ValueError:
            continue  # somebody else's file
        if tick.tzinfo is not None:
            return tick.astimezone(UTC)
    return newest


def tick(txn: Txn, cron: CronInput, at: datetime, upload: Upload) -> None:
    """Commit the tick of a moment (whole seconds count), in place of all earlier ones with `overwrite`."""
    commit = txn.start_commit(branch_of(cron))
    if cron.overwrite:
        upload.delete("/", "")
    upload.add(f"/{at.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}", "", b"")
    upload.seal()
    txn.apply(commit, upload)
    txn.finish_commit(commit)


def check_missed(reads: Reads, cron: CronInput, now: datetime) -> None:
    """Raise Unknown for an input with more ticks to make up than anybody can have meant."""
    schedule, at = cronspec.parse(cron.spec), latest(reads, cron)
    for _ in range(_MOST_MISSED):
        following = schedule(at)
        if following is None or following > now:
            return
        at = following
    raise Unknown(
        f'cron input "{cron.name}" would make up for more than {_MOST_MISSED} ticks, each with a job, since'
        f" {latest(reads, cron):%Y-%m-%d %H:%M}: choose a later start"
    )
