"""`kaos train list|info|logs`: golden output at 80 columns, references."""

from __future__ import annotations

import json
import re

import pytest

from tests.unit.cli.conftest import OTHER_ID, Cli
from tests.unit.cli.fake import FakeBackend
from tests.unit.cli.samples import JOB_ID, job, stage, trial


def test_list(cli: Cli, two: FakeBackend) -> None:
    done = cli("train", "list")
    assert re.sub(r"  \d{4,}d  ", "  2000d  ", done.out) == (
        "#  job       state    done  failed  skipped    age  time  source\n"
        "0  77777777  running   6/9       1        2  2000d        mnist:1909d1\n"
        "1  4f1c0de2  partial   1/2       1        0  2000d   12s  mnist:1909d1\n"
    )
    assert "(--all shows them)" in done.err
    assert "features:5c3ca7" in cli("train", "list", "--all").out


def test_list_as_json_and_formats(cli: Cli, two: FakeBackend) -> None:
    assert [one["id"] for one in cli("train", "list", "--json").json["jobs"]] == [OTHER_ID, JOB_ID]
    assert cli("train", "list", "--format", "github").out.startswith("|   # | job")
    tsv = cli("train", "list", "--format", "tsv").out.splitlines()
    assert len(tsv[1].split("\t")) == 10
    assert cli("train", "list", "--format", "nonsense").code == 2


def test_no_jobs_is_no_error(cli: Cli, backend: FakeBackend) -> None:
    done = cli("train", "list")
    assert (done.code, done.out) == (0, "no jobs in workspace default yet\n")
    assert cli("train", "list", "--json").json == {"version": 1, "jobs": []}


def test_info(cli: Cli, two: FakeBackend) -> None:
    done = cli("train", "info", JOB_ID)
    assert max(map(len, done.out.splitlines())) <= 80
    assert done.out[done.out.index("trial  model") :] == (
        "trial  model                   state      lr  accuracy  loss  time\n"
        "    0  1909d1-5c3ca7-00000000  success   0.1       0.9   0.1  1.5s\n"
        "    1  1909d1-5c3ca7-00000001  failed   0.01                  1.5s\n"
        "sorted by accuracy, highest first (a guess; --asc turns it)\n"
        "trial 1 failed: exit code 1\n"
    )
    assert done.err == "  → kaos train logs 4f1c0de2 --trial 1 shows all of it\n"
    assert cli("train", "info", JOB_ID, "-q").err == ""
    for told in (
        JOB_ID,
        "by ada@lab",
        "mnist:1909d1",
        "6 files, 1.60 MB",
        "1 of 2 done, 1 failed, 0 skipped",
    ):
        assert told in done.out


def test_rows_mean_what_was_shown(cli: Cli, two: FakeBackend) -> None:
    cli("train", "list")
    two.jobs["default"].insert(0, job(id="0" * 32))
    assert cli("train", "info", "1", "--json").json["id"] == JOB_ID
    assert cli("train", "info", "-i", "0", "--json").json["id"] == OTHER_ID
    assert cli("train", "info", "-j", "77", "--json").code == 3
    assert cli("train", "info", "777777", "--json").json["id"] == OTHER_ID
    assert cli("train", "info", "4f1c", "--json").json["id"] == JOB_ID
    assert cli("train", "info", "--json").json["id"] == "0" * 32
    # Answers to programs are no listings.
    cli("train", "list", "--json")
    assert cli("train", "info", "1", "--json").json["id"] == JOB_ID


def test_unknown_and_ambiguous_jobs(cli: Cli, two: FakeBackend) -> None:
    done = cli("train", "info", "deadbeef")
    assert done.code == 3
    assert "deadbeef" in done.err
    two.jobs["default"].append(job(id="7777777" + "8" * 25))
    done = cli("train", "info", "777777")
    assert done.code == 2
    assert OTHER_ID in done.err


def test_unknown_metric_suggests_one(cli: Cli, two: FakeBackend) -> None:
    done = cli("train", "info", JOB_ID, "--sort-by", "acuracy")
    assert done.code == 3
    assert "did you mean 'accuracy'" in done.err


