"""The datums of a job: what its inputs' globs list in the commits that the job reads."""

from __future__ import annotations

from collections.abc import Iterator

from kaos_backend.engine.errors import EngineError
from kaos_backend.engine.jobs.db.lifecycle import output_commit
from kaos_backend.engine.jobs.db.rows import JobKey
from kaos_backend.engine.jobs.spec.plan import Datum, Match, plan
from kaos_backend.engine.jobs.spec.spec import PfsInput, Spec
from kaos_backend.engine.store.model import Commit, CommitKey, RepoKey
from kaos_backend.engine.store.store import Store
from kaos_backend.engine.store.trees.glob import match_glob


def datums_of(store: Store, spec: Spec, job: JobKey) -> list[Datum]:
    """The datums of `job`, whose pipeline's `spec` has an input, in the order in which they are to run.

    Raises:
        DataLoss: a listing that a glob has to read is damaged.
    """
    upstream = {key.repo: key for key in store.inspect_commit(output_commit(job)).provenance}
    commits: dict[CommitKey, Commit] = {}

    def matches(pfs: PfsInput) -> tuple[str, Iterator[Match]]:
        key = upstream[RepoKey(pfs.project, pfs.repo, pfs.repo_type)]
        if key not in commits:
            commits[key] = store.inspect_commit(key)
        keyed = bool(pfs.join_on or pfs.group_by)
        return key.id, (
            Match(e.path, e.hash, e.size_bytes, _captures(pfs.glob, e.path) if keyed else ())
            for e in store.glob(commits[key].root, pfs.glob)
        )

    assert spec.input is not None
    return plan(spec.input, matches, spec.salt)


def _captures(pattern: str, path: str) -> tuple[str, ...]:
    found = match_glob(pattern, path)
    if found is None:
        raise EngineError(f"glob {pattern} listed {path} but does not match it")
    return found
