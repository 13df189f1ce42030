"""The backend's HTTP API as methods. Prints nothing."""

from __future__ import annotations

import http.client
import json
import socket
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import BinaryIO, TypeVar
from urllib.parse import quote, urlencode

from kaos_cli.errors import ConnectionLost, KaosError
from kaos_cli.streams import blocks, json_lines
from kaos_cli.transport import READ_TIMEOUT_S, Json, Transport
from kaos_formats.handover import Folder

T = TypeVar("T")
# A big bundle is verified and stored before the answer comes.
WRITE_TIMEOUT_S = 3600.0
BUSY_TIMEOUT_S = 300.0


class KaosClient:
    """The API, verb by verb. ``connect`` gives a live transport and is asked again when one is lost.

    Requests that may be repeated without harm are repeated once after a lost connection: a killed backend
    costs a command a moment, not its result. ``say`` is told when the backend lets it wait.
    """

    def __init__(
        self, connect: Callable[[], Transport], say: Callable[[str], None] = lambda _text: None
    ) -> None:
        self._connect = connect
        self._say = say
        # Once a command, however long it is let wait.
        self._told: set[str] = set()
        self._transport: Transport | None = None

    def transport(self) -> Transport:
        if self._transport is None:
            self._transport = self._connect()
        return self._transport

    def close(self) -> None:
        if self._transport is not None:
            self._transport.close()
            self._transport = None

    def _retrying(self, request: Callable[[Transport], T], repeatable: bool = True) -> T:
        for last in (not repeatable, True):
            transport = self.transport()
            try:
                return self._patiently(request)
            except ConnectionLost as error:
                self.close()
                if last:
                    raise KaosError(
                        "connection_lost",
                        f"lost the connection to {transport.endpoint.url}: {error}",
                        hint="try again; `kaos status` shows whether the backend is up",
                    ) from error
        raise AssertionError("unreachable")

    def _patiently(self, request: Callable[[Transport], T]) -> T:
        """Asks again while the backend says that it has too much to do just now, or has had too many requests
        of us; then it has done nothing.
        """
        deadline = time.monotonic() + BUSY_TIMEOUT_S
        while True:
            try:
                return request(self.transport())
            except KaosError as error:
                wait_s = error.fields.get("retry_after_s")
                if error.code not in ("busy", "too_many_requests") or not isinstance(wait_s, int | float):
                    raise
                if time.monotonic() + wait_s > deadline:
                    raise
                if error.code not in self._told:
                    self._told.add(error.code)
                    self._say(f"{error.message}; waiting")
            time.sleep(wait_s)

    def _get(self, path: str, query: Json | None = None) -> Json:
        text = _query(query)
        return self._retrying(lambda t: t.json("GET", path + text))

    @contextmanager
    def _stream(
        self, path: str, query: Json, timeout_s: float | None, body: Json | None = None
    ) -> Iterator[http.client.HTTPResponse]:
        """The answer to a GET, or to a POST where there is a body."""
        method = "GET" if body is None else "POST"
        content = None if body is None else json.dumps(body).encode()
        headers = None if body is None else {"Content-Type": "application/json"}
        target = path + _query(query)
        response = self._retrying(lambda t: t.open(method, target, content, headers, timeout_s))
        try:
            yield response
        except (OSError, http.client.HTTPException) as error:
            if isinstance(error, TimeoutError | ConnectionError | http.client.HTTPException | socket.timeout):
                raise ConnectionLost(str(error) or type(error).__name__) from error
            raise
        finally:
            # An unread rest would be taken for the answer to the next request.
            if not response.isclosed():
                self.close()

    def status(self) -> Json:
        return self._get("/status")

    def env(self) -> dict[str, str]:
        return dict(self._get("/status/env")["env"])

    def workspaces(self) -> list[Json]:
        return list(self._get("/workspaces")["workspaces"])

    def workspace(self, ws: str) -> Json:
        return self._get(f"/workspaces/{ws}")

    def create_workspace(self, name: str, description: str) -> Json:
        body = {"name": name, "description": description}
        return self._retrying(lambda t: t.json("POST", "/workspaces", body), repeatable=False)

    def delete_workspace(self, ws: str) -> Json:
        return self._retrying(
            lambda t: t.json("DELETE", f"/workspaces/{ws}", timeout_s=WRITE_TIMEOUT_S), repeatable=False
        )

    def tokens(self) -> list[Json]:
        return list(self._get("/tokens")["tokens"])

    def create_token(self, request: Json) -> Json:
        """A new token, with what has to be sent to be it."""
        return self._retrying(lambda t: t.json("POST", "/tokens", request), repeatable=False)

    def revoke_token(self, name: str) -> Json:
        path = f"/tokens/{quote(name, safe='')}"
        return self._retrying(lambda t: t.json("DELETE", path), repeatable=False)

    def bundle(self, ws: str, kind: str, bundle_id: str) -> Json | None:
        """The bundle if it is the head or staged, else None."""
        try:
            return self._get(f"/workspaces/{ws}/bundles/{kind}/{bundle_id}")
        except KaosError as error:
            if error.code == "no_bundle":
                return None
            raise

    def head_tree(self, ws: str, kind: str) -> bytes | None:
        """The tree text of the current bundle, None when there is none."""
        try:
            with self._stream(f"/workspaces/{ws}/bundles/{kind}/head/tree", {}, READ_TIMEOUT_S) as response:
                return response.read()
        except KaosError as error:
            if error.code == "no_bundle":
                return None
            raise
        except ConnectionLost as error:
            raise _lost(error) from error

    def room(self, wanted_bytes: int, objects: dict[str, int] | None = None) -> Json:
        """The room on the disk for so many bytes, and what of ``objects`` (BLAKE3 → size) is not stored."""
        body = {"bytes": wanted_bytes, "objects": objects or {}}
        return self._retrying(lambda t: t.json("POST", "/room", body))

    def put_bundle(
        self,
        ws: str,
        kind: str,
        bundle_id: str,
        name: str,
        base: str | None,
        body: Callable[[], Iterable[bytes]],
    ) -> Json:
        """Send a bundle. Raises KaosError: connection_lost, then what has come whole is kept for another
        try.
        """
        path = f"/workspaces/{ws}/bundles/{kind}/{bundle_id}" + _query({"name": name, "base": base})
        headers = {"Content-Type": "application/zstd"}

        def put(transport: Transport) -> Json:
            return transport.read_json(transport.open("PUT", path, body(), headers, WRITE_TIMEOUT_S))

        # What has come need not be sent again.
        return self._retrying(put, repeatable=False)

    def missing(
        self, ws: str, kind: str, bundle_id: str, objects: dict[str, int]
    ) -> tuple[list[str], dict[str, int]]:
        """Of contents (BLAKE3 → size) those that have to be sent for a bundle, and how many bytes there are
        of those that broke off within.
        """
        path = f"/workspaces/{ws}/bundles/{kind}/{bundle_id}/missing"
        answer = self._retrying(lambda t: t.json("POST", path, {"objects": objects}))
        return list(answer["missing"]), dict(answer["begun"])

    @property
    def hands_over(self) -> bool:
        """Whether the backend is on this machine, this user's, and can tell so."""
        return bool(self.transport().endpoint.socket)

    @contextmanager
    def take_bundle(
        self, ws: str, kind: str, name: str, lines: Callable[[], Iterable[bytes]], base: str | None = None
    ) -> Iterator[Iterator[Json]]:
        """Hand a folder over, listed in ``lines``: what was read, hashes, and the bundle, as lines of JSON.
        ``base``: the bundle that ``lines`` differ from.

        Raises KaosError, within the block too: no_handover where that cannot be done, stale_base if another
        bundle is current.
        """
        path = f"/workspaces/{ws}/bundles/{kind}" + _query({"name": name, "base": base})
        headers = {"Content-Type": "application/x-ndjson"}
        response = self._retrying(lambda t: t.open("POST", path, lines(), headers, WRITE_TIMEOUT_S))
        try:
            yield json_lines(response)
        except (OSError, http.client.HTTPException, ConnectionLost) as error:
            raise _lost(ConnectionLost(str(error))) from error
        finally:
            if not response.isclosed():
                self.close()

    def forget_bundle(self, ws: str, kind: str, bundle_id: str) -> None:
        """Remove a bundle that was sent and will not be deployed."""
        path = f"/workspaces/{ws}/bundles/{kind}/{bundle_id}"
        self._retrying(lambda t: t.open("DELETE", path).read())

    def deploy(self, ws: str, request: Json) -> Json:
        # Content decides what a deploy starts, so asking twice starts nothing twice; a forced retry would.
        return self._retrying(
            lambda t: t.json("POST", f"/workspaces/{ws}/deploys", request, WRITE_TIMEOUT_S),
            repeatable=not request.get("retry"),
        )

    def versions(self, ws: str, kind: str) -> list[Json]:
        return list(self._get(f"/workspaces/{ws}/versions/{kind}")["versions"])

    def remove(self, ws: str, request: Json) -> Json:
        """Remove jobs and versions. Asked twice, the second time finds nothing to remove and says so."""
        return self._retrying(
            lambda t: t.json("POST", f"/workspaces/{ws}/removals", request, WRITE_TIMEOUT_S),
            repeatable=bool(request.get("dry_run")),
        )

    def jobs(self, ws: str, limit: int | None = None) -> list[Json]:
        return list(self._get(f"/workspaces/{ws}/jobs", {"limit": limit})["jobs"])

    def job(
        self,
        ws: str,
        ref: str,
        sort_by: str | None = None,
        order: str | None = None,
        limit: int | None = None,
    ) -> Json:
        """A job with its trials, best first, or the first ``limit`` of them."""
        return self._get(_job(ws, ref), {"sort_by": sort_by, "order": order, "limit": limit})

    def summary(self, ws: str, ref: str) -> Json:
        """A job without its trials, which costs the same however many there are."""
        return self._get(_job(ws, ref) + "/summary")

    def stop(self, ws: str, ref: str, author: str) -> Json:
        path = _job(ws, ref) + "/stop" + _query({"author": author})
        return self._retrying(lambda t: t.json("POST", path))

    def pause(self, ws: str | None, paused: bool) -> Json:
        """Where nothing new starts then; None is everywhere."""
        body = {"workspace": ws, "paused": paused}
        return self._retrying(lambda t: t.json("POST", "/pause", body))

    def run(self, ws: str, request: Json) -> Iterator[Json]:
        """The lines of one trial in the foreground. Raises ConnectionLost when the stream breaks off."""
        with self._stream(f"/workspaces/{ws}/run", {}, None, request) as response:
            yield from json_lines(response)

    def shell(self, ws: str, ref: str, trial: int, terminal: Json) -> Iterator[Json]:
        """The lines of a shell where a trial was. Raises ConnectionLost when the stream breaks off."""
        path = _job(ws, ref) + f"/trials/{trial}/shell"
        with self._stream(path, {}, None, terminal) as response:
            yield from json_lines(response)

    def type(self, name: str, typed: Json) -> None:
        """Pass on what is typed at a command in the foreground, or another size of its terminal."""
        self._retrying(lambda t: t.json("POST", f"/foreground/{name}", typed), repeatable=False)

    def retry(self, ws: str, ref: str, failed: bool, author: str) -> Json:
        path = _job(ws, ref) + "/retry"
        body = {"failed": failed, "author": author}
        # Asked twice it would start two jobs.
        return self._retrying(lambda t: t.json("POST", path, body, WRITE_TIMEOUT_S), repeatable=False)

    def stop_trial(self, ws: str, ref: str, trial: int, author: str) -> Json:
        path = _job(ws, ref) + f"/trials/{trial}/stop" + _query({"author": author})
        return self._retrying(lambda t: t.json("POST", path))

    def logs(
        self, ws: str, ref: str, trial: int | None, stage: str | None, follow: bool, tail: int | None
    ) -> Iterator[Json]:
        """Blocks of a log in order, each with its ``data`` (see ``loglines``); with ``follow`` until the job
        ends, the last item ``{"end": true, "state"}``.

        Raises ConnectionLost when the stream breaks off.
        """
        query = {"trial": trial, "stage": stage, "follow": follow or None, "tail": tail, "form": "blocks"}
        timeout_s = None if follow else WRITE_TIMEOUT_S
        with self._stream(_job(ws, ref) + "/logs", query, timeout_s) as response:
            yield from blocks(response)

    def check(self, repair: bool) -> Iterator[Json]:
        """Check all that is stored: lines with ``progress``, ``finding`` or, the last one, ``end``."""
        return self._lines("/check", {"repair": repair})

    def disk(self) -> Json:
        """What takes the disk."""
        return self._get("/disk")

    def collect(self, dry_run: bool) -> Iterator[Json]:
        """Remove what nothing needs: lines with ``progress`` and, the last one, ``end``."""
        return self._lines("/collect", {"dry_run": dry_run})

    def check_data(self, ws: str) -> Iterator[Json]:
        """Ask whether what a manifest names has changed: lines with ``waiting``, ``finding`` or, the last
        one, ``end``.
        """
        return self._lines(f"/workspaces/{ws}/data/check")

    def _lines(self, path: str, body: Json | None = None) -> Iterator[Json]:
        try:
            with self._stream(path, {}, WRITE_TIMEOUT_S, body) as response:
                yield from json_lines(response)
        except ConnectionLost as error:
            raise _lost(error) from error

    def export(self, ws: str, ref: str, what: str, into: Folder, mode: int) -> Iterator[Json]:
        """Let a job's code or data be written into an empty folder: how far that is, in JSON lines.

        Raises KaosError: no_handover where that cannot be done.
        """
        body = {"what": what, "path": into.path, "device": into.device, "inode": into.inode, "mode": mode}
        try:
            with self._stream(_job(ws, ref) + "/export", {}, WRITE_TIMEOUT_S, body) as response:
                yield from json_lines(response)
        except ConnectionLost as error:
            raise _lost(error) from error

    @contextmanager
    def archive(self, ws: str, ref: str, what: str, model: str | None = None) -> Iterator[BinaryIO]:
        """The zstd stream of a tar with a job's models, code or data."""
        query = {"what": what, "model": model}
        path = _job(ws, ref) + "/archive"
        try:
            with self._stream(path, query, WRITE_TIMEOUT_S) as response:
                yield response
        except ConnectionLost as error:
            raise _lost(error) from error


def _job(ws: str, ref: str) -> str:
    """The path of a job; ``ref`` is what the user called it."""
    return f"/workspaces/{ws}/jobs/{quote(ref, safe='')}"


def _lost(error: ConnectionLost) -> KaosError:
    return KaosError("connection_lost", f"the backend broke off: {error}", hint="try the command again")


def _query(values: Json | None) -> str:
    given = {
        k: ("true" if v is True else "false" if v is False else v)
        for k, v in (values or {}).items()
        if v is not None
    }
    return "?" + urlencode(given) if given else ""
