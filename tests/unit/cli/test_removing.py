"""`kaos train rm`, `kaos data|source list|rm`: what is asked, said and sent."""

from __future__ import annotations

import pytest

from kaos_cli import removing
from tests.unit.cli.conftest import OTHER_ID, Cli
from tests.unit.cli.fake import FakeBackend
from tests.unit.cli.samples import DATA, JOB_ID


@pytest.fixture
def data(backend: FakeBackend) -> FakeBackend:
    old = DATA | {"id": "77" * 16, "name": "data-of-last-year-with-a-very-long-name" * 2}
    backend.versions = [
        DATA | {"name": "data-new", "current": True, "jobs": [JOB_ID]},
        old | {"current": False, "jobs": []},
    ]
    return backend


def test_versions_fit_a_terminal_and_have_rows_that_rm_takes(cli: Cli, data: FakeBackend) -> None:
    lines = cli("data", "list").out.splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[0].split()[:3] == ["#", "*", "version"]
    assert lines[1].split()[:3] == ["0", "*", "5c3ca7bb"]
    assert [one["current"] for one in cli("data", "list", "--json").json["versions"]] == [True, False]
    assert cli("source", "list").out == "no source in workspace default yet\n"

    done = cli("data", "rm", "1", "--yes")
    assert (done.code, done.out) == (0, f"removed data {'77' * 3}\n")
    assert data.removals == [{"data": ["77" * 16], "force": False}]
    assert cli("data", "rm", "7", "-y").code == 3
    assert cli("data", "rm", "data-new", "-y").code == 3


def test_jobs_go_by_row_prefix_or_last_and_only_after_a_yes(
    cli: Cli, two: FakeBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    cli("train", "list")
    two.answer = {"jobs": [OTHER_ID, JOB_ID]}
    refused = cli("train", "rm", "0", "4f1c", "last")
    assert refused.code == 2
    assert "needs a yes" in refused.err
    assert two.removals == [{"jobs": [OTHER_ID, "4f1c", "last"], "force": False, "dry_run": True}]

    class Terminal:
        @staticmethod
        def isatty() -> bool:
            return True

    monkeypatch.setattr(removing.sys, "stdin", Terminal)
    asked = []
    monkeypatch.setattr(removing.typer, "confirm", lambda text, **_: asked.append(text) or len(asked) > 1)
    assert cli("train", "rm", "last").code == 1
    assert [one.get("dry_run") for one in two.removals] == [True, True]
    done = cli("train", "rm", "last", "--force")
    assert (done.code, done.out) == (0, "removed 2 jobs (77777777, 4f1c0de2) with their models and logs\n")
    assert asked == ["Remove 2 jobs (77777777, 4f1c0de2) with their models and logs?"] * 2
    # What was shown, though `last` may be another one by now.
    assert two.removals[-1] == {"jobs": [OTHER_ID, JOB_ID], "source": [], "data": [], "force": True}
    assert cli("train", "rm", "last", "--yes", "--json").json["jobs"] == [OTHER_ID, JOB_ID]
