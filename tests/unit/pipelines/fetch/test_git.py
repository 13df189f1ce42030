"""Files and folders of repositories, over HTTP from a real git."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Iterator
from pathlib import Path

import pytest
from kaos_pipelines.fetch.credentials import Credentials
from kaos_pipelines.fetch.errors import FetchFailed
from kaos_pipelines.fetch.guard import Policy

from kaos_formats.tree import Tree
from tests.support.gitserver import GitServer, Repository, git_server
from tests.unit.pipelines.fetch.conftest import Fetching


@pytest.fixture
def server(tmp_path: Path) -> Iterator[GitServer]:
    with git_server(tmp_path / "repositories") as found:
        yield found


@pytest.fixture
def repository(server: GitServer) -> Repository:
    return Repository(server.root, "data.git")


def modes(tree: Tree) -> dict[str, str]:
    return {entry.path: entry.mode for entry in tree.entries}


def test_files_and_folders_at_a_revision(
    fetching: Fetching, server: GitServer, repository: Repository
) -> None:
    first = repository.commit(a_csv=b"1", sub__b_csv=b"2", sub__deep__c_csv=b"3")
    repository.git("tag", "-a", "-m", "one", "v1")
    (repository.path / "sub/run.sh").write_bytes(b"#!")
    (repository.path / "sub/run.sh").chmod(0o755)
    (repository.path / "sub/link").symlink_to("../a.csv")
    second = repository.commit(a_csv=b"11")
    url = server.url("data.git")
    lines: list[dict[str, object]] = [
        {"url": f"{url}#a.csv", "path": "now.csv"},
        {"url": f"{url}#a.csv", "path": "then.csv", "rev": "v1"},
        {"url": f"{url}#a.csv", "path": "also.csv", "rev": first},
        {"url": f"{url}#sub", "path": "folder/", "rev": "main"},
        {"url": url, "path": "all/", "rev": "v1"},
    ]
    tree = fetching(*lines)
    assert fetching.files(tree) == {
        "now.csv": b"11", "then.csv": b"1", "also.csv": b"1",
        "folder/b.csv": b"2", "folder/deep/c.csv": b"3", "folder/run.sh": b"#!", "folder/link": b"11",
        "all/a.csv": b"1", "all/sub/b.csv": b"2", "all/sub/deep/c.csv": b"3",
    }  # fmt: skip
    assert modes(tree)["folder/run.sh"] == "755"
    commits = {one.path: one.commit for one in fetching.sources(tree)}
    assert (commits["now.csv"], commits["then.csv"], commits["folder/"]) == (second, first, second)
    asked = len(server.requests)
    assert fetching(*lines) == tree
    # Which commit it is, the server is asked again; what is there does not come again.
    assert all("POST" not in path and "pack" in path for path in server.requests[asked:])
    third = repository.commit(a_csv=b"111")
    assert fetching.file("now.csv", fetching(lines[0])) == b"111"
    assert fetching.sources(fetching(lines[0]))[0].commit == third


@pytest.mark.parametrize(
    ("inside", "line", "why"),
    [
        ("#none", {}, "there is no none"),
        ("#sub", {}, "is a folder"),
        ("#a.csv", {"path": "a/"}, "is a file"),
        ("#a.csv", {"rev": "v9"}, "no branch and no tag 'v9'"),
        ("#a.csv", {"rev": "0" * 40}, "not our ref|no commit 0000"),
        ("#pointer", {}, "in Git LFS"),
        ("#out", {}, "leads to no file"),
        ("#../x", {}, "'..'"),
        ("", {}, "names no file"),
        ("/../other.git#a.csv", {}, "not found"),
    ],
)
def test_what_is_not_there_is_told(
    fetching: Fetching,
    server: GitServer,
    repository: Repository,
    inside: str,
    line: dict[str, object],
    why: str,
) -> None:
    (repository.path / "out").symlink_to("/etc/passwd")
    repository.commit(
        a_csv=b"1", sub__b_csv=b"2", pointer=b"version https://git-lfs.github.com/spec/v1\noid x\n"
    )
    with pytest.raises(FetchFailed, match=why):
        fetching({"url": server.url("data.git") + inside, "path": "x", **line})


def test_credentials_are_shown_to_their_host(
    fetching: Fetching, server: GitServer, repository: Repository
) -> None:
    repository.commit(a_csv=b"1")
    server.authorization = "Basic " + b64encode(b"ada:secret").decode()
    line = {"url": server.url("data.git") + "#a.csv", "path": "a.csv"}
    with pytest.raises(FetchFailed, match="not permitted"):
        fetching(line)
    fetching.credentials = Credentials({"127.0.0.1": ("ada", "secret")})
    tree = fetching(line)
    assert fetching.files(tree) == {"a.csv": b"1"}
    # What is in the cache is for those who may see it.
    fetching.credentials = Credentials()
    with pytest.raises(FetchFailed, match="not permitted"):
        fetching(line)


def test_git_asks_the_addresses_that_were_looked_at(
    fetching: Fetching, server: GitServer, repository: Repository
) -> None:
    repository.commit(a_csv=b"1")
    line = {"url": server.url("data.git", "localhost") + "#a.csv", "path": "a.csv"}
    fetching.policy = Policy.of({"KAOS_FETCH_PRIVATE": "0"})
    with pytest.raises(FetchFailed, match="is not public"):
        fetching(line)
    assert server.requests == []
    fetching.policy = Policy.of({"KAOS_FETCH_PRIVATE": "0", "KAOS_FETCH_ALLOW": f"127.0.0.1:{server.port}"})
    assert fetching.files(fetching(line)) == {"a.csv": b"1"}


def test_repositories_of_this_machine(fetching: Fetching, repository: Repository) -> None:
    repository.commit(a_csv=b"1", b_csv=b"")
    tree = fetching({"url": f"git+file://{repository.path}", "path": "./"})
    assert fetching.files(tree) == {"a.csv": b"1", "b.csv": b""}
