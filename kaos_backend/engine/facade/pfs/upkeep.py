"""What looks after a server in `pfs_v2.API`: checks, the cache of results, tasks."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass

import grpc
from betterproto.lib.google.protobuf import Any as AnyMessage
from betterproto.lib.google.protobuf import Empty
from pachyderm_sdk.api import pfs, taskapi

from kaos_backend.engine.errors import NotFound, ResourceExhausted, Unimplemented
from kaos_backend.engine.facade.rpc import Handlers, refers, server_stream, unary
from kaos_backend.engine.store.check import Finding, check, count_objects
from kaos_backend.engine.store.store import Store

_CACHE_ENTRIES = 10_000
_CACHE_BYTES = 64 << 20


class UpkeepRpcs:
    def __init__(self, store: Store) -> None:
        self._store = store
        self._cache = _Cache(store)

    def handlers(self) -> Handlers:
        return {
            "Fsck": server_stream(self._fsck, pfs.FsckRequest),
            "CheckStorage": unary(refers(self._store, self._check_storage), pfs.CheckStorageRequest),
            "PutCache": unary(self._put_cache, pfs.PutCacheRequest),
            "GetCache": unary(self._get_cache, pfs.GetCacheRequest),
            "ClearCache": unary(self._clear_cache, pfs.ClearCacheRequest),
            "ListTask": server_stream(self._list_task, taskapi.ListTaskRequest),
            "ActivateAuth": unary(self._activate_auth, pfs.ActivateAuthRequest),
        }

    def _fsck(self, request: pfs.FsckRequest, _: grpc.ServicerContext) -> Iterator[pfs.FsckResponse]:
        for found in check(self._store, request.fix):
            if isinstance(found, Finding):
                yield (
                    pfs.FsckResponse(fix=str(found)) if found.repaired else pfs.FsckResponse(error=str(found))
                )

    def _check_storage(
        self, request: pfs.CheckStorageRequest, _: grpc.ServicerContext
    ) -> pfs.CheckStorageResponse:
        count = count_objects(self._store, request.chunk_begin, request.chunk_end, request.read_chunk_data)
        return pfs.CheckStorageResponse(chunk_object_count=count)

    def _put_cache(self, request: pfs.PutCacheRequest, _: grpc.ServicerContext) -> Empty:
        self._cache.put(request.key, bytes(request.value), request.tag, request.file_set_ids)
        return Empty()

    def _get_cache(self, request: pfs.GetCacheRequest, _: grpc.ServicerContext) -> pfs.GetCacheResponse:
        return pfs.GetCacheResponse(value=AnyMessage.FromString(self._cache.get(request.key)))

    def _clear_cache(self, request: pfs.ClearCacheRequest, _: grpc.ServicerContext) -> Empty:
        self._cache.clear(request.tag_prefix)
        return Empty()

    def _list_task(
        self, _request: taskapi.ListTaskRequest, _: grpc.ServicerContext
    ) -> Iterator[taskapi.TaskInfo]:
        # What pachd hands to workers as tasks (compacting, sharding) is done here within the call.
        return iter(())

    def _activate_auth(
        self, _request: pfs.ActivateAuthRequest, _: grpc.ServicerContext
    ) -> pfs.ActivateAuthResponse:
        raise Unimplemented(
            "pfs_v2.API/ActivateAuth is not built into the embedded engine: it has one user, whose secret "
            "every call carries, and no roles"
        )


@dataclass(frozen=True, slots=True)
class _Entry:
    value: bytes
    tag: str
    file_sets: tuple[str, ...]


class _Cache:
    """Values by key, the least recently used ones dropped. What file sets they speak of stay meanwhile.

    It lasts as long as the engine: whoever asks must be able to do without.
    """

    def __init__(self, store: Store) -> None:
        self._file_sets = store.filesets
        self._entries: OrderedDict[str, _Entry] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def put(self, key: str, value: bytes, tag: str, file_sets: list[str]) -> None:
        """NotFound when one of the file sets is gone."""
        if len(value) > _CACHE_BYTES:
            raise ResourceExhausted(
                f"a value of {len(value)} bytes is too large for a cache of {_CACHE_BYTES}"
            )
        entry = _Entry(value, tag, tuple(file_sets))
        with self._lock:
            self._file_sets.pin(entry.file_sets)
            self._drop(key)
            self._entries[key] = entry
            self._bytes += len(value)
            while len(self._entries) > _CACHE_ENTRIES or self._bytes > _CACHE_BYTES:
                self._drop(next(iter(self._entries)))

    def get(self, key: str) -> bytes:
        """NotFound when there is nothing, or no longer."""
        with self._lock:
            entry = self._entries.get(key)
            if entry is None:
                raise NotFound(f"cache key {key} not found")
            self._entries.move_to_end(key)
            return entry.value

    def clear(self, tag_prefix: str) -> None:
        with self._lock:
            for key in [key for key, one in self._entries.items() if one.tag.startswith(tag_prefix)]:
                self._drop(key)

    def _drop(self, key: str) -> None:
        entry = self._entries.pop(key, None)
        if entry is not None:
            self._bytes -= len(entry.value)
            self._file_sets.unpin(entry.file_sets)
