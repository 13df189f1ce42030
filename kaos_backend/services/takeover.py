"""Bundles that are handed over: the engine takes the files from the client's folder on the same machine.

The client lists them; the engine reads what it has not got and answers with the hashes, from which the tree
and the bundle's id follow.
"""

from __future__ import annotations

from collections.abc import Iterator

from kaos_backend.domain.changedlist import ChangedList
from kaos_backend.domain.filelist import HASH_BYTES, FileList
from kaos_backend.domain.models import AddFile, CopyFile, FileOp
from kaos_backend.pachd.port import IngestCall, Pachd
from kaos_backend.services import inputs
from kaos_backend.services.bundles import Bundles, check_files
from kaos_backend.services.contents import FILE_SETS
from kaos_backend.services.lines import TakenLine
from kaos_formats import names
from kaos_formats.handover import Folder
from kaos_formats.names import BundleKind
from kaos_formats.tree import id_of_pieces

_HASHES_A_LINE = 10_000


class Takeover:
    """Starts takings; holds no state."""

    def __init__(self, pachd: Pachd, bundles: Bundles) -> None:
        self._pachd = pachd
        self._bundles = bundles

    def take(
        self,
        workspace: str,
        kind: BundleKind,
        name: str,
        folder: Folder,
        lines: list[bytes],
        base_id: str | None = None,
    ) -> Taking:
        """``lines`` list the files, see ``kaos_formats.handover``; with a base, how they differ from it.
        They are let go one by one.

        Raises NoSuchWorkspace, InvalidName, InvalidBundle and StaleBase before anything is read.
        """
        names.check_bundle_name(name)
        inputs.require_workspace(self._pachd, workspace)
        if base_id is None:
            whole = FileList.of(lines)
            check_files(
                kind, lambda: {file.path: file.executable for block in whole.blocks() for file in block}
            )
            call = self._pachd.ingest(folder, whole.stored())
            return Taking(self._bundles, call, workspace, kind, name, whole)
        changed = ChangedList.of(self._bundles.base(workspace, kind, base_id), lines)
        check_files(kind, changed.executable)
        call = self._pachd.ingest(folder, changed.stored())
        return Taking(self._bundles, call, workspace, kind, name, changed)


class Taking:
    """Iterate over it once for the lines of the answer. ``close`` from any thread gives up; then nothing is
    kept.
    """

    def __init__(
        self,
        bundles: Bundles,
        call: IngestCall,
        workspace: str,
        kind: BundleKind,
        name: str,
        listed: FileList | ChangedList,
    ) -> None:
        self._bundles = bundles
        self._call = call
        self._workspace = workspace
        self._kind = kind
        self._name = name
        self._listed = listed

    def __iter__(self) -> Iterator[TakenLine]:
        """Raises NoHandover, Changed, and what staging a bundle raises."""
        growing = self._listed.growing()
        file_set = ""
        new = (0, 0)
        for told in self._call:
            found = growing.add(told.hashes)
            if told.read_bytes or found:
                yield TakenLine(read_bytes=told.read_bytes, hashes=found.hex())
            if told.file_set:
                file_set, new = told.file_set, (told.new_files, told.new_bytes)
        rest, tree = growing.finish()
        bundle_id = id_of_pieces(tree)
        stored = self._bundles.stage(
            self._workspace,
            self._kind,
            bundle_id,
            self._name,
            self._listed.files,
            self._listed.size_bytes,
            new,
            self._changes(bundle_id, tree, file_set),
        )
        self._call.used(file_set)
        for start in range(0, len(rest), _HASHES_A_LINE * HASH_BYTES):
            yield TakenLine(hashes=rest[start : start + _HASHES_A_LINE * HASH_BYTES].hex())
        yield TakenLine(bundle=stored, end=True)

    def _changes(self, bundle_id: str, tree: list[bytes], file_set: str) -> Iterator[FileOp]:
        for piece in tree:
            yield AddFile(names.tree_path(bundle_id), piece)
        taken = CopyFile(f"{names.bundle_dir(bundle_id)}/", FILE_SETS, file_set, "/")
        yield from self._listed.operations(bundle_id, taken)

    def close(self) -> None:
        """Idempotent."""
        self._call.close()