def test_wide_tables_drop_columns_but_never_the_metric_sorted_by(cli: Cli, backend: FakeBackend) -> None:
    names = [f"parameter_{i}" for i in range(12)]
    trials = [trial(n, **dict.fromkeys(names, n * 1.5)) for n in range(2)]
    backend.jobs["default"] = [job(trials=trials)]
    done = cli("train", "info")
    assert max(map(len, done.out.splitlines())) <= 80
    assert "accuracy" in done.out
    assert "parameter_11" in done.err
    assert "parameter_11" in cli("train", "info", "--all").out


def test_logs_are_prefixed_when_of_several(cli: Cli, two: FakeBackend) -> None:
    def line(text: str, trial: int | None) -> dict[str, object]:
        return {
            "stage": "build" if trial is None else "train",
            "trial": trial,
            "model": f"m{trial}",
            "ts": "2020",
            "user": True,
            "text": text,
        }

    two.log_lines = [line("Step 1", None), line("epoch 1\x1b[2J", 0), {"end": True, "state": "partial"}]
    done = cli("train", "logs", JOB_ID)
    assert (done.code, done.out) == (0, "build   | Step 1\ntrial 0 | epoch 1\\x1b[2J\n")
    assert cli("train", "logs", JOB_ID, "--trial", "0").out.startswith("Step 1\n")
    followed = cli("train", "logs", JOB_ID, "-f", "--json")
    assert followed.code == 1
    first = json.loads(followed.out.splitlines()[0])
    assert (first["version"], first["text"]) == (1, "Step 1")


def said(text: str, trial: int | None = 0, second: int = 0) -> dict[str, object]:
    stage = "build" if trial is None else "train"
    ts = f"2020-01-01T00:00:{second:02}Z"
    return {"stage": stage, "trial": trial, "model": f"m{trial}", "ts": ts, "user": True, "text": text}


def test_logs_are_searched(cli: Cli, two: FakeBackend) -> None:
    two.log_lines = [
        said("loss of pip", None, 1), said("epoch 1 loss 0.5", 0, 2), said("saved", 0, 3),
        said("epoch 2 loss 0.4", 0, 4), said("epoch 1 loss 0.7", 1, 2), {"end": True, "state": "success"},
    ]  # fmt: skip
    assert cli("train", "logs", JOB_ID, "--grep", r"loss 0\.[45]").out == (
        "trial 0 | epoch 1 loss 0.5\ntrial 0 | epoch 2 loss 0.4\n"
    )
    # The last that match, not those of the last that do.
    assert cli("train", "logs", JOB_ID, "-g", "epoch", "--tail", "1").out == (
        "trial 0 | epoch 2 loss 0.4\ntrial 1 | epoch 1 loss 0.7\n"
    )
    late = cli("train", "logs", JOB_ID, "--since", "2020-01-01T00:00:03Z")
    assert late.out == "trial 0 | saved\ntrial 0 | epoch 2 loss 0.4\n"
    done = cli("train", "logs", JOB_ID, "--since", "10m", "-f")
    assert (done.code, done.out) == (0, "")
    assert "no such lines; the job is success" in done.err
    for wrong in (["--grep", "("], ["--since", "yesterday"], ["-f", "--tail", "1", "-g", "x"]):
        assert cli("train", "logs", JOB_ID, *wrong).code == 2


def test_logs_of_what_failed(cli: Cli, backend: FakeBackend) -> None:
    trials = [trial(0), trial(1, state="failed"), trial(2, state="failed")]
    backend.jobs["default"] = [job("partial", trials=trials)]
    backend.log_lines = [said("no such file", 1), {"end": True, "state": "partial", "reason": ""}]
    done = cli("train", "logs", "--failed")
    assert (done.code, done.out) == (0, "trial 1 | no such file\n" * 2)
    assert cli("train", "logs", "--failed", "-f").code == 2
    assert cli("train", "logs", "--failed", "--trial", "1").code == 2
    backend.jobs["default"] = [job(trials=[trial(0)])]
    done = cli("train", "logs", "--failed")
    assert (done.code, done.out) == (0, "")
    assert "no trial of job 4f1c0de2 has failed" in done.err


