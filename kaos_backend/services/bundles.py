"""Bundles: what is current, what is staged, and storing an upload on a staging branch."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Container, Iterable, Mapping
from datetime import datetime
from itertools import chain

from kaos_backend import errors
from kaos_backend.domain.changedlist import Base
from kaos_backend.domain.descriptions import Description, rfc3339
from kaos_backend.domain.models import Commit, DeleteFile, FileOp
from kaos_backend.domain.uploads import Layout
from kaos_backend.pachd.port import Pachd
from kaos_backend.services import contents, inputs, presenters, views
from kaos_backend.services.arrivals import Arrival, ElsewhereArrival, EmbeddedArrival
from kaos_backend.services.locks import KeyedLocks
from kaos_backend.services.staging import Staging, upload_key
from kaos_backend.services.upload import BundleUpload
from kaos_formats import names
from kaos_formats.manifest import MANIFEST_FILE
from kaos_formats.names import BundleKind
from kaos_formats.shape import find_shape
from kaos_formats.tar import Source

PATIENCE_S = 5.0
# A connection that is dead without anybody having been told is cut off before that (``Limits.stall_s``), and
# what it brought put in its place.
DEAD_S = 35.0


class Bundles:
    """Reading and staging of bundles."""

    def __init__(self, pachd: Pachd, owner: str, locks: KeyedLocks, now: Callable[[], datetime]) -> None:
        """``owner``: this backend among those that share a pachd; each stages on branches of its own."""
        self._pachd = pachd
        self.staging = Staging(pachd, owner, now)
        self._locks = locks
        self._now = now

    def get(self, workspace: str, kind: BundleKind, bundle_id: str) -> views.Bundle:
        """The current bundle (``head``), or that of an id which is current or staged. Raises NoBundle, also
        for an id of which something is known to be damaged, so that it is sent again.
        """
        inputs.require_workspace(self._pachd, workspace)
        head = inputs.head(self._pachd, workspace, kind)
        if head is not None and bundle_id in ("head", head.description.id):
            found = presenters.bundle(head.description)
            if found is not None and (bundle_id == "head" or self._whole(workspace, kind, head.commit)):
                return found
        if bundle_id != "head":
            staged = self.staged(workspace, kind, bundle_id)
            found = presenters.bundle(staged[1]) if staged else None
            if staged is not None and found is not None and self._whole(workspace, kind, staged[0]):
                return found
        raise no_bundle(workspace, kind, "" if bundle_id == "head" else bundle_id)

    def head_tree(self, workspace: str, kind: BundleKind) -> bytes:
        """The tree text of the current bundle, which an upload may build on. Raises NoBundle, also for one of
        which something is known to be damaged.
        """
        inputs.require_workspace(self._pachd, workspace)
        head = inputs.head(self._pachd, workspace, kind)
        if head is None or not self._whole(workspace, kind, head.commit):
            raise no_bundle(workspace, kind, "")
        try:
            tree = inputs.read_tree(self._pachd, workspace, kind, head.commit.id, head.description.id)
        except errors.DataLoss as error:
            raise no_bundle(workspace, kind, "") from error
        return tree.text

    def base(self, workspace: str, kind: BundleKind, bundle_id: str) -> Base:
        """The current bundle, for one that is built on it. Raises StaleBase for another one, and for one of
        which something is known to be damaged.
        """
        head = inputs.head(self._pachd, workspace, kind)
        if head is None or head.description.id != bundle_id or not self._whole(workspace, kind, head.commit):
            raise _stale(workspace, kind, bundle_id, head)
        path = names.tree_path(bundle_id)
        try:
            tree = b"".join(self._pachd.read_file(workspace, kind, head.commit.id, path))
        except (errors.DataLoss, errors.NotFound) as error:
            # Damaged, or its deploy is being carried out right now.
            raise _stale(workspace, kind, bundle_id, head) from error
        return Base(kind, head.commit.id, bundle_id, tree)

    def _whole(self, workspace: str, kind: str, commit: Commit) -> bool:
        """Whether nothing of a bundle's commit is known to be damaged."""
        return not self._pachd.damaged(workspace, kind, commit.id, "/")

    def staged(self, workspace: str, kind: BundleKind, bundle_id: str) -> tuple[Commit, Description] | None:
        """The finished staging commit of a bundle, if there is one."""
        return self.staging.finished(workspace, kind, bundle_id)

    def content(self, workspace: str, kind: BundleKind, bundle_id: str) -> inputs.Head | None:
        """The commit with a bundle that is staged, or was deployed last, and what that says of itself."""
        staged = self.staged(workspace, kind, bundle_id)
        if staged is not None:
            return inputs.Head(*staged)
        head = inputs.head(self._pachd, workspace, kind)
        return head if head is not None and head.description.id == bundle_id else None

    def put(
        self, workspace: str, kind: BundleKind, bundle_id: str, name: str, base_id: str | None, body: Source
    ) -> views.UploadedBundle:
        """Stores an uploaded bundle on its staging branch; one that is there already is not read again.

        Raises InvalidBundle (then nothing of it is left), BrokenOff (then what has come is), InvalidName,
        StaleBase, NoSuchWorkspace.
        """
        names.check_bundle_name(name)
        if not names.is_id(bundle_id):
            raise errors.InvalidBundle(f"{bundle_id!r} is no bundle id", hint="32 hexadecimal digits")
        inputs.require_workspace(self._pachd, workspace)
        with self._locks.hold(*upload_key(workspace, kind, bundle_id)):
            head = inputs.head(self._pachd, workspace, kind)
            known = self._known(workspace, kind, bundle_id, head)
            if known is not None:
                return _uploaded(known, 0, 0, known=True)
            base = head if base_id is not None else None
            if base_id is not None and (head is None or head.description.id != base_id):
                raise _stale(workspace, kind, base_id, head)
            if base is not None and not self._whole(workspace, kind, base.commit):
                raise _stale(workspace, kind, base.description.id, base)
            stored = self._store(workspace, kind, bundle_id, name, base, body)
            if head is not None and head.description.id == bundle_id:
                # It was sent to heal the current one, whose content is whole again by now.
                self.staging.discard_quietly(workspace, kind, bundle_id)
            return stored

    def missing(
        self, workspace: str, kind: BundleKind, bundle_id: str, sizes: Mapping[str, int]
    ) -> views.Missing:
        """Of contents (BLAKE3 in hex → size in bytes) those that must be sent for a bundle, and how much of
        them is there. Raises NoSuchWorkspace.
        """
        inputs.require_workspace(self._pachd, workspace)
        # What breaks off right now is put in its place first.
        with (
            contextlib.suppress(errors.Busy),
            self._locks.hold(*upload_key(workspace, kind, bundle_id), patience_s=DEAD_S),
        ):
            pass
        stored: Container[str]
        begun: Mapping[str, int]
        try:
            stored, begun = contents.find(self._pachd, sizes)
        except errors.NeedsEmbeddedEngine:
            stored, begun = self.staging.told(workspace, kind, bundle_id)
        missing = [name for name in sizes if name not in stored]
        return views.Missing(missing=missing, begun={one: begun[one] for one in missing if one in begun})

    def forget(self, workspace: str, kind: BundleKind, bundle_id: str) -> None:
        """Removes a bundle that was sent and not deployed; one that is not there is no error.

        Raises Busy while it is being sent.
        """
        if names.is_id(bundle_id):
            key = upload_key(workspace, kind, bundle_id)
            # Whoever sends it may be slow; a call that waits for an upload would hold a place of other calls.
            with self._locks.hold(*key, patience_s=PATIENCE_S):
                self.staging.discard(workspace, kind, bundle_id)

    def _known(
        self, workspace: str, kind: BundleKind, bundle_id: str, head: inputs.Head | None
    ) -> Description | None:
        if (
            head is not None
            and head.description.id == bundle_id
            and self._whole(workspace, kind, head.commit)
        ):
            return head.description
        staged = self.staged(workspace, kind, bundle_id)
        if staged is not None and self._whole(workspace, kind, staged[0]):
            return staged[1]
        return None

    def _store(
        self,
        workspace: str,
        kind: BundleKind,
        bundle_id: str,
        name: str,
        base: inputs.Head | None,
        body: Source,
    ) -> views.UploadedBundle:
        upload = BundleUpload(body, bundle_id)
        tree = upload.tree()
        check_files(kind, lambda: {entry.path: entry.mode == "755" for entry in tree.entries})
        base_commit = base.commit.id if base is not None else ""
        try:
            base_tree = (
                inputs.read_tree(self._pachd, workspace, kind, base_commit, base.description.id)
                if base
                else None
            )
        except errors.DataLoss as error:
            raise _stale(workspace, kind, base.description.id if base else "", base) from error
        except errors.NotFound as error:
            # Its deploy is being carried out right now: there, but without content yet.
            raise _stale(workspace, kind, base.description.id if base else "", base) from error
        is_embedded = contents.can_be_found(self._pachd)
        about = self._about(bundle_id, name, tree.files, tree.size_bytes)
        # Elsewhere it tells what has come, if it has the tree.
        arrived = None if is_embedded else self.staging.arrived(workspace, kind, bundle_id)
        opened = self.staging.open(workspace, about, kind, anew=arrived is None and not is_embedded)
        arrival: Arrival
        if is_embedded:
            arrival = EmbeddedArrival(self._pachd)
        else:
            arrival = arrived or ElsewhereArrival(
                self._pachd, workspace, kind, opened.id, Layout(tree), is_begun=False
            )
        steps = upload.operations(kind, tree, base_tree, base_commit, opened.id, arrival)
        if is_embedded and opened.is_begun:
            # Its contents are found like all that is stored, and come again with the rest, in one change.
            folder, path = names.bundle_dir(bundle_id), names.tree_path(bundle_id)
            steps = chain((DeleteFile(f"{folder}/"), DeleteFile(path)), steps)

        def worth_keeping() -> bool:
            # Of a large file the embedded engine keeps what has come by itself.
            return upload.new_files > 0 or (not is_embedded and upload.new_bytes > 0)

        self.staging.fill(
            workspace, kind, about, opened, steps, worth_keeping, whole_files=arrival.whole_files
        )
        return _uploaded(about, upload.new_files, upload.new_bytes)

    def stage(
        self,
        workspace: str,
        kind: BundleKind,
        bundle_id: str,
        name: str,
        files: int,
        size_bytes: int,
        new: tuple[int, int],
        operations: Iterable[FileOp],
    ) -> views.UploadedBundle:
        """Stages a bundle of which the embedded engine has all content; one that is there already is left as
        it is.

        ``new``: files, and their bytes, that have come for it. Raises InvalidBundle (then nothing of it is
        left).
        """
        with self._locks.hold(*upload_key(workspace, kind, bundle_id)):
            head = inputs.head(self._pachd, workspace, kind)
            known = self._known(workspace, kind, bundle_id, head)
            if known is not None:
                # What has come has healed it.
                return _uploaded(known, *new, known=True)
            about = self._about(bundle_id, name, files, size_bytes)
            self.staging.make(workspace, kind, about, list(operations))
            if head is not None and head.description.id == bundle_id:
                # It was sent to heal the current one, whose content is whole again by now.
                self.staging.discard_quietly(workspace, kind, bundle_id)
            return _uploaded(about, *new)

    def _about(self, bundle_id: str, name: str, files: int, size_bytes: int) -> Description:
        return Description(
            kind="staging",
            id=bundle_id,
            name=name,
            created=rfc3339(self._now()) or "",
            files=files,
            bytes=size_bytes,
            owner=self.staging.owner,
        )


