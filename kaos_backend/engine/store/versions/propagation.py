"""Which branches get a new commit when others change. Pure functions of a graph of branches.

The rules are those of Pachyderm (reference, section 6): everything downstream of a moved head gets one open
commit in the same commit set, upstream first; a set has at most one commit per repo, so no repo may be met
twice.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass

from kaos_backend.engine.errors import Unknown
from kaos_backend.engine.store.model import BranchKey


@dataclass(frozen=True, slots=True)
class BranchNode:
    """A branch in the graph: its head's commit set, and its direct provenance as (id, never propagates)."""

    id: int
    key: BranchKey
    head_set: str
    provenance: tuple[tuple[int, bool], ...]


Graph = Mapping[int, BranchNode]


def connected(
    start: Iterable[int], upstream: Callable[[int], Iterable[int]], downstream: Callable[[int], Iterable[int]]
) -> set[int]:
    """Everything that the DAGs around `start` consist of: all ancestors, and all that descends from them."""
    above = _reach(start, upstream)
    below = _reach(above, downstream)
    return _reach(below, upstream)


def _reach(start: Iterable[int], edges: Callable[[int], Iterable[int]]) -> set[int]:
    seen = set(start)
    stack = list(seen)
    while stack:
        for other in edges(stack.pop()):
            if other not in seen:
                seen.add(other)
                stack.append(other)
    return seen


def plan(graph: Graph, moved: Collection[int], set_id: str) -> list[int]:
    """The branches that get a commit in set `set_id` because the heads of `moved` changed, upstream first.

    Left out are branches that have a commit of this set already, and those that depend on nothing but their
    own spec (spouts). Edges marked `never` start nothing.

    Raises:
        Unknown: two branches of one repo would get a commit in this set.
    """
    below = _subvenance(graph, follow_never=False)
    reached = _reach(moved, lambda id_: below.get(id_, ())) - set(moved)
    reached |= {
        id_ for id_ in moved if any(other in moved or other in reached for other in _starters(graph[id_]))
    }
    order = [
        id_
        for id_ in upstream_first(sorted(graph), lambda id_: (other for other, _ in graph[id_].provenance))
        if id_ in reached and graph[id_].head_set != set_id and not is_spout(graph[id_], graph)
    ]
    one_per_repo([graph[id_] for id_ in order])
    return order


def validate(graph: Graph, changed: Collection[int]) -> None:
    """Refuse graphs in which one commit would reach two branches of the same repo.

    Raises:
        Unknown: naming the two branches.
    """
    below = _subvenance(graph, follow_never=True)
    above = {id_: [other for other, _ in node.provenance] for id_, node in graph.items()}
    for id_ in changed:
        line = _reach([id_], lambda one: above[one])
        one_per_repo([graph[one] for one in line])
        for origin in line:
            one_per_repo([graph[one] for one in _reach([origin], lambda one: below.get(one, ()))])


def is_spout(node: BranchNode, graph: Graph) -> bool:
    """Whether the only thing the branch depends on is the spec of the pipeline that writes it."""
    return [graph[source].key.repo for source, _ in node.provenance] == [node.key.repo.spec]


def one_per_repo(nodes: Iterable[BranchNode]) -> None:
    seen: dict[object, BranchNode] = {}
    for node in nodes:
        other = seen.setdefault(node.key.repo, node)
        if other is not node:
            raise Unknown(
                f"multiple branches from the same repo ({other.key} and {node.key}) are in one provenance "
                "graph: a commit set can hold one commit per repo"
            )


def _starters(node: BranchNode) -> list[int]:
    return [id_ for id_, never in node.provenance if not never]


def _subvenance(graph: Graph, follow_never: bool) -> dict[int, list[int]]:
    below: dict[int, list[int]] = {}
    for id_, node in graph.items():
        for source, never in node.provenance:
            if follow_never or not never:
                below.setdefault(source, []).append(id_)
    return below


def upstream_first(ids: Iterable[int], sources: Callable[[int], Iterable[int]]) -> list[int]:
    """`ids` and all that they come from, every one after its sources (depth-first post-order).

    `sources` gives what one comes from directly, in the order in which they shall appear.
    """
    order: list[int] = []
    seen: set[int] = set()
    stack = [(id_, False) for id_ in reversed(list(ids))]
    while stack:
        id_, done = stack.pop()
        if done:
            order.append(id_)
        elif id_ not in seen:
            seen.add(id_)
            stack.append((id_, True))
            stack += [(other, False) for other in reversed(list(sources(id_))) if other not in seen]
    return order
