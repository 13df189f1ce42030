"""The values the store speaks in. All of them are immutable; none knows SQL, files or protobuf."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Self

import msgspec

from kaos_backend.engine.errors import CommitForgotten

DEFAULT_PROJECT = "default"
USER_REPO = "user"
SPEC_REPO = "spec"
META_REPO = "meta"
DEFAULT_TAG = "default"

Origin = Literal["USER", "AUTO", "FSCK"]


@dataclass(frozen=True, slots=True)
class RepoKey:
    """A repo's address. `type` is ``user``, ``spec`` or ``meta``."""

    project: str
    name: str
    type: str = USER_REPO

    def __str__(self) -> str:
        suffix = "" if self.type == USER_REPO else f".{self.type}"
        return f"{self.project}/{self.name}{suffix}"

    @property
    def spec(self) -> RepoKey:
        """The repo with the specs of the pipeline whose output this one is."""
        return RepoKey(self.project, self.name, SPEC_REPO)


@dataclass(frozen=True, slots=True)
class BranchKey:
    repo: RepoKey
    name: str

    def __str__(self) -> str:
        return f"{self.repo}@{self.name}"


@dataclass(frozen=True, slots=True)
class CommitKey:
    """A commit's address; `id` is also the id of its commit set."""

    repo: RepoKey
    id: str

    def __str__(self) -> str:
        return f"{self.repo}@{self.id}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Of the text that it was written as."""
        repo, _, id_ = text.rpartition("@")
        project, _, name = repo.partition("/")
        name, _, type_ = name.partition(".")
        return cls(RepoKey(project, name, type_ or USER_REPO), id_)


@dataclass(frozen=True, slots=True)
class Project:
    name: str
    description: str
    created_us: int
    metadata: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Repo:
    key: RepoKey
    description: str
    created_us: int
    metadata: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Branch:
    """A named head. `provenance` is direct, in the order given; `never` are those that start nothing."""

    key: BranchKey
    head: CommitKey
    provenance: tuple[BranchKey, ...]
    created_us: int
    updated_us: int
    metadata: Mapping[str, str] = field(default_factory=dict)
    trigger: bytes | None = None
    never: frozenset[BranchKey] = frozenset()

    @property
    def takes_commits(self) -> bool:
        """Whether clients may commit to it: nothing else makes its commits. So may the code of a spout, which
        depends on nothing but the spec of its own pipeline.
        """
        return not self.provenance or [source.repo for source in self.provenance] == [self.key.repo.spec]


@dataclass(frozen=True, slots=True)
class Commit:
    """One version of a repo. Times are UTC microseconds; `tree` is what its files are, None for none at all.

    Open: `finishing_us` is None. Finished: `finished_us` is set; then `error` tells a bad one (``""`` is
    good). `provenance` and `subvenance` are direct. `base_open`: the commit it builds on is still being
    written, so that its own content is not known yet.
    """

    key: CommitKey
    branch: str
    origin: Origin
    description: str
    parent: CommitKey | None
    children: tuple[CommitKey, ...]
    provenance: tuple[CommitKey, ...]
    subvenance: tuple[CommitKey, ...]
    started_us: int
    finishing_us: int | None
    finished_us: int | None
    error: str
    size_bytes: int | None
    tree: bytes | None
    metadata: Mapping[str, str] = field(default_factory=dict)
    updated_us: int = 0
    base_open: bool = False
    forgotten: bool = False

    @property
    def root(self) -> bytes | None:
        """Its tree, to be read.

        Raises:
            Unknown: the commit is forgotten.
        """
        self.require_kept()
        return self.tree

    def require_kept(self) -> None:
        """Unknown when it is forgotten."""
        if self.forgotten:
            raise CommitForgotten(self.key)

    @property
    def finished(self) -> bool:
        return self.finished_us is not None


class FileEntry(msgspec.Struct, frozen=True, gc=False):
    """A file or directory of a tree. Directory paths end in ``/``, the root is ``/``; `hash`: 32 bytes."""

    path: str
    kind: Literal["file", "dir"]
    size_bytes: int
    hash: bytes
    tag: str = ""
    committed_us: int | None = None


@dataclass(frozen=True, slots=True)
class Subtree:
    """What `build_tree` grafts: the file or directory at `path` of the tree `root` (by reference)."""

    root: bytes
    path: str = "/"


@dataclass(frozen=True, slots=True)
class FileSource:
    """A file for `build_tree`, given by its content (small) or by a file on disk."""

    content: bytes | Path
    tag: str = DEFAULT_TAG
