from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from kaos_pipelines.fetch import guard
from kaos_pipelines.fetch.credentials import Credentials
from kaos_pipelines.fetch.fetch import fetch
from kaos_pipelines.fetch.guard import Policy
from kaos_pipelines.fetch.log import FetchLog
from kaos_pipelines.fetch.output import Output
from kaos_pipelines.fetch.settings import Settings

from kaos_formats.manifest import Fetched, parse_manifest, parse_sources
from kaos_formats.tree import Tree, parse_tree
from tests.support.webserver import WebServer, web_server


class Fetching:
    """Fetches with one cache, each into an output of its own; what it waits between tries is next to
    nothing.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.cache = folder / "cache"
        self.out = folder / "out-0"
        self.policy = Policy()
        self.credentials = Credentials()
        self.any_name = False
        self._count = 0

    def __call__(self, *lines: dict[str, object], **settings: object) -> Tree:
        """The tree of what these lines bring."""
        self._count += 1
        self.out = self.folder / f"out-{self._count}"
        manifest = parse_manifest(b"".join(json.dumps(line).encode() + b"\n" for line in lines))
        chosen = Settings(
            self.policy,
            self.cache,
            **{"tries": 3, "backoff_s": 0.001, "silence_s": 5.0, **settings},  # type: ignore[arg-type]
        )
        output = Output(self.out, any_name=self.any_name)
        with guard.enforced(self.policy):
            return asyncio.run(fetch(manifest, output, chosen, self.credentials, FetchLog()))

    def file(self, path: str, tree: Tree) -> bytes:
        return (self.out / tree.id / path).read_bytes()

    def files(self, tree: Tree) -> dict[str, bytes]:
        assert parse_tree((self.out / f"{tree.id}.tree").read_bytes()) == tree
        return {entry.path: self.file(entry.path, tree) for entry in tree.entries}

    def sources(self, tree: Tree) -> list[Fetched]:
        return parse_sources((self.out / f"{tree.id}.sources").read_bytes())


@pytest.fixture
def fetching(tmp_path: Path) -> Fetching:
    return Fetching(tmp_path)


@pytest.fixture
def web() -> Iterator[WebServer]:
    with web_server() as server:
        yield server
