"""Every request that the command line can make is one that the backend's OpenAPI document knows."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from kaos_cli.client import KaosClient
from kaos_cli.errors import ConnectionLost, KaosError
from kaos_cli.transport import Endpoint, Transport
from kaos_formats.handover import Folder
from tests.support.contract import document, operation


class Recorder(Transport):
    """Writes down what would be sent, and answers nothing."""

    def __init__(self) -> None:
        super().__init__(Endpoint("http://127.0.0.1:9", "t", local=False))
        self.sent: list[tuple[str, str, Any]] = []

    def open(self, method: str, path: str, *_: object, **__: object) -> Any:
        self.sent.append((method, path, None))
        raise ConnectionLost("recorded")

    def json(self, method: str, path: str, body: Any = None, *_: object, **__: object) -> Any:
        self.sent.append((method, path, body))
        raise ConnectionLost("recorded")


REQUEST = {
    "source": "a", "data": None, "manifest": None, "refresh": False, "hyper": {"x": [1]}, "parallelism": 1,
    "resources": {"cpu": 1.0, "memory": "1G", "gpu": 0}, "author": "a@b", "retry": False,
    "replace": False, "build_args": {"CUDA": "12"}, "build_secrets": None,
}  # fmt: skip

CALLS = {
    "status": lambda c: c.status(),
    "env": lambda c: c.env(),
    "workspaces": lambda c: c.workspaces(),
    "workspace": lambda c: c.workspace("w"),
    "create": lambda c: c.create_workspace("w", "d"),
    "delete": lambda c: c.delete_workspace("w"),
    "bundle": lambda c: c.bundle("w", "source", "f" * 32),
    "tree": lambda c: c.head_tree("w", "data"),
    "put": lambda c: c.put_bundle("w", "data", "f" * 32, "n", "e" * 32, lambda: iter(())),
    "missing": lambda c: c.missing("w", "data", "f" * 32, {"ab" * 32: 1}),
    "take": lambda c: c.take_bundle("w", "data", "n", list).__enter__(),
    "forget": lambda c: c.forget_bundle("w", "data", "f" * 32),
    "deploy": lambda c: c.deploy("w", REQUEST),
    "tokens": lambda c: c.tokens(),
    "create token": lambda c: c.create_token({"name": "n", "expires_s": 1.0, "author": "a@b"}),
    "revoke token": lambda c: c.revoke_token("n"),
    "room": lambda c: c.room(1, {"ab" * 32: 1}),
    "versions": lambda c: c.versions("w", "data"),
    "remove": lambda c: c.remove("w", {"jobs": ["last"], "data": ["ab"], "force": True, "dry_run": True}),
    "jobs": lambda c: c.jobs("w", 3),
    "job": lambda c: c.job("w", "last", "accuracy", "asc"),
    "summary": lambda c: c.summary("w", "last"),
    "stop": lambda c: c.stop("w", "last", "a@b"),
    "retry": lambda c: c.retry("w", "last", True, "a@b"),
    "stop trial": lambda c: c.stop_trial("w", "last", 3, "a@b"),
    "pause": lambda c: c.pause("w", True),
    "run": lambda c: list(c.run("w", {"source": None, "params": {"x": 1}, "resources": {}, "keep": True})),
    "shell": lambda c: list(c.shell("w", "last", 3, {"rows": 24, "columns": 80, "term": "xterm"})),
    "type": lambda c: c.type("f" * 32, {"typed": "YQ==", "rows": 24, "columns": 80}),
    "logs": lambda c: list(c.logs("w", "last", 1, True, True, 5)),
    "check": lambda c: list(c.check(True)),
    "check data": lambda c: list(c.check_data("w")),
    "collect": lambda c: list(c.collect(True)),
    "disk": lambda c: c.disk(),
    "export": lambda c: list(c.export("w", "last", "data", Folder("/f", 1, 2), 0o644)),
    "archive": lambda c: c.archive("w", "last", "model", "m").__enter__(),
}


def test_every_method_of_the_client_is_called_here() -> None:
    methods = {n for n in vars(KaosClient) if not n.startswith("_")} - {"transport", "close", "hands_over"}
    assert len(methods) == len(CALLS)


@pytest.mark.parametrize("name", CALLS)
def test_the_backend_knows_the_request(name: str) -> None:
    recorder = Recorder()
    with pytest.raises(KaosError):
        CALLS[name](KaosClient(lambda: recorder))
    method, target, body = recorder.sent[0]
    parts = urlsplit("/v1" + target)
    documented = operation(method, parts.path)
    known = {p["name"] for p in documented["parameters"] if p["in"] == "query"}
    assert set(parse_qs(parts.query)) <= known
    if body is not None:
        schema = resolve(documented["requestBody"]["content"]["application/json"]["schema"])
        check(schema, body)


def resolve(schema: dict[str, Any]) -> dict[str, Any]:
    if "$ref" in schema:
        found: dict[str, Any] = document()["components"]["schemas"][Path(schema["$ref"]).name]
        return found
    return schema


def check(schema: dict[str, Any], body: dict[str, Any]) -> None:
    schema = resolve(schema)
    properties = schema.get("properties", {})
    assert set(body) <= set(properties)
    assert set(schema.get("required", [])) <= set(body)
    for name, value in body.items():
        below = resolve(properties[name])
        if isinstance(value, dict) and below.get("properties"):
            check(below, value)
