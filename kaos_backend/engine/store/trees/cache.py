"""Decoded directories, so that the same ones are not read again and again."""

from __future__ import annotations

from collections import OrderedDict
from threading import Lock

from kaos_backend.engine.store.trees.nodes import Fetch, Node, decode

# 210 to 290 bytes each; what a node has besides takes as much as six of them.
_CACHE_ENTRIES = 100_000
_MOST_OF_CACHE = 90_000
_BESIDES = 6


class NodeCache:
    """Decoded nodes, the most recently used ones, bounded by how many entries they hold together."""

    def __init__(self, fetch: Fetch) -> None:
        self._fetch = fetch
        self._nodes: OrderedDict[bytes, Node] = OrderedDict()
        self._entries = 0
        self._lock = Lock()

    def load(self, key: bytes, fetch: Fetch | None = None) -> Node:
        with self._lock:
            node = self._nodes.get(key)
            if node is not None:
                self._nodes.move_to_end(key)
                return node
        fetch = fetch or self._fetch
        node = decode(fetch(key), fetch)
        self.keep(key, node)
        return node

    def keep(self, key: bytes, node: Node) -> None:
        """Remember a node that was just stored (it does no harm if that comes to nothing)."""
        with self._lock:
            if key not in self._nodes:
                self._nodes[key] = node
                self._entries += _weight(node)
                while self._entries > _CACHE_ENTRIES and len(self._nodes) > 1:
                    _, dropped = self._nodes.popitem(last=False)
                    self._entries -= _weight(dropped)


def _weight(node: Node) -> int:
    # However large a directory is, there is room beside it for those on the way to it.
    return min(len(node.files) + len(node.dirs) + _BESIDES, _MOST_OF_CACHE)
