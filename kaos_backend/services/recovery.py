"""After a crash: deploys that were under way are rolled forward, leftovers of uploads are removed.

Everything needed is in Pachyderm: an open input commit's description names the staging commit that has its
content (or the grid itself). Runs when the backend starts, when the engine was started anew, and before the
next request after a deploy that failed half-way. Repeatable at any point. What is kept for a while is looked
through now and then as well.

Other backends may share the Pachyderm. What one of them has begun is its own, by the owner in descriptions
and branch names, until it is so old that nobody will go on with it.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Callable, Iterable
from datetime import datetime, timedelta

from kaos_backend import errors
from kaos_backend.domain.descriptions import Description, parse
from kaos_backend.domain.models import Commit, Repo
from kaos_backend.pachd.port import Pachd
from kaos_backend.services.fill import fill
from kaos_backend.services.locks import KeyedLocks
from kaos_backend.services.staging import Staging, upload_key
from kaos_formats import names

# A bundle that was sent but never deployed is kept this long for the deploy to be tried again.
KEEP_STAGED = timedelta(hours=24)
# A deploy takes seconds; after this nobody goes on with one of another backend's, or of we do not know whose.
KEEP_BEGUN = timedelta(hours=1)
# An orphan of a crash is among the newest commits of its repo: nothing was made after it but by recovery.
LOOK_BACK = 12

_log = logging.getLogger(__name__)


class Recovery:
    """Finishes what a crash interrupted."""

    def __init__(
        self, pachd: Pachd, staging: Staging, locks: KeyedLocks, now: Callable[[], datetime]
    ) -> None:
        self._pachd = pachd
        self._staging = staging
        self._locks = locks
        self._now = now
        self._guard = threading.Lock()
        self._done_generation: int | None = None
        self._dirty: set[str] = set()

    def ensure(self, generation: int) -> None:
        """Recovers all workspaces once per ``generation`` of the engine; concurrent callers wait for the
        one.
        """
        if generation == self._done_generation:
            return
        with self._guard:
            if generation != self._done_generation:
                self.run()
                self._done_generation = generation

    def mark_dirty(self, workspace: str) -> None:
        """Notes that a deploy in this workspace may have stopped half-way."""
        with self._guard:
            self._dirty.add(workspace)

    def recover_if_dirty(self, workspace: str) -> None:
        """Recovers one workspace if a deploy failed in it since the last recovery."""
        if workspace not in self._dirty:
            return
        repos = [repo for repo in self._pachd.repos(workspace) if repo.name in names.INPUT_REPOS]
        self._recover(workspace, repos)
        with self._guard:
            self._dirty.discard(workspace)

    def run(self) -> None:
        """Recovers all workspaces; what goes wrong in one is logged and does not keep the others."""
        dropped = self._pachd.delete_abandoned_transactions(self._staging.owner, self._now() - KEEP_BEGUN)
        if dropped:
            _log.warning("dropped %d unfinished transactions", dropped)
        for workspace, repos in self._by_workspace().items():
            try:
                self._recover(workspace, repos)
            except errors.EngineUnavailable:
                raise
            except errors.KaosError as error:
                _log.error("recovery of workspace %s: %s", workspace, error.message)
                self._dirty.add(workspace)

    def sweep(self) -> None:
        """Removes what was kept and is too old by now, while requests are served; a workspace in which
        something is being deployed has its turn the next time.
        """
        for workspace, repos in self._by_workspace().items():
            with contextlib.suppress(errors.Busy), self._locks.hold("workspace", workspace, patience_s=0):
                for repo in repos:
                    if any(names.parse_staging_branch(branch) for branch in repo.branches):
                        self._sweep_branches(workspace, repo, None)

    def _by_workspace(self) -> dict[str, list[Repo]]:
        found: dict[str, list[Repo]] = {}
        for repo in self._pachd.repos():
            if repo.name in names.INPUT_REPOS:
                found.setdefault(repo.project, []).append(repo)
        return found

    def _recover(self, workspace: str, repos: Iterable[Repo]) -> None:
        with self._locks.hold("workspace", workspace):
            for repo in repos:
                commits = self._pachd.commits(workspace, repo.name, LOOK_BACK)
                for commit in commits:
                    description = parse(commit.description)
                    if description is None or description.kind == "staging" or not commit.open:
                        continue
                    if self._ours(description) or not self._younger(commit, KEEP_BEGUN):
                        self._roll_forward(workspace, repo.name, commit, description)
                self._sweep(workspace, repo, commits)

    def _roll_forward(self, workspace: str, repo: str, commit: Commit, description: Description) -> None:
        if description.staging and not self._has_content(workspace, repo, description):
            _log.error("%s/%s@%s: the uploaded content is gone", workspace, repo, commit.id)
            self._pachd.finish_commit(
                workspace, repo, commit.id, error="the uploaded content is gone; deploy again"
            )
            return
        _log.warning("rolling %s/%s@%s forward", workspace, repo, commit.id)
        fill(self._pachd, workspace, repo, commit.id, description)

    def _has_content(self, workspace: str, repo: str, description: Description) -> bool:
        try:
            staging = self._pachd.commit(workspace, repo, description.staging)
        except errors.NotFound:
            return False
        return staging.id == description.staging and not staging.open and not staging.error

    def _sweep(self, workspace: str, repo: Repo, commits: list[Commit]) -> None:
        """Removes staging commits that nobody will deploy: half-written, deployed and forgotten ones."""
        deployed = next((d.id for c in commits if (d := parse(c.description)) and d.kind != "staging"), None)
        kept = self._sweep_branches(workspace, repo, deployed)
        for commit in commits:
            description = parse(commit.description)
            if description is None or description.kind != "staging" or commit.id in kept:
                continue
            if self._ours(description):
                wanted = self._locks.held(*upload_key(workspace, repo.name, description.id))
            else:
                wanted = self._younger(commit, KEEP_STAGED)
            if not wanted:
                self._pachd.drop_commit_set(commit.id)

    def _sweep_branches(self, workspace: str, repo: Repo, deployed: str | None) -> set[str]:
        """Removes staging branches that nobody wants, with their commits; the ids of commits that stay."""
        kept: set[str] = set()
        for branch in repo.branches:
            staged = names.parse_staging_branch(branch)
            if staged is None:
                continue
            bundle_id, owner = staged
            key = upload_key(workspace, repo.name, bundle_id)
            # One that is being written or deployed right now is wanted.
            with contextlib.suppress(errors.NotFound, errors.Busy), self._locks.hold(*key, patience_s=0):
                head = self._pachd.commit(workspace, repo.name, branch)
                if self._wanted(workspace, repo.name, bundle_id, owner, head, deployed):
                    kept.add(head.id)
                else:
                    # The branch goes first, see ``Staging.discard``.
                    self._pachd.drop_branch(workspace, repo.name, branch)
                    self._pachd.drop_commit_set(head.id)
        return kept

    def _wanted(
        self, workspace: str, repo: str, bundle_id: str, owner: str, head: Commit, deployed: str | None
    ) -> bool:
        """Whether the head of a staging branch may still be deployed, or be gone on with."""
        if owner != self._staging.owner:
            return self._younger(head, KEEP_STAGED)
        if head.error or bundle_id == deployed or not self._younger(head, KEEP_STAGED):
            return False
        return not head.open or self._has_begun(workspace, repo, head, bundle_id)

    def _has_begun(self, workspace: str, repo: str, commit: Commit, bundle_id: str) -> bool:
        """Whether something of a bundle is in its open commit, so that its upload can go on."""
        tree = self._pachd.read_file(workspace, repo, commit.id, names.tree_path(bundle_id))
        try:
            return bool(next(tree, b""))
        except errors.NotFound:
            return False

    def _ours(self, description: Description) -> bool:
        return description.owner in ("", self._staging.owner)

    def _younger(self, commit: Commit, age: timedelta) -> bool:
        since = self._staging.last_used(commit)
        return since is not None and self._now() - since < age
