"""A backend for tests of the command line: real HTTP, real uploads checked byte for byte, state in memory."""

from __future__ import annotations

import io
import json
import tarfile
import threading
from collections import Counter
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlsplit

import blake3
import zstandard
from pydantic import BaseModel

from kaos_backend.api.schemas import ErrorBody
from kaos_cli.text import parse_time
from kaos_formats.loglines import Line, encode, microseconds
from tests.support.contract import differences, success
from tests.unit.cli.samples import ANSWER, STATUS, first, summary

TOKEN = "secret"


class Refused(Exception):
    def __init__(
        self, status: int, code: str, message: str = "refused", hint: str = "", **fields: Any
    ) -> None:
        super().__init__(message)
        self.status = status
        described = {"code": code, "message": message, "hint": hint, "fields": fields}
        self.body = {"version": 1, "error": described}


class FakeBackend:
    """``faults`` maps "METHOD path-without-/v1" to functions that run, once, instead of the next such
    request: they raise Refused or return "drop" to close the connection without an answer. ``differences``
    tells what of the answers is not what the backend's OpenAPI document says."""

    def __init__(self) -> None:
        self.workspaces: dict[str, dict[str, Any]] = {"default": {}}
        self.heads: dict[tuple[str, str], dict[str, Any]] = {}
        self.staged: dict[tuple[str, str, str], dict[str, Any]] = {}
        self.jobs: dict[str, list[dict[str, Any]]] = {}
        self.deploys: list[dict[str, Any]] = []
        self.versions: list[dict[str, Any]] = []
        self.removals: list[dict[str, Any]] = []
        self.answer: dict[str, Any] = {}
        self.log_lines: list[dict[str, Any]] = []
        self.remote_lines: list[dict[str, Any]] = []
        self.archives: dict[str, bytes] = {}
        self.requests: list[str] = []
        self.differences: list[str] = []
        self.faults: dict[str, list[Callable[[], str | None]]] = {}
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.server.daemon_threads = True
        # A client that hangs up in the middle is what some tests are about.
        self.server.handle_error = lambda *_: None  # type: ignore[method-assign]
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}"
        self._thread = threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.server.server_close()
        self._thread.join()

    def fail_once(self, request: str, fault: Callable[[], str | None]) -> None:
        self.faults.setdefault(request, []).append(fault)

    def check(self, answer: dict[str, Any], model: type[BaseModel]) -> None:
        """Notes what of an answer a backend would not send."""
        self.differences += differences(model, json.dumps(answer).encode())

    def _handler(fake) -> type[BaseHTTPRequestHandler]:
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *args: object) -> None:
                pass

            def _any(self) -> None:
                parts = urlsplit(self.path)
                path = parts.path.removeprefix("/v1")
                query = {k: v[0] for k, v in parse_qs(parts.query).items()}
                fake.requests.append(f"{self.command} {path}")
                try:
                    if self.headers["Authorization"] != f"Bearer {TOKEN}":
                        raise Refused(401, "unauthorized", "wrong token")
                    pending = fake.faults.get(f"{self.command} {path}")
                    if pending and pending.pop(0)() == "drop":
                        self.close_connection = True
                        return
                    body = self._body()
                    answer = fake.route(self.command, path.strip("/").split("/"), query, body)
                except Refused as refused:
                    fake.check(refused.body, ErrorBody)
                    # Like uvicorn after an early answer: what is not read yet never will be.
                    self.close_connection = True
                    self._send(refused.status, "application/json", json.dumps(refused.body).encode())
                    return
                status, media_type, model = success(self.command, parts.path)
                if not isinstance(answer, bytes):
                    answer = {"version": 1} | answer
                    if model is not None:
                        fake.check(answer, model)
                    answer = json.dumps(answer).encode()
                self._send(status, media_type, answer)

            def _body(self) -> bytes:
                if self.headers.get("Transfer-Encoding") == "chunked":
                    content = b""
                    while size := int(self.rfile.readline(), 16):
                        content += self.rfile.read(size)
                        self.rfile.readline()
                    self.rfile.readline()
                    return content
                return self.rfile.read(int(self.headers.get("Content-Length") or 0))

            def _send(self, status: int, kind: str | None, content: bytes) -> None:
                self.send_response(status)
                if kind is not None:
                    self.send_header("Content-Type", kind)
                if status != 204:
                    self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            do_GET = do_PUT = do_POST = do_DELETE = _any

        return Handler

    def route(self, method: str, parts: list[str], query: dict[str, str], body: bytes) -> Any:
        match method, parts:
            case "GET", ["health"]:
                caller = {"name": "ada", "rights": "write", "workspaces": None, "expires": None}
                return {"ok": True, "kaos_version": "0.1.0", "api": 1, "pid": 1, "caller": caller}
            case "GET", ["status", "env"]:
                return {"env": {"PACH_CONFIG": "/a b/pachctl.json", "PACHD_PEER_SERVICE_PORT": "7"}}
            case "GET", ["status"]:
                return STATUS | {"url": self.url}
            case "GET", ["workspaces"]:
                created = "2020-01-01T00:00:00Z"
                return {
                    "workspaces": [
                        {"name": name, "description": "", "created": created, "jobs": 0}
                        for name in self.workspaces
                    ]
                }
            case "POST", ["room"]:
                return {"free_bytes": 1 << 40, "total_bytes": 1 << 41, "missing_bytes": 0}
            case "POST", ["pause"]:
                asked = json.loads(body)
                name, paused = asked["workspace"], asked["paused"]
                return {
                    "everywhere": paused and name is None,
                    "workspaces": [name] if paused and name is not None else [],
                } | self.answer
            case "POST", ["workspaces"]:
                name = json.loads(body)["name"]
                if name in self.workspaces:
                    raise Refused(409, "exists", f"workspace {name} exists")
                self.workspaces[name] = {}
                return {"name": name, "description": "", "created": "", "jobs": 0}
            case method, ["workspaces", ws, *rest]:
                if ws not in self.workspaces:
                    raise Refused(404, "no_such_workspace", f"there is no workspace {ws!r}", name=ws)
                return self._in_workspace(method, ws, rest, query, body)
        raise Refused(404, "not_found", f"no route {method} {parts}")

    def _in_workspace(
        self, method: str, ws: str, parts: list[str], query: dict[str, str], body: bytes
    ) -> Any:
        match method, parts:
            case "GET", []:
                return {
                    "name": ws, "created": "", "source": None, "data": None, "manifest": None,
                    "hyper": None, "jobs": 0, "last_job": None,
                }  # fmt: skip
            case "DELETE", []:
                del self.workspaces[ws]
                return {"jobs": 0, "deleted": True}
            case "GET", ["bundles", kind, "head", "tree"]:
                if (ws, kind) not in self.heads:
                    raise Refused(404, "no_bundle")
                return self.heads[ws, kind]["tree"]
            case "GET", ["bundles", kind, bundle_id]:
                head = self.heads.get((ws, kind))
                found = (
                    head
                    if head and bundle_id in ("head", head["id"])
                    else self.staged.get((ws, kind, bundle_id))
                )
                if found is None:
                    raise Refused(404, "no_bundle")
                return {k: v for k, v in found.items() if k not in ("tree", "contents")}
            case "POST", ["bundles", kind, bundle_id, "missing"]:
                return {"missing": list(json.loads(body)["objects"]), "begun": {}}
            case "PUT", ["bundles", kind, bundle_id]:
                return self._put(ws, kind, bundle_id, query, body)
            case "DELETE", ["bundles", kind, bundle_id]:
                self.staged.pop((ws, kind, bundle_id), None)
                return b""
            case "GET", ["versions", kind]:
                return {"versions": [one for one in self.versions if one["name"].startswith(kind)]}
            case "GET", ["data", "check"]:
                return b"".join(json.dumps(line).encode() + b"\n" for line in self.remote_lines)
            case "POST", ["removals"]:
                self.removals.append(json.loads(body))
                none: dict[str, Any] = {"jobs": [], "source": [], "data": [], "dry_run": False}
                return none | {k: v for k, v in self.removals[-1].items() if k in none} | self.answer
            case "POST", ["deploys"]:
                return self._deploy(ws, json.loads(body))
            case "GET", ["jobs"]:
                return {"jobs": [summary(job) for job in self.jobs.get(ws, [])], "next": None}
            case method, ["jobs", ref, *rest]:
                return self._job(method, ws, ref, rest, query)
        raise Refused(404, "not_found", f"no route {method} {parts}")

    def _put(self, ws: str, kind: str, bundle_id: str, query: dict[str, str], body: bytes) -> Any:
        contents: dict[str, bytes] = {}
        raw = zstandard.ZstdDecompressor().stream_reader(io.BytesIO(body), read_across_frames=True).read()
        with tarfile.open(fileobj=io.BytesIO(raw)) as tar:
            for member in tar:
                assert member.isreg()
                file = tar.extractfile(member)
                assert file is not None
                contents[member.name] = file.read()
        tree = contents.pop(".kaos-tree")
        assert blake3.blake3(tree).hexdigest()[:32] == bundle_id
        known: dict[str, bytes] = {}
        if base := query.get("base"):
            head = self.heads[ws, kind]
            assert head["id"] == base
            known = {blake3.blake3(content).hexdigest(): content for content in head["contents"].values()}
        whole = {}
        sent = 0
        known |= {blake3.blake3(content).hexdigest(): content for content in contents.values()}
        for line in tree.splitlines():
            entry = json.loads(line)
            path = entry["path"]
            if path in contents:
                sent += 1
            whole[path] = contents.get(path, known.get(entry["hash"], b""))
            assert blake3.blake3(whole[path]).hexdigest() == entry["hash"]
            assert len(whole[path]) == entry["size"]
        assert sent == len(contents)
        made = {
            "id": bundle_id, "name": query["name"], "author": "a@b", "created": "2020-01-01T00:00:00Z",
            "files": len(whole), "bytes": sum(map(len, whole.values())),
        }  # fmt: skip
        self.staged[ws, kind, bundle_id] = made | {"tree": tree, "contents": whole}
        return made | {"new_files": sent, "new_bytes": sum(map(len, contents.values())), "known": False}

    def _deploy(self, ws: str, request: dict[str, Any]) -> Any:
        self.deploys.append(request)
        for kind in ("source", "data", "manifest"):
            if request[kind] and (ws, kind, request[kind]) in self.staged:
                self.heads[ws, kind] = self.staged.pop((ws, kind, request[kind]))
        return ANSWER | self.answer

    def _job(self, method: str, ws: str, ref: str, rest: list[str], query: dict[str, str]) -> Any:
        jobs = self.jobs.get(ws, [])
        found = jobs[:1] if ref == "last" else [job for job in jobs if job["id"].startswith(ref)]
        if not found:
            raise Refused(404, "no_such_job", f"workspace {ws} has no job {ref!r}", "kaos train list")
        if len(found) > 1:
            raise Refused(
                409,
                "ambiguous",
                f"{ref!r} is the start of several jobs",
                candidates=[job["id"] for job in found],
            )
        match method, rest:
            case "GET", []:
                return first(found[0], int(query["limit"])) if "limit" in query else found[0]
            case "GET", ["summary"]:
                return summary(found[0])
            case "POST", ["stop"]:
                found[0]["state"] = "killed"
                return summary(found[0])
            case "POST", ["trials", number, "stop"]:
                stopped = next(one for one in found[0]["trials"] if one["trial"] == int(number))
                return stopped | {"job": found[0]["id"], "state": "failed", "reason": "stopped by the user"}
            case "POST", ["retry"]:
                return {
                    "job": "5" * 32, "status": "started", "message": "", "of": found[0]["id"],
                    "stages": ["train"],
                } | self.answer  # fmt: skip
            case "GET", ["logs"]:
                return _blocks(self.log_lines)
            case "GET", ["archive"]:
                return self.archives[query["what"]]
        raise Refused(404, "not_found")


def _blocks(items: list[dict[str, Any]]) -> bytes:
    """As the backend sends them, each line a block of its own."""
    sent, ends = b"", Counter[object]()
    for item in items:
        data = b""
        if "text" in item:
            ts = parse_time(item.get("ts"))
            said = Line(0 if ts is None else microseconds(ts), item.get("user", True), item["text"])
            data = encode(said)
            of = {name: item.get(name) for name in ("stage", "trial", "model")}
            at = ends[item["stage"], item.get("model")]
            to = ends[item["stage"], item.get("model")] = at + len(data)
            item = of | {"at": at, "to": to, "bytes": len(data)}
        sent += json.dumps(item).encode() + b"\n" + data
    return sent