def check_files(kind: BundleKind, listed: Callable[[], Mapping[str, bool]]) -> None:
    """Refuses what builder or fetcher could make nothing of, by path → is it executable. Raises
    InvalidBundle.
    """
    if kind == names.SOURCE:
        _check_source(listed())
    elif kind == names.MANIFEST and list(listed()) != [MANIFEST_FILE]:
        raise errors.InvalidBundle(f"a manifest is one file, {MANIFEST_FILE}")


def _check_source(executable: Mapping[str, bool]) -> None:
    shape = find_shape(executable)
    if not executable[shape.train]:
        raise errors.InvalidBundle(f"{shape.train} is not executable", hint=f"chmod +x {shape.train}")


def no_bundle(workspace: str, kind: str, bundle_id: str) -> errors.NoBundle:
    if not bundle_id:
        what, hint = f"no {kind} bundle", f"deploy one with -{kind[0]}"
    elif names.is_id(bundle_id):
        what, hint = f"no {kind} bundle {bundle_id!r}", f"deploy one with -{kind[0]}"
    else:
        what = f"no {kind} bundle {bundle_id!r}"
        hint = "a bundle is named by its id of 32 hexadecimal digits; leave it out to keep the current one"
    return errors.NoBundle(f"{what} in workspace {workspace!r}", hint=hint, kind=kind, id=bundle_id)


def _stale(workspace: str, kind: str, base_id: str, head: inputs.Head | None) -> errors.StaleBase:
    return errors.StaleBase(
        f"{kind} bundle {base_id[:12]} is not current in workspace {workspace!r}",
        hint="deploy again",
        head=head.description.id if head else None,
    )


def _uploaded(d: Description, new_files: int, new_bytes: int, *, known: bool = False) -> views.UploadedBundle:
    return views.UploadedBundle(
        id=d.id, name=d.name, author=d.author, created=d.created, files=d.files, bytes=d.bytes,
        new_files=new_files, new_bytes=new_bytes, known=known,
    )  # fmt: skip
