"""Every error code, as an HTTP answer."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest
import requests

from kaos_backend import __version__, errors
from tests.support.backend import DATA, SOURCE, Backend, traces


def test_without_the_token_every_route_refuses(backend: Backend) -> None:
    spec = backend.app.openapi()
    for path, methods in spec["paths"].items():
        for method in methods:
            concrete = re.sub(r"\{[^}]*\}", "x", path).removeprefix("/v1")
            for header in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": backend.token}):
                response = requests.request(method, backend.url + concrete, headers=header, timeout=10)
                assert response.status_code == 401, (method, path)
                assert response.json()["error"]["code"] == "unauthorized"
                assert response.headers["X-Kaos-Version"] == __version__


def test_another_version(backend: Backend) -> None:
    error = backend.error("GET", "/health", 409, "version_mismatch", headers={"X-Kaos-Version": "0.0.9"})
    assert error["fields"] == {"backend": __version__, "client": "0.0.9"}
    backend.call("GET", "/health", headers={"X-Kaos-Version": __version__})


def test_health_and_status(backend: Backend) -> None:
    assert backend.call("GET", "/health")["ok"] is True
    status = backend.call("GET", "/status")
    assert status["engine"]["kind"] == "embedded"
    assert status["machine"]["cpus"] >= 1
    assert status["runtime"]["name"]
    assert status["store"]["free_bytes"] > 0
    assert backend.url.startswith(status["url"])


def test_the_environment_reaches_the_engine(backend: Backend) -> None:
    from pachyderm_sdk import Client
    from pachyderm_sdk.config import ConfigFile

    env = backend.call("GET", "/status/env")["env"]
    client = Client(
        host=env["PACHD_PEER_SERVICE_HOST"],
        port=int(env["PACHD_PEER_SERVICE_PORT"]),
        auth_token=env["PACH_PYTHON_AUTH_TOKEN"],
    )
    assert "default" in [p.project.name for p in client.pfs.list_project()]
    config = Path(env["PACH_CONFIG"])
    assert config.stat().st_mode & 0o777 == 0o600
    assert ConfigFile.from_path(config).active_context.session_token == backend.token
    assert "default" in [p.project.name for p in Client.from_config(config).pfs.list_project()]


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/nowhere", 404, "not_found"),
        ("PATCH", "/health", 405, "method_not_allowed"),
        ("GET", "/health/", 404, "not_found"),
        ("GET", "/health%0A", 404, "not_found"),
        ("GET", "/health?foo=1", 400, "invalid_request"),
        ("GET", "/workspaces/default/jobs?limit=1&limit=2", 400, "invalid_request"),
        ("GET", f"/workspaces/default/jobs/last/logs?tail={'9' * 26}", 400, "invalid_request"),
        ("GET", f"/workspaces/default/jobs/last/logs?trial={'9' * 26}", 400, "invalid_request"),
        ("GET", f"/workspaces/{'x' * 3000}", 414, "uri_too_long"),
        ("GET", f"/workspaces?{'x' * 5000}", 414, "uri_too_long"),
        ("GET", "/workspaces/nope", 404, "no_such_workspace"),
        ("GET", "/workspaces/no..pe", 404, "no_such_workspace"),
        ("DELETE", "/workspaces/nope", 404, "no_such_workspace"),
        ("GET", "/workspaces/nope/jobs", 404, "no_such_workspace"),
        ("GET", "/workspaces/nope/jobs/last", 404, "no_such_workspace"),
        ("GET", "/workspaces/nope/jobs/last/logs", 404, "no_such_workspace"),
        ("GET", "/workspaces/nope/jobs/last/archive?what=model", 404, "no_such_workspace"),
        ("POST", "/workspaces/nope/jobs/last/stop", 404, "no_such_workspace"),
        ("GET", "/workspaces/nope/bundles/data/head", 404, "no_such_workspace"),
        ("PUT", f"/workspaces/nope/bundles/data/{'a' * 32}?name=x", 404, "no_such_workspace"),
        ("GET", "/workspaces/default/jobs?limit=0", 400, "invalid_request"),
        ("GET", "/workspaces/default/jobs/last/archive?what=x", 400, "invalid_request"),
        ("GET", "/workspaces/default/bundles/hyper/head", 400, "invalid_request"),
        ("GET", "/workspaces/default/bundles/data/head/tree", 404, "no_bundle"),
        ("PUT", f"/workspaces/default/bundles/data/{'a' * 32}", 400, "invalid_request"),
    ],
)
def test_wrong_requests(backend: Backend, method: str, path: str, status: int, code: str) -> None:
    backend.error(method, path, status, code)


def test_a_deploy_names_bundles_by_their_ids(backend: Backend, workspace: str) -> None:
    """``head`` is no id, and what is current stays so by being left out."""
    backend.deploy_all(workspace)
    for kind in ("source", "data"):
        error = backend.error(
            "POST", f"/workspaces/{workspace}/deploys", 404, "no_bundle", json={kind: "head"}
        )
        assert "'head'" in error["message"]
        assert "leave it out" in error["hint"]


def test_wrong_jobs(backend: Backend, workspace: str) -> None:
    for ref in ("last", "abc", "f" * 32):
        for tail in ("", "/logs", "/archive?what=code"):
            backend.error("GET", f"/workspaces/{workspace}/jobs/{ref}{tail}", 404, "no_such_job")
        backend.error("POST", f"/workspaces/{workspace}/jobs/{ref}/stop", 404, "no_such_job")


def test_wrong_workspaces(backend: Backend, workspace: str) -> None:
    for name in ("", "-x", "a b", "x" * 60):
        backend.error("POST", "/workspaces", 400, "invalid_name", json={"name": name})
    backend.error("POST", "/workspaces", 409, "exists", json={"name": workspace})
    backend.error("POST", "/workspaces", 400, "invalid_request", json={"nam": "x"})
    backend.error(
        "POST",
        "/workspaces",
        400,
        "invalid_request",
        data=b"{broken",
        headers={"Content-Type": "application/json"},
    )


@pytest.mark.parametrize(
    ("body", "status", "code"),
    [
        ({"source": "a" * 32}, 404, "no_bundle"),
        ({"data": "not an id"}, 404, "no_bundle"),
        ({"hyper": {}}, 400, "invalid_hyper"),
        ({"hyper": [1]}, 400, "invalid_hyper"),
        ({"hyper": {"a": []}}, 400, "invalid_hyper"),
        ({"hyper": {"a": [[1]]}}, 400, "invalid_hyper"),
        ({"parallelism": 0}, 400, "invalid_resources"),
        ({"resources": {"cpu": 0}}, 400, "invalid_resources"),
        ({"resources": {"memory": "lots"}}, 400, "invalid_resources"),
        ({"resources": {"gpu": -1}}, 400, "invalid_resources"),
        ({"resources": {"gpu": 1.5}}, 400, "invalid_request"),
        ({"author": "a\nb"}, 400, "invalid_name"),
        ({"sauce": "x"}, 400, "invalid_request"),
    ],
)
def test_refused_deploys_leave_no_trace(
    backend: Backend, workspace: str, body: dict[str, object], status: int, code: str
) -> None:
    request = {"author": "me@test", **body}
    if "source" not in body and "data" not in body and code != "invalid_request":
        request |= {
            "source": backend.put(workspace, "source", SOURCE),
            "data": backend.put(workspace, "data", DATA),
        }
    backend.error("POST", f"/workspaces/{workspace}/deploys", status, code, json=request)
    assert traces(backend.sdk(), workspace) == {"jobs": []}


def test_not_a_number_is_refused(backend: Backend, workspace: str) -> None:
    backend.error(
        "POST", f"/workspaces/{workspace}/deploys", 400, "invalid_hyper",
        data=b'{"hyper": {"a": NaN}}', headers={"Content-Type": "application/json"},
    )  # fmt: skip


@pytest.mark.parametrize("resources", [{"cpu": 1000}, {"memory": "1000T"}, {"gpu": 99}])
def test_what_never_fits_is_refused_and_leaves_no_trace(
    backend: Backend, workspace: str, resources: dict[str, object]
) -> None:
    source, data = backend.put(workspace, "source", SOURCE), backend.put(workspace, "data", DATA)
    error = backend.error(
        "POST", f"/workspaces/{workspace}/deploys", 422, "never_fits",
        json={"source": source, "data": data, "resources": resources},
    )  # fmt: skip
    assert error["message"].startswith("a trial asks for ")
    assert "but this machine has" in error["message"]
    assert error["hint"] == f"ask for less with --{next(iter(resources))}"
    assert traces(backend.sdk(), workspace) == {"jobs": []}
    assert list(backend.sdk().transaction.list_transaction().transaction_info) == []


def test_every_error_code_is_in_the_documentation() -> None:
    text = (Path(__file__).parents[3] / "docs" / "api.md").read_text()
    for error in errors.all_errors():
        assert f"`{error.code}`" in text, error.code
        assert str(error.http_status) in text


def test_every_error_has_a_hint_or_speaks_for_itself() -> None:
    """The tree is flat: every class directly below KaosError has a code and a status of its own."""
    codes = [e.code for e in errors.all_errors()]
    assert len(set(codes)) == len(codes)
    defined = [c for _, c in inspect.getmembers(errors, inspect.isclass) if issubclass(c, errors.KaosError)]
    assert set(defined) == {errors.KaosError, *errors.all_errors()}
