"""Staging commits: where a bundle is put before it is deployed.

A staged bundle is a finished commit on ``staging-<bundle id>-<owner>`` that holds the complete content; its
commit's description names it. Nothing depends on such a branch, so nothing runs because of it. While a bundle
comes the commit is open; when it breaks off it stays so, and keeps what has come until the rest does, or
until recovery finds it too old.

Whoever calls holds the lock of the bundle (``upload_key``).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple

from kaos_backend import errors
from kaos_backend.domain.descriptions import Description, parse
from kaos_backend.domain.models import AddFile, Commit, FileOp, StartCommit
from kaos_backend.domain.uploads import Layout
from kaos_backend.pachd.port import Pachd
from kaos_backend.services import inputs
from kaos_backend.services.arrivals import ElsewhereArrival
from kaos_backend.services.batches import Batches, BrokenOff, Step
from kaos_formats import names

# What is larger is sent as a stream.
_AT_ONCE = 5000
_AT_ONCE_BYTES = 8 << 20

_log = logging.getLogger(__name__)


def upload_key(workspace: str, kind: str, bundle_id: str) -> tuple[str, ...]:
    """Key of the lock that is held while this bundle is being stored, deployed from or discarded."""
    return ("upload", workspace, kind, bundle_id)


@dataclass(frozen=True, slots=True)
class Opened:
    """A bundle's open commit. ``is_begun``: an earlier upload has left something in it."""

    id: str
    is_begun: bool


class Arrived(NamedTuple):
    """Hashes of contents that are there, and how many bytes there are of those that broke off within."""

    stored: Set[str]
    begun: Mapping[str, int]


