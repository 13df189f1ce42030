"""ModifyFile and CreateFileSet: a stream of changes, received into an upload and applied at its end."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Generator, Iterator
from contextlib import closing

import grpc
from betterproto.lib.google.protobuf import Empty
from pachyderm_sdk.api import pfs

from kaos_backend.engine.errors import CommitFinished, InvalidArgument, Unknown
from kaos_backend.engine.facade import wire
from kaos_backend.engine.facade.convert import branch_form, commit_given, find_commit
from kaos_backend.engine.facade.errors import Cancelled
from kaos_backend.engine.facade.peer import require_same_user
from kaos_backend.engine.facade.pfs.urls import fetch, local_path, shown
from kaos_backend.engine.facade.rpc import Message
from kaos_backend.engine.store.model import BranchKey, CommitKey
from kaos_backend.engine.store.names import FILESETS_REPO
from kaos_backend.engine.store.reads import Reads
from kaos_backend.engine.store.store import Store, Upload
from kaos_backend.engine.store.trees.named import add_named

Fetch = Callable[[str, int], Iterator[bytes]]
"""The content behind a URL, given how many bytes the disk has room for."""


class Modify:
    def __init__(self, store: Store, fetch_url: Fetch = fetch) -> None:
        self._store = store
        self._fetch = fetch_url

    def modify_file(self, messages: Iterator[bytes], context: grpc.ServicerContext) -> Message:
        """Apply a stream to an open commit, or (a branch with a finished head) as a commit of its own."""
        first = next(messages, None)
        number, content = (0, memoryview(b"")) if first is None else wire.modify_arm(first)
        if number != wire.SET_COMMIT:
            raise Unknown("first message must be a commit")
        target = pfs.Commit.FromString(bytes(content))
        del first, content
        # Refuse early what is refused anyway: the upload may be long.
        self._open_commit(self._store, target)
        with self._store.upload() as upload:
            self._receive(messages, upload, context)
            upload.seal()
            with self._store.write() as txn:
                commit = self._open_commit(txn, target)
                if isinstance(commit, CommitKey):
                    txn.apply(commit, upload)
                else:
                    started = txn.start_commit(commit)
                    txn.apply(started, upload)
                    txn.finish_commit(started)
        return Empty()

    def create_file_set(self, messages: Iterator[bytes], context: grpc.ServicerContext) -> Message:
        """Keep a stream as a temporary tree."""
        store = self._store
        with store.upload() as upload:
            self._receive(messages, upload, context)
            upload.seal()
            with store.write() as txn:
                root = txn.edit(None, upload.operations, upload)
            # While the upload still has its lease.
            id_ = store.filesets.add(upload.operations, root)
        return pfs.CreateFileSetResponse(file_set_id=id_)

    @staticmethod
    def _open_commit(reads: Reads, target: pfs.Commit) -> CommitKey | BranchKey:
        """The open commit to write to, or the branch on which to make one for this stream alone."""
        branch = branch_form(target)
        if branch is not None:
            found = reads.find_branch(branch)
            if found is None:
                reads.inspect_repo(branch.repo)
                return branch
            head = reads.inspect_commit(found.head)
            if head.finishing_us is not None:
                if not found.takes_commits:
                    raise Unknown(f"cannot start a commit on an output branch: {branch}")
                return branch
            return head.key
        commit = find_commit(reads, target)
        if commit.finishing_us is not None:
            raise CommitFinished(commit.key)
        return commit.key

    def _receive(self, messages: Iterator[bytes], upload: Upload, context: grpc.ServicerContext) -> None:
        for message in messages:
            self._take(message, upload, context)
            # The next one may be long in coming.
            del message
        # A stream that was broken off must not look like one that ended.
        if not context.is_active():
            raise Cancelled("the call was cancelled")

    def _take(self, message: bytes, upload: Upload, context: grpc.ServicerContext) -> None:
        number, content = wire.modify_arm(message)
        if number == wire.ADD_FILE:
            path, datum, raw, url = wire.add_file(content)
            if url is None:
                upload.add(path, datum, raw or b"")
            else:
                source = pfs.AddFileUrlSource.FromString(url)
                with closing(self._sourced(source, path, datum, upload, context)) as pieces:
                    for _ in pieces:
                        if not context.is_active():
                            raise Cancelled("the call was cancelled")
        elif number == wire.DELETE_FILE:
            upload.delete(*wire.delete_file(content))
        elif number == wire.COPY_FILE:
            self._copy(upload, pfs.CopyFile.FromString(bytes(content)))
        else:
            raise Unknown("cannot set commit: it was set by the first message")

    def _sourced(
        self, source: pfs.AddFileUrlSource, path: str, tag: str, upload: Upload, context: grpc.ServicerContext
    ) -> Generator[object, None, None]:
        """Adds what a URL names; every step is a piece of it."""
        local = local_path(source.url)
        if local is not None:
            require_same_user(context, f"url {shown(source.url)} is refused: files of this machine are read")
            yield from add_named(upload, local, path, tag, source.recursive)
            return
        upload.add(path, tag, b"")
        for piece in self._fetch(source.url, shutil.disk_usage(self._store.root).free):
            yield None
            upload.add(path, tag, piece)

    def _copy(self, upload: Upload, copy: pfs.CopyFile) -> None:
        if not commit_given(copy.src.commit):
            raise InvalidArgument("validate recv: copy_file: src: value is required")
        upload.copy(
            copy.dst, copy.datum, self._source(copy.src.commit), copy.src.path, copy.src.datum, copy.append
        )

    def _source(self, commit: pfs.Commit) -> CommitKey | bytes | None:
        if commit.repo.name == FILESETS_REPO:
            return self._store.filesets.get(commit.id).root
        found = find_commit(self._store, commit)
        if found.base_open:
            raise Unknown(f"base commit {found.parent} for commit {found.key} unfinished")
        return found.key
