"""Many clients at once."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise

import grpc
from pachyderm_sdk import Client
from pachyderm_sdk.api import pfs

from tests.parity.pachd import Pachd, add, file, paths

CLIENTS = 32
ROUNDS = 2


def work(pachd: Pachd, client: Client, number: int) -> None:
    """What one client does: commits of its own, one-offs on a branch of all, a transaction, a file set."""
    own, shared = pachd.named(f"own-{number}"), pfs.Commit(branch=pachd.branch("shared"))
    client.pfs.create_repo(repo=own)
    branch = pfs.Branch(repo=own, name="master")
    for turn in range(ROUNDS):
        content = b"%d/%d" % (number, turn)
        with client.pfs.commit(branch=branch) as commit:
            commit.put_file_from_bytes(path=f"/{turn}", data=content)
        at = f"/{number}/{turn}"
        client.pfs.modify_file(iter([pfs.ModifyFileRequest(set_commit=shared), add(at, content)]))
        # What was acknowledged is there for who asks next, whatever the others do.
        read = client.pfs.get_file(file=file(pachd.commit("shared"), at))
        assert b"".join(part.value for part in read) == content
        assert paths(client.pfs.list_file(file=file(pachd.commit(own.name), "/")))[-1] == f"/{turn}"
    with client.transaction.transaction() as transaction:
        client.pfs.start_commit(branch=branch)
        client.pfs.create_branch(
            branch=pfs.Branch(repo=own, name="other"), head=pachd.commit(own.name, "master^")
        )
    id = client.pfs.create_file_set(iter([add("/set", b"%d" % number)])).file_set_id
    started = pachd.commit(own.name, transaction.id)
    client.pfs.add_file_set(commit=started, file_set_id=id)
    client.pfs.finish_commit(commit=started)


def test_thirty_two_clients(pachd: Pachd) -> None:
    """§20.2, 1 and 6: every commit has a set of its own and one parent, and no write of anybody is lost."""
    pachd.repo("shared")
    pachd.client.pfs.create_branch(branch=pachd.branch("shared"))
    clients = [pachd.another_client() for _ in range(CLIENTS)]
    with ThreadPoolExecutor(CLIENTS) as pool:
        for done in [pool.submit(work, pachd, client, n) for n, client in enumerate(clients)]:
            done.result()
    infos = list(pachd.client.pfs.list_commit(repo=pachd.named("shared"), origin_kind=pfs.OriginKind.USER))
    assert len({info.commit.id for info in infos}) == CLIENTS * ROUNDS
    assert all(child.parent_commit.id == parent.commit.id for child, parent in pairwise(infos))
    sizes = [info.details.size_bytes for info in infos]
    assert sizes == sorted(sizes, reverse=True)
    found = pachd.client.pfs.glob_file(commit=pachd.commit("shared"), pattern="/*/*")
    assert set(paths(found)) == {f"/{number}/{turn}" for number in range(CLIENTS) for turn in range(ROUNDS)}
    for number in range(CLIENTS):
        assert len(list(pachd.client.pfs.list_commit(repo=pachd.named(f"own-{number}")))) == ROUNDS + 1
        assert pachd.read(pachd.commit(f"own-{number}"), "/set") == b"%d" % number


def test_one_of_many_starts_the_commit(pachd: Pachd) -> None:
    """§5.4: of all who start one on a branch at once, only one does before it is finished."""
    pachd.repo("data")
    clients = [pachd.another_client() for _ in range(8)]

    def start(client: Client) -> str:
        try:
            return str(client.pfs.start_commit(branch=pachd.branch("data")).id)
        except grpc.RpcError as error:
            return str(error.details())

    with ThreadPoolExecutor(len(clients)) as pool:
        answers = list(pool.map(start, clients))
    refusals = [answer for answer in answers if "has not been finished" in answer]
    assert len(refusals) == len(clients) - 1
    assert pachd.head(pachd.branch("data")).id in answers
