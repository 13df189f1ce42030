"""True names for trials, stored names for the store: `kaos_formats.stored`, applied to inputs and outputs.

A folder at the top of a repo (a bundle, a model) may have a map of names that PFS cannot hold. Inputs are
laid out under the true ones, and an output folder that needs a map gets one.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator

from kaos_backend.engine.errors import NotFound, Unknown
from kaos_backend.engine.store.model import FileEntry
from kaos_backend.engine.store.store import NewFile, Store
from kaos_backend.engine.workers.port import Output, OutputFile
from kaos_formats.paths import UNSAFE, shown
from kaos_formats.stored import MAP_FILE, MAX_MAP_BYTES, StoredNames, TrueNames, parse_map, stored_names

Place = Callable[[str], str | None]
"""The path in a tree → the path on disk; None for what is not laid out."""


def place_of_inputs(store: Store, root: bytes, path: str) -> Place | None:
    """Where the files at `path` of a tree go, if a folder there has a map; None when all go where they are.

    What is below a folder of the top level is delivered by its stored name, and so it stays.
    """
    above, _, name = path.strip("/").rpartition("/")
    if above:
        return None
    folders = [f"/{name}/"] if name else [e.path for e in store.list_dir(root, "/") if e.kind == "dir"]
    maps = {folder: found for folder in folders if (found := _map_of(store, root, folder)) is not None}
    if not maps:
        return None

    def place(path: str) -> str | None:
        folder = path[: path.index("/", 1) + 1] if "/" in path[1:] else ""
        names = maps.get(folder)
        if names is None:
            return path
        below = path.removeprefix(folder)
        return None if below == MAP_FILE else folder + names.path(below)

    return place


def _map_of(store: Store, root: bytes, folder: str) -> TrueNames | None:
    try:
        entry = store.stat(root, folder + MAP_FILE)
    except NotFound:
        return None
    if entry.kind != "file" or entry.size_bytes > MAX_MAP_BYTES:
        return None
    return parse_map(b"".join(store.read_file(entry)), folder.strip("/"))


def new_files(output: Output, by_reference: Callable[[OutputFile], FileEntry | None]) -> Iterator[NewFile]:
    """An output's files for the store, and the maps of its folders; `by_reference`: what is stored already.

    Raises:
        Unknown: as `Output.files`; or a name is no UTF-8.
    """
    names: dict[str, StoredNames] | None = None
    for file in output.files():
        path = file.path
        if names is None and is_odd(path):
            names = _names_of(output)
        if names:
            _, folder, *below = path.split("/", 2)
            if below and folder in names:
                path = f"/{folder}/{names[folder].path(below[0])}"
        yield NewFile(path, by_reference(file) or file.data)
    for folder, chosen in (names or {}).items():
        if (text := chosen.map_text(folder)) is not None:
            yield NewFile(f"/{folder}/{MAP_FILE}", io.BytesIO(text))


def is_odd(path: str) -> bool:
    """Whether a path may be stored, or laid out, under another one."""
    return UNSAFE.search(path) is not None or f"/{MAP_FILE}/" in f"{path}/"


def _names_of(output: Output) -> dict[str, StoredNames]:
    """The folders of an output that need a map, all their files being known."""
    below: dict[str, list[str]] = {}
    for file in output.files():
        _, folder, *rest = file.path.split("/", 2)
        if rest:
            _refuse_no_utf8(file.path)
            # A folder of the top level is named by the training script, and only PFS' names will do.
            if not UNSAFE.search(folder):
                below.setdefault(folder, []).append(rest[0])
    return {folder: found for folder, paths in below.items() if (found := stored_names(paths)) is not None}


def _refuse_no_utf8(path: str) -> None:
    try:
        path.encode()
    except UnicodeEncodeError:
        raise Unknown(f"{shown(path)}: the name is no UTF-8, and such a name cannot be kept") from None
