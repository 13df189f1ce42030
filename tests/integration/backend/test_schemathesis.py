"""The API against its own OpenAPI document, by schemathesis with all its checks, over a real engine."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.backend import Backend, running_backend

HOOKS = "tests.integration.backend.schemathesis_hooks"
# Names that nobody has, made up by schemathesis: what is refused, and how.
ANY = """
[[operations]]
include-path = "/v1/workspaces/{workspace}/deploys"
# What this machine has no schema knows, nor that settings are for a training that has its data.
checks.positive_data_acceptance.expected-statuses = ["2xx", 400, 404, 422]

[[operations]]
include-method = "PUT"
# What an archive must hold no schema can say.
checks.positive_data_acceptance.expected-statuses = ["2xx", 400, 401, 403, 404, 409]
"""
# Of a workspace that has been trained in: what is answered.
TRAINED = """
[parameters]
workspace = "trained"
ref = "last"
bundle_id = "head"

[[operations]]
include-method = "DELETE"
enabled = false

# These go on for as long as somebody listens.
[[operations]]
include-path = "/v1/workspaces/{workspace}/jobs/{ref}/trials/{trial}/shell"
enabled = false

[[operations]]
include-path = "/v1/workspaces/{workspace}/run"
enabled = false

[[operations]]
include-path = "/v1/workspaces/{workspace}/deploys"
# What this machine has no schema knows either, nor that a manifest is given in place of data.
checks.positive_data_acceptance.expected-statuses = ["2xx", 400, 404, 422]

[[operations]]
include-method = "PUT"
checks.positive_data_acceptance.expected-statuses = ["2xx", 400, 404, 409]
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backend]:
    with running_backend(tmp_path_factory.mktemp("home")) as backend:
        backend.workspace("trained")
        backend.deploy_all("trained", hyper={"lr": [0.1, 0.2]})
        backend.wait("trained")
        yield backend


@pytest.mark.parametrize(("config", "examples"), [(ANY, 6), (TRAINED, 4)], ids=["any", "trained"])
def test_schemathesis_finds_nothing(trained: Backend, tmp_path: Path, config: str, examples: int) -> None:
    file = tmp_path / "schemathesis.toml"
    file.write_text(config)
    done = subprocess.run(
        [
            str(Path(sys.executable).with_name("schemathesis")), "--config-file", str(file),
            "run", f"{trained.url}/openapi.json", "--header", f"Authorization: Bearer {trained.token}",
            "--checks", "all", "--seed", "1", "--max-examples", str(examples),
            "--generation-database", "none",
            "--continue-on-failure", "--request-timeout", "20", "--warnings", "off", "--no-color",
        ],
        env={**os.environ, "SCHEMATHESIS_HOOKS": HOOKS, "PYTHONPATH": str(Path(__file__).parents[3])},
        cwd=tmp_path, capture_output=True, text=True, timeout=110, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
