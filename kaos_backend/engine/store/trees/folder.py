"""Files of a folder of this machine on their way into a tree, in the order of their paths: see `taking`."""

from __future__ import annotations

from array import array
from collections.abc import Generator, Iterator
from typing import NamedTuple

from kaos_backend.engine.errors import InvalidArgument, NoHandover
from kaos_backend.engine.store.bytes.objects import LOOSE_BYTES
from kaos_backend.engine.store.names import file_paths
from kaos_backend.engine.store.trees.build import TreeBuilder
from kaos_backend.engine.store.trees.files import Staged
from kaos_backend.engine.store.trees.taking import Taker
from kaos_backend.engine.store.trees.upload import Upload
from kaos_formats.handover import File, Folder

HASH_BYTES = 32


class Taken(NamedTuple):
    """What has been taken since the last time: bytes that were read, and hashes of listed files, in their
    order.
    """

    read_bytes: int
    hashes: bytes


class FolderUpload:
    """Use as a context manager: take every part of the list in order, then `seal`, and adopt what that
    returns.
    """

    def __init__(self, upload: Upload, folder: Folder) -> None:
        self._upload = upload
        self._batch = upload.batch
        self._builder = TreeBuilder()
        # Of what was read; there may be a million.
        self._hashes = bytearray()
        self._sizes = array("Q")
        try:
            self._taker = Taker(upload.batch, folder.open())
        except OSError as error:
            raise NoHandover(f"{folder.path} cannot be read here: {error.strerror or error}") from error

    def __enter__(self) -> FolderUpload:
        return self

    def __exit__(self, *_: object) -> None:
        self._taker.close()

    def take(self, files: list[File]) -> Iterator[Taken]:
        """Take files in. The hashes of all of `files` come with the last item.

        Raises:
            Changed: a file is not, or not any more, the one that was listed.
            NoHandover: a file cannot be read by this process.
            DiskFull: the disk is full.
        """
        try:
            given = [bytes.fromhex(file.hash) for file in files]
        except ValueError as error:
            raise InvalidArgument(f"the list of files has a broken hash: {error}") from error
        there = self._batch.known([one for one in given if one])
        # In the place of each file that is not there yet.
        hashes: list[bytes] = [hash_ if hash_ in there else b"" for hash_ in given]
        missing = [file for file, hash_ in zip(files, hashes, strict=True) if not hash_]
        small = [file for file in missing if file.size < LOOSE_BYTES]
        found = iter(self._taker.small(small))
        read = sum([file.size for file in small])
        if len(small) < len(missing) and read:
            yield Taken(read, b"")
            read = 0
        for at, file in enumerate(files):
            if not hashes[at]:
                hashes[at] = next(found) if file.size < LOOSE_BYTES else (yield from self._large(file))
                self._hashes += hashes[at]
        self._sizes.extend([file.size for file in missing])
        sizes = [file.size for file in files]
        self._builder.put(file_paths([file.path for file in files]), hashes, sizes)
        yield Taken(read, b"".join(hashes))

    def seal(self) -> Staged:
        """Make all of it durable."""
        root = self._builder.finish()
        self._upload.seal()
        return Staged(self._upload, root, self._builder.rows)

    def new(self) -> tuple[int, int]:
        """Of what was sealed: how many files have content that was not there, and their bytes."""
        files = size = 0
        for at, one in enumerate(self._sizes):
            if self._batch.brings(bytes(self._hashes[HASH_BYTES * at : HASH_BYTES * (at + 1)])):
                files, size = files + 1, size + one
        return files, size

    def _large(self, file: File) -> Generator[Taken, None, bytes]:
        taking = self._taker.large(file)
        while True:
            try:
                yield Taken(next(taking), b"")
            except StopIteration as done:
                hash_: bytes = done.value
                return hash_
