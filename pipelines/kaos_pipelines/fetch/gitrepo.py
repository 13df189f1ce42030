"""Files and folders of git repositories at a revision: `git+https://host/repository.git#path`, with `rev`.

A revision is fetched without its history into a bare repository of the cache, and blobs are read from there:
no work tree, no filters, no hooks. Servers are asked each time, so that nobody gets what they may not see.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from urllib.parse import unquote

from kaos_formats.manifest import ManifestLine
from kaos_formats.paths import path_problem
from kaos_pipelines.fetch.cache import Said, key_of
from kaos_pipelines.fetch.credentials import Credentials
from kaos_pipelines.fetch.errors import FetchError, Gone, Transient
from kaos_pipelines.fetch.gitcall import GitCalls, clear_locks
from kaos_pipelines.fetch.remote import Answer, Item
from kaos_pipelines.fetch.settings import Settings

_COMMIT = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_LFS = b"version https://git-lfs.github.com/spec/"
_LFS_BYTES = 1024
_PIECE = 1 << 20
_TURN_S = 0.2


class Git:
    """The `Remote` of git. Open until `close`."""

    def __init__(self, settings: Settings, credentials: Credentials, folder: Path | None = None) -> None:
        """`folder`: where repositories are kept; None where nothing but `ask` is called."""
        self._calls = GitCalls(settings, credentials)
        self._folder = folder
        self._repositories: dict[str, _Repository] = {}

    async def close(self) -> None:
        for one in self._repositories.values():
            await one.close()

    def key(self, item: Item) -> str:
        assert item.said is not None
        return key_of("git", item.url.partition("#")[0], item.said.etag)

    async def files(self, number: int, line: ManifestLine) -> list[Item]:
        repository = self._repository(line.url)
        found = await repository.files(line.rev, _inside(line), line.is_folder)
        if line.is_folder:
            start = line.url.partition("#")[0] + "#"
            return [
                Item(number, start + place, line.folder + below, size=said.size, said=said, mode=mode)
                for below, (place, said, mode) in found.items()
            ]
        ((_, said, mode),) = found.values()
        return [Item(number, line.url, line.path, line.sha256, line.size, said, mode)]

    @asynccontextmanager
    async def open(
        self,
        item: Item,
        known: Said | None,
        held: Said,  # noqa: ARG002 - what comes from this disk begins anew
        size: int,  # noqa: ARG002
    ) -> AsyncIterator[Answer]:
        assert item.said is not None
        if known is not None:
            yield Answer(item.said, None)
            return
        async with self._repository(item.url).blob(item.said.etag) as blocks:
            yield Answer(item.said, blocks)

    async def ask(self, line: ManifestLine) -> Said:
        return Said(commit=await resolve(self._calls, _remote(line.url), line.rev))

    def _repository(self, url: str) -> _Repository:
        remote = _remote(url)
        if remote not in self._repositories:
            assert self._folder is not None
            self._repositories[remote] = _Repository(self._calls, remote, self._folder / key_of(remote))
        return self._repositories[remote]


class _Repository:
    def __init__(self, calls: GitCalls, url: str, folder: Path) -> None:
        self._calls, self._url, self._folder = calls, url, folder
        self._fetching, self._reading = asyncio.Lock(), asyncio.Lock()
        self._commits: dict[str, str] = {}
        self._batch: asyncio.subprocess.Process | None = None

    async def close(self) -> None:
        if self._batch is not None:
            process, self._batch = self._batch, None
            with suppress(ProcessLookupError):
                process.kill()
            await process.communicate()

    async def files(self, rev: str, inside: str, is_folder: bool) -> dict[str, tuple[str, Said, str]]:
        """Path below a folder ("" for a file) → (path in the repository, what is known of it, its mode)."""
        commit = await self._commit(rev)
        here = ["--", inside] if inside else []
        listing = await self._git("ls-tree", "-r", "-l", "-z", "--full-tree", commit, *here)
        found: dict[str, tuple[str, Said, str]] = {}
        links: dict[str, str] = {}
        for line in listing.split(b"\0")[:-1]:
            head, _, raw = line.partition(b"\t")
            mode, kind, name, size = head.decode().split()
            path = _decoded(raw)
            below = path.removeprefix(f"{inside}/") if inside and is_folder else path
            if is_folder and inside and below == path:
                raise FetchError(
                    f"{inside} is a file of the repository: give it a path without a slash at its end"
                )
            if not is_folder and path != inside:
                raise FetchError(f"{inside} is a folder of the repository: end the path with a slash")
            if kind == "commit":
                raise FetchError(f"{path} is a submodule: fetch its files with a line of their own")
            if mode == "120000":
                links[path] = below
                continue
            executable = "755" if mode == "100755" else "644"
            found[below] = (path, Said(int(size), name, commit=commit), executable)
        if not found and not links:
            raise Gone(f"there is no {inside or 'file'} in {commit[:12]}")
        return found | await self._linked(commit, links)

    async def _linked(self, commit: str, links: dict[str, str]) -> dict[str, tuple[str, Said, str]]:
        """Symbolic links, as the files that they lead to."""
        if not links:
            return {}
        asked = "".join(f"{commit}:{path}\n" for path in links)
        told = await self._git("cat-file", "--batch-check", "--follow-symlinks", given=asked.encode())
        found: dict[str, tuple[str, Said, str]] = {}
        lines = iter(told.decode("utf-8", "replace").splitlines())
        for path, below in links.items():
            name, kind, size = (*next(lines).split(), "", "")[:3]
            if kind != "blob":
                raise FetchError(f"{path} is a link that leads to no file of the repository")
            found[below] = (path, Said(int(size), name, commit=commit), "644")
        return found

    @asynccontextmanager
    async def blob(self, name: str) -> AsyncIterator[AsyncIterator[bytes]]:
        """The content of an object; one at a time."""
        async with self._reading:
            if self._batch is None:
                self._batch = await self._calls.start("-C", str(self._folder), "cat-file", "--batch")
            process = self._batch
            assert process.stdin is not None
            assert process.stdout is not None
            whole = False
            try:
                process.stdin.write(f"{name}\n".encode())
                header = (await process.stdout.readline()).split()
                if header[1:2] != [b"blob"]:
                    raise Transient("the cached repository is broken")
                blocks = _content(process.stdout, int(header[2]))
                yield blocks
                whole = await process.stdout.readexactly(1) == b"\n"
            except (OSError, EOFError) as error:
                raise Transient("git ended") from error
            finally:
                if not whole:
                    await self.close()

    async def _commit(self, rev: str) -> str:
        """The commit of a revision, which is in the repository then."""
        async with self._fetching:
            if rev in self._commits:
                return self._commits[rev]
            commit = await resolve(self._calls, self._url, rev)
            async with self._alone():
                if not (self._folder / "HEAD").exists():
                    await self._calls.run("init", "--quiet", "--bare", str(self._folder))
                clear_locks(self._folder)
                try:
                    await self._git("cat-file", "-e", f"{commit}^{{commit}}")
                except FetchError:
                    await self._fetch(commit)
            os.utime(self._folder)
            self._commits[rev] = commit
            return commit

    async def _fetch(self, commit: str) -> None:
        options = ("fetch", "--quiet", "--no-tags", "--no-write-fetch-head", "--no-recurse-submodules")
        kept = f"+{commit}:refs/kaos/{commit}"
        try:
            await self._git(*options, "--depth=1", self._url, kept, asks=True)
        except Gone:
            # A server that gives out what its branches and tags name only: with their history, then.
            await self._git(*options, self._url, "+refs/*:refs/kaos/all/*", asks=True)
            try:
                await self._git("cat-file", "-e", f"{commit}^{{commit}}")
            except FetchError:
                raise Gone(f"there is no commit {commit[:12]}") from None

    async def _git(self, *arguments: str, asks: bool = False, given: bytes = b"") -> bytes:
        url = self._url if asks else ""
        return await self._calls.run("-C", str(self._folder), *arguments, url=url, given=given)

    @asynccontextmanager
    async def _alone(self) -> AsyncIterator[None]:
        """No other process fetches into this repository meanwhile."""
        self._folder.mkdir(parents=True, exist_ok=True)
        fd = os.open(self._folder / "kaos.turn", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            while True:
                try:
                    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    await asyncio.sleep(_TURN_S)
            yield
        finally:
            os.close(fd)


async def resolve(calls: GitCalls, url: str, rev: str) -> str:
    """The commit that a revision names on the server, which is asked in any case. Raises Gone without any."""
    told = (await calls.run("ls-remote", "--", url, url=url)).decode("utf-8", "replace")
    refs = {name: commit for commit, _, name in (line.partition("\t") for line in told.splitlines())}
    if _COMMIT.fullmatch(rev):
        return rev
    wanted = [f"refs/tags/{rev}^{{}}", f"refs/tags/{rev}", f"refs/heads/{rev}", f"{rev}^{{}}", rev]
    for name in wanted if rev else ["HEAD"]:
        if name in refs:
            return refs[name]
    raise Gone(
        f"there is no branch and no tag {rev!r}; a commit has 40 digits" if rev else "it has no commit"
    )


async def _content(stream: asyncio.StreamReader, size: int) -> AsyncIterator[bytes]:
    first = True
    while size:
        block = await stream.read(min(size, _PIECE))
        if not block:
            raise Transient("git ended")
        if first and size <= _LFS_BYTES and block.startswith(_LFS):
            raise FetchError(
                "it is in Git LFS, and the repository has but its name: fetch it by its https URL"
            )
        first = False
        size -= len(block)
        yield block


def _remote(url: str) -> str:
    """The repository's own URL."""
    return url.removeprefix("git+").partition("#")[0]


def _inside(line: ManifestLine) -> str:
    """The path in the repository; "" for all of it."""
    inside = unquote(line.url.partition("#")[2]).strip("/")
    if inside and (why := path_problem(inside)):
        raise FetchError(f"the path in the repository: {why}")
    if not inside and not line.is_folder:
        raise FetchError(
            "the URL names no file: write …repository.git#PATH, or a path with a slash at its end"
        )
    return inside


def _decoded(raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError:
        raise FetchError(f"{raw!r}: a name in the repository is no UTF-8") from None
