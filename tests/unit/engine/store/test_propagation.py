"""Which branches get a commit: the planning alone, on graphs written down by hand."""

from __future__ import annotations

import hypothesis.strategies as st
import pytest
from hypothesis import given

from kaos_backend.engine.errors import Unknown
from kaos_backend.engine.store.model import BranchKey, RepoKey
from kaos_backend.engine.store.versions.propagation import BranchNode, plan, validate


def graph(*edges: str, never: tuple[str, ...] = ()) -> dict[int, BranchNode]:
    """`a>b` is: b's provenance has a. A name is ``repo``, ``repo@branch`` or ``repo.spec``."""
    names = sorted({name for edge in edges for name in edge.split(">")})
    numbers = {name: number for number, name in enumerate(names)}
    nodes = {}
    for name, number in numbers.items():
        repo, _, branch = name.partition("@")
        repo, _, type_ = repo.partition(".")
        sources = [(numbers[e.split(">")[0]], e in never) for e in edges if e.split(">")[1:] == [name]]
        key = BranchKey(RepoKey("default", repo, type_ or "user"), branch or "master")
        nodes[number] = BranchNode(number, key, "old", tuple(sources))
    return nodes


def planned(nodes: dict[int, BranchNode], *moved: str) -> list[str]:
    by_name = {
        node.key.repo.name + ("" if node.key.repo.type == "user" else ".spec"): id_
        for id_, node in nodes.items()
    }
    return [nodes[id_].key.repo.name for id_ in plan(nodes, {by_name[name] for name in moved}, "new")]


def test_everything_downstream_and_nothing_else() -> None:
    nodes = graph("source>build", "build>train", "data>train", "hyper>train", "other>report")
    assert planned(nodes, "hyper") == ["train"]
    assert planned(nodes, "source") == ["build", "train"]
    assert planned(nodes, "source", "data", "hyper") == ["build", "train"]
    assert planned(nodes, "train") == []


def test_a_diamond_is_crossed_upstream_first() -> None:
    nodes = graph("a>b", "a>c", "b>d", "c>d", "d>e")
    order = planned(nodes, "a")
    assert sorted(order) == ["b", "c", "d", "e"]
    assert order.index("d") > max(order.index("b"), order.index("c"))
    assert order[-1] == "e"


def test_edges_that_never_propagate() -> None:
    nodes = graph("a>b", "c>b", never=("a>b",))
    assert planned(nodes, "a") == []
    assert planned(nodes, "c") == ["b"]


def test_spouts_and_branches_of_this_set_are_left_out() -> None:
    assert planned(graph("spout.spec>spout"), "spout.spec") == []
    nodes = graph("a>b", "b>c")
    done = dict(nodes)
    b = next(id_ for id_, node in nodes.items() if node.key.repo.name == "b")
    done[b] = BranchNode(b, nodes[b].key, "new", nodes[b].provenance)
    assert planned(done, "a") == ["c"]


def test_one_commit_per_repo_and_set() -> None:
    nodes = graph("data@master>mid", "mid>out", "data@dev>out")
    with pytest.raises(Unknown, match="multiple branches from the same repo"):
        validate(nodes, list(nodes))
    nodes = graph("data>out@master", "data>out@dev")
    with pytest.raises(Unknown, match="multiple branches from the same repo"):
        validate(nodes, list(nodes))
    with pytest.raises(Unknown, match="multiple branches from the same repo"):
        plan(nodes, {id_ for id_, node in nodes.items() if node.key.repo.name == "data"}, "new")
    validate(graph("data@master>a", "data@dev>b"), [0, 1, 2, 3])


@given(
    st.sets(st.tuples(st.integers(0, 7), st.integers(0, 7)).filter(lambda e: e[0] < e[1])),
    st.sets(st.integers(0, 7)),
)
def test_plans_are_closures_in_topological_order(pairs: set[tuple[int, int]], moved: set[int]) -> None:
    nodes = {
        i: BranchNode(
            i,
            BranchKey(RepoKey("default", f"r{i}"), "master"),
            "old",
            tuple((a, False) for a, b in sorted(pairs) if b == i),
        )
        for i in range(8)
    }
    order = plan(nodes, moved, "new")
    reached: set[int] = set()
    for a, b in sorted(pairs, key=lambda e: e[1]):
        if a in moved or a in reached:
            reached.add(b)
    assert set(order) == reached
    for a, b in pairs:
        if a in order and b in order:
            assert order.index(a) < order.index(b)
