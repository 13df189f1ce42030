"""One backend for several people: TLS, tokens, hostile clients, restarts."""

from __future__ import annotations

import json
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from bench.load.client import POINTS, TRAIN, Client, at_once
from kaos_cli.transport import Endpoint
from kaos_formats.home import read_running
from tests.support.bundles import write_data, write_grid, write_source
from tests.support.home import Home
from tests.support.shared import Shared
from tests.support.waiting import eventually


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shared]:
    served = Shared(
        tmp_path_factory.mktemp("shared"),
        KAOS_LIMITS="head_s=1,connections=24,token_burst=60,token_requests_s=20",
    )
    try:
        yield served.start()
    finally:
        served.close()


def ask(shared: Shared, method: str, path: str, token: str, **kwargs: Any) -> requests.Response:
    headers = {"Authorization": f"Bearer {token}"} | kwargs.pop("headers", {})
    return requests.request(
        method, f"{shared.url}/v1{path}", headers=headers, verify=str(shared.tls.ca), timeout=30, **kwargs
    )


def test_a_colleague_deploys_over_the_network_and_the_server_is_killed_meanwhile(
    shared: Shared, tmp_path: Path
) -> None:
    ann = shared.colleague("ann", "--workspace", "hers", "--expires", "1h")
    shared.home.run("workspace", "create", "theirs")
    ann.run("workspace", "create", "hers")
    ann.run("workspace", "set", "hers")
    src, data = write_source(tmp_path / "src"), write_data(tmp_path / "data")
    grid = write_grid(tmp_path / "grid.json", {"x": [1, 2]})
    waiting = ann.spawn("train", "deploy", "-s", src, "-d", data, "-h", grid, "--wait", "--json")
    eventually(lambda: ann.json("train", "list")["jobs"], "the job is there")
    # It is another one that goes on with it, on the same port.
    shared.end(signal.SIGKILL)
    shared.start()
    out, err = waiting.communicate(timeout=60)
    assert waiting.returncode == 0, err
    assert json.loads(out)["status"] == "started"
    found = ann.json("workspace", "info")
    assert (found["source"]["author"], found["hyper"]["author"]) == ("ann", "ann")
    assert [t["state"] for t in ann.json("train", "info")["trials"]] == ["success"] * 2
    ann.run("train", "get", "-o", tmp_path / "got")
    # Nothing was started on that machine, and nothing of others is told.
    assert not (ann.path / "backend.json").exists()
    assert [one["name"] for one in ann.json("workspace", "list")["workspaces"]] == ["hers"]
    refused = ann.run("train", "list", "-w", "theirs", check=False)
    assert refused.returncode == 4
    assert "is not for workspace theirs" in refused.stderr
    assert ann.run("status", "--env", check=False).returncode == 4
    shared.home.run("token", "revoke", "ann")
    assert "wrong token" in ann.run("train", "list", check=False).stderr


def test_many_deploy_follow_and_list_at_once(shared: Shared, tmp_path: Path) -> None:
    """A short one of `python -m bench.load`."""
    shared.home.run("workspace", "create", "team")
    src, data = write_source(tmp_path / "src"), write_data(tmp_path / "data")
    (src / "train").write_text(TRAIN)
    shared.home.run("train", "deploy", "-w", "team", "-s", src, "-d", data, "--wait")
    ca_cert = shared.tls.ca.read_text()
    tokens = [shared.make_token(f"client-{number}", "team") for number in range(4)]
    clients = [
        Client(
            number, Endpoint(shared.url, token, local=False, ca_cert=ca_cert), "team", lambda done: done > 0
        )
        for number, token in enumerate(tokens)
    ]
    assert at_once(clients) == []
    assert sum(client.trials for client in clients) == len(clients) * POINTS


def test_what_others_send_is_refused_and_costs_nobody_else(shared: Shared) -> None:
    token = shared.token("ben", "--rights", "read")
    owner = (shared.home.path / "token").read_text().strip()
    # The owner's token is good on the machine itself, and only there where others do not come.
    assert ask(shared, "GET", "/health", owner).status_code == 401
    assert ask(shared, "GET", "/health", token, headers={"Host": "evil.example"}).status_code == 403
    assert ask(shared, "POST", "/tokens", token, json={"name": "eve"}).status_code == 403
    strangers = []
    # Each of them takes a place where handshakes are made, or speaks no TLS, and never ends.
    for number in range(60):
        stranger = socket.create_connection(("127.0.0.1", shared.port))
        strangers.append(stranger)
        if number % 2:
            stranger.send(b"GET / HTTP/1.1\r\n\r\n")
    answers: list[int] = []

    def honest() -> None:
        answers.append(ask(shared, "GET", "/health", token).status_code)

    threads = [threading.Thread(target=honest) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == [200] * 8
    for stranger in strangers:
        stranger.settimeout(10)
        assert drained(stranger), "no stranger is left connected"
        stranger.close()


def drained(connection: socket.socket) -> bool:
    try:
        while connection.recv(4096):
            pass
    except ConnectionError:
        pass
    return True


def test_too_many_requests_are_waited_with(shared: Shared) -> None:
    token = shared.token("cat")
    with requests.Session() as http:
        http.trust_env = False
        http.verify, http.headers["Authorization"] = str(shared.tls.ca), f"Bearer {token}"
        refused = next(
            answer
            for answer in (http.get(f"{shared.url}/v1/health", timeout=30) for _ in range(500))
            if answer.status_code == 429
        )
    assert int(refused.headers["Retry-After"]) >= 1
    assert refused.json()["error"]["code"] == "too_many_requests"


def test_a_new_certificate_is_served_without_a_restart(shared: Shared) -> None:
    def served() -> bytes | None:
        with (
            socket.create_connection(("localhost", shared.port)) as plain,
            shared.tls.context().wrap_socket(plain, server_hostname="localhost") as secured,
        ):
            return secured.getpeercert(binary_form=True)

    token, before = shared.token("dan"), served()
    assert ask(shared, "GET", "/health", token, headers={"Host": "new.example"}).status_code == 403
    # Half of it changes nothing.
    whole = shared.tls.cert.read_bytes()
    shared.tls.cert.write_bytes(whole[:200])
    shared.serving.send_signal(signal.SIGHUP)
    assert served() == before
    shared.tls.issue("*.example")
    eventually(lambda: served() != before, "the new one is served")
    assert ask(shared, "GET", "/health", token, headers={"Host": "new.example"}).status_code == 200


def test_it_ends_well_and_there_is_one_of_it(shared: Shared) -> None:
    again = shared.home.run("backend", "serve", check=False)
    assert (again.returncode, "serves already" in again.stderr) == (2, True)
    pid = read_running(shared.home_of(), "engine")
    code, log = shared.end(signal.SIGINT)
    assert code == 0
    assert "Traceback" not in log
    assert f"serving others at https://127.0.0.1:{shared.port}" in log
    # What runs goes on; the backend that a command starts makes way for the one that serves.
    assert shared.home.run("workspace", "list").returncode == 0
    shared.start()
    assert read_running(shared.home_of(), "engine") == pid


def test_nothing_is_served_to_others_without_tls(tmp_path: Path) -> None:
    refused = Home(tmp_path / "home").run("backend", "serve", "--host", "0.0.0.0", check=False)
    assert refused.returncode == 2
    assert "others could read tokens" in refused.stderr
    assert "Traceback" not in refused.stderr