class Staging:
    """The staging commits of one backend (``owner``) among those that share a pachd."""

    def __init__(self, pachd: Pachd, owner: str, now: Callable[[], datetime]) -> None:
        self._pachd = pachd
        self.owner = owner
        self._now = now
        # When uploads broke off that this process has seen; Pachyderm tells only when they began.
        self._broken_off: dict[str, datetime] = {}
        # What was last told of an open commit: a client asks of a large bundle many times in a row.
        self._told: tuple[str, Arrived] | None = None

    def finished(self, workspace: str, kind: str, bundle_id: str) -> tuple[Commit, Description] | None:
        """The finished staging commit of a bundle, if there is one."""
        found = self._head(workspace, kind, bundle_id)
        return None if found is None or found[0].open else found

    def begun(self, workspace: str, kind: str, bundle_id: str) -> str | None:
        """The open commit of a bundle that broke off, if there is one."""
        found = self._head(workspace, kind, bundle_id)
        return found[0].id if found is not None and found[0].open else None

    def arrived(self, workspace: str, kind: str, bundle_id: str) -> ElsewhereArrival | None:
        """What of a bundle is in its open commit, where only that tells; None without one, or without the
        whole of its tree.
        """
        commit_id = self.begun(workspace, kind, bundle_id)
        if commit_id is None:
            return None
        try:
            tree = inputs.read_tree(self._pachd, workspace, kind, commit_id, bundle_id)
        except (errors.NotFound, errors.InvalidBundle):
            return None
        if tree.id != bundle_id:
            return None
        return ElsewhereArrival(self._pachd, workspace, kind, commit_id, Layout(tree), is_begun=True)

    def last_used(self, commit: Commit) -> datetime | None:
        """When a bundle was complete, or broke off, as far as that is known."""
        return commit.finished or self._broken_off.get(commit.id, commit.started)

    def told(self, workspace: str, kind: str, bundle_id: str) -> Arrived:
        """The contents of what has ``arrived``."""
        commit_id = self.begun(workspace, kind, bundle_id)
        if commit_id is None:
            return Arrived(frozenset(), {})
        known = self._told
        if known is None or known[0] != commit_id:
            arrived = self.arrived(workspace, kind, bundle_id)
            told = Arrived(frozenset(), {}) if arrived is None else Arrived(arrived.stored, arrived.begun)
            self._told = known = commit_id, told
        return known[1]

    def open(self, workspace: str, about: Description, kind: str, *, anew: bool = False) -> Opened:
        """The open commit for a bundle: the one that it has, unless it is to be made ``anew``."""
        self._told = None
        branch = names.staging_branch(about.id, self.owner)
        repo = self._pachd.ensure_repos(workspace, [kind]).get(kind)
        if repo is not None and branch in repo.branches:
            begun = None if anew else self.begun(workspace, kind, about.id)
            if begun is not None:
                return Opened(begun, is_begun=True)
            # A damaged one. Nobody else can be writing it: the branch is ours, and the lock is held.
            self.discard(workspace, kind, about.id)
        return Opened(self._pachd.start_commit(workspace, kind, branch, about.to_json()), is_begun=False)

    def make(self, workspace: str, kind: str, about: Description, operations: Sequence[FileOp]) -> None:
        """Puts a bundle of which the embedded engine has all content into a commit of its own, or leaves
        nothing at all.
        """
        size = sum(len(one.data) for one in operations if isinstance(one, AddFile))
        if size > _AT_ONCE_BYTES or len(operations) > _AT_ONCE:
            opened = self.open(workspace, about, kind, anew=True)
            self.fill(workspace, kind, about, opened, operations, lambda: False)
            return
        self.discard(workspace, kind, about.id)
        commit = StartCommit(kind, names.staging_branch(about.id, self.owner), about.to_json(), operations)
        self._pachd.transact_at_once(workspace, [kind], [commit], [], [])

    def fill(
        self,
        workspace: str,
        kind: str,
        about: Description,
        opened: Opened,
        steps: Iterable[Step],
        worth_keeping: Callable[[], bool],
        *,
        whole_files: bool = True,
    ) -> None:
        """Puts a bundle into its commit and finishes that, or leaves nothing at all; if what sends it is
        gone, or the engine, what has come if that is ``worth_keeping``.
        """
        try:
            for batch in Batches(steps, whole_files=whole_files):
                self._pachd.modify(workspace, kind, opened.id, batch)
            # It may have begun under another name.
            finished = self._pachd.finish_commit(workspace, kind, opened.id, description=about.to_json())
            if finished.error:
                raise errors.InvalidBundle(f"Pachyderm refused the bundle: {finished.error}")
            self._broken_off.pop(opened.id, None)
        except (BrokenOff, errors.EngineUnavailable, errors.StaleOffset):
            if not opened.is_begun and not worth_keeping():
                self.discard_quietly(workspace, kind, about.id, opened.id)
            else:
                self._broken_off[opened.id] = self._now()
            raise
        except BaseException:
            self.discard_quietly(workspace, kind, about.id, opened.id)
            raise
        finally:
            self._told = None

    def discard(self, workspace: str, kind: str, bundle_id: str, commit_id: str | None = None) -> None:
        """Removes a staging branch and its commit; what is not there is no error.

        The branch goes first: dropping the head of a branch would leave a new empty commit in its place.
        """
        branch = names.staging_branch(bundle_id, self.owner)
        if commit_id is None:
            try:
                commit_id = self._pachd.commit(workspace, kind, branch).id
            except errors.NotFound:
                return
        self._broken_off.pop(commit_id, None)
        self._pachd.drop_branch(workspace, kind, branch)
        self._pachd.drop_commit_set(commit_id)

    def discard_quietly(
        self, workspace: str, kind: str, bundle_id: str, commit_id: str | None = None
    ) -> None:
        """As ``discard``, after an error that matters more; what cannot be removed now, recovery removes."""
        try:
            self.discard(workspace, kind, bundle_id, commit_id)
        except errors.KaosError as error:
            _log.warning("left for recovery: staging of %s %s: %s", kind, bundle_id, error.message)

    def _head(self, workspace: str, kind: str, bundle_id: str) -> tuple[Commit, Description] | None:
        if not names.is_id(bundle_id):
            return None
        try:
            commit = self._pachd.commit(workspace, kind, names.staging_branch(bundle_id, self.owner))
        except errors.NotFound:
            return None
        description = parse(commit.description)
        if description is None or commit.error or description.id != bundle_id:
            return None
        return commit, description