def test_logs_that_break_off_go_on_where_they_were(
    cli: Cli, two: FakeBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    from kaos_cli import logview

    monkeypatch.setattr(logview, "PAUSE_MAX_S", 0.001)
    lines = [
        {
            "stage": "train",
            "trial": 0,
            "model": "m",
            "ts": f"2020-01-01T00:00:0{i}Z",
            "user": True,
            "text": str(i),
        }
        for i in range(4)
    ]
    two.log_lines = lines[:2]
    real = two.route
    calls = []

    def broken(*args: object) -> object:
        answer = real(*args)  # type: ignore[arg-type]
        if args[1][-1:] == ["logs"]:  # type: ignore[index]
            calls.append(1)
            if len(calls) == 1:
                two.log_lines = [*lines, {"end": True, "state": "success"}]
                assert isinstance(answer, bytes)
                return answer + b'{"half'
        return answer

    monkeypatch.setattr(two, "route", broken)
    done = cli("train", "logs", JOB_ID, "-f", "--trial", "0")
    assert (done.code, done.out) == (0, "0\n1\n2\n3\n")


def test_no_lines_yet(cli: Cli, two: FakeBackend) -> None:
    two.log_lines = [{"end": True, "state": "waiting", "reason": "waits for job 0f3a11c2"}]
    done = cli("train", "logs", JOB_ID)
    assert (done.code, done.out) == (1, "")
    assert "no lines yet, as the job is waiting: waits for job 0f3a11c2" in done.err
    assert json.loads(cli("train", "logs", JOB_ID, "--json").err)["error"]["code"] == "waiting"
    waits = {"state": "waiting", "reason": "waits for 2 cores"}
    two.log_lines = [{"end": True, "state": "running", "reason": "", "trial": waits}]
    done = cli("train", "logs", JOB_ID, "--trial", "1")
    assert done.code == 1
    assert "trial 1 is waiting: waits for 2 cores" in done.err
    # One that runs, or is done, and has said nothing is another thing.
    two.log_lines = [
        {"end": True, "state": "running", "reason": "", "trial": {"state": "running", "reason": ""}}
    ]
    done = cli("train", "logs", JOB_ID, "--trial", "1")
    assert (done.code, done.err) == (0, "no lines yet; trial 1 is running\n")


def test_who_follows_is_told_what_it_waits_for(cli: Cli, two: FakeBackend) -> None:
    two.log_lines = [
        {"waiting": True, "reason": "waits for job 0f3a11c2"},
        {"stage": "train", "trial": 0, "model": "m", "ts": "2020", "user": True, "text": "epoch 1"},
        {"end": True, "state": "success", "reason": ""},
    ]
    done = cli("train", "logs", JOB_ID, "-f")
    assert (done.code, done.out) == (0, "trial 0 | epoch 1\n")
    assert "waiting: waits for job 0f3a11c2" in done.err


def test_the_list_says_what_a_job_waits_for(cli: Cli, two: FakeBackend) -> None:
    two.jobs["default"].insert(0, job("waiting", id="0" * 32, reason="waits for job 77777777"))
    assert "waits for job 77777777" in cli("train", "list", "--all").out


def test_what_is_not_finite_is_shown_and_what_could_not_be_read_is_noted(
    cli: Cli, backend: FakeBackend
) -> None:
    trials = [trial(n, lr=n) | {"metrics": {"accuracy": v}} for n, v in enumerate((0.5, "Infinity", "NaN"))]
    trials[2]["notes"] = ["metrics-2.json: no JSON: Expecting value at line 1, column 3"]
    backend.jobs["default"] = [job("success", trials)]
    done = cli("train", "info").out
    assert [row.split()[4] for row in done.splitlines() if "1909d1-5c3ca7-" in row] == ["0.5", "inf", "nan"]
    assert "trial 2: metrics-2.json: no JSON: Expecting value at line 1, column 3" in done


def test_a_failed_build_points_to_its_log(cli: Cli, backend: FakeBackend) -> None:
    stages = [
        stage("failed", 1, 0, 0, name="build", reason="pip says no"),
        stage("unrunnable", 2, 0, reason="the build failed"),
    ]
    backend.jobs["default"] = [job("failed", [], stages=stages, reason="the build failed: pip says no")]
    done = cli("train", "info").out
    assert "train   unrunnable: the build failed; 0 of 2 done" in done
    assert "kaos train logs 4f1c0de2 --stage build" in cli("train", "info").err
