"""(b) A redeploy that has nothing to do. (c) `--help`."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

from bench.kaos import started, write_source
from bench.measure import Command, Row, Timing, alternate, clean_env, compare
from bench.measure import run as call
from bench.places import REPOSITORY, Run, dvc, dvc_env, kaos_command

MINIMAL_TYPER = '''import typer

app = typer.Typer()


@app.command()
def hello(name: str, loud: bool = False) -> None:
    """Say hello."""
    typer.echo(f"Hello {name}" + "!" * loud)


@app.command()
def goodbye(name: str) -> None:
    """Say goodbye."""
    typer.echo(f"Goodbye {name}")
'''


def measure_noop(run: Run) -> list[Row]:
    """The mnist digits (1.6 MB in 7 files), a small source and a grid, all deployed and up to date."""
    n = 2 if run.quick else 9
    source = write_source(run.fresh("noop") / "bench")
    data = run.fresh("noop-data") / "data"
    shutil.copytree(REPOSITORY / "templates" / "mnist" / "data", data)
    hyper = source.parent / "params.json"
    hyper.write_text(json.dumps({"seed": [1, 2, 3, 4, 5, 6]}))
    inputs: Command = ["-s", source, "-d", data, "-h", hyper]

    repo = dvc_pipeline(run, source, data)
    with started(run.fresh("noop-home")) as kaos:
        kaos("train", "deploy", *inputs, "--wait")
        others = alternate(
            {
                "python": ([sys.executable, "-c", "pass"], None, clean_env()),
                "dvc": ([dvc(), "repro"], repo, dvc_env(repo.parent)),
            },
            n,
        )
        noop = Timing(tuple(kaos.timed_noop(*inputs, n=n)))
    return [
        compare(
            "b", "redeploy with nothing to do, the whole command", noop, "python -c pass", others["python"]
        ),
        compare("b", "the same", noop, "dvc repro, up to date", others["dvc"], below=0.5),
    ]


def dvc_pipeline(run: Run, source: Path, data: Path) -> Path:
    """The same files as one dvc stage, run once."""
    repo = run.fresh("noop-dvc") / "repo"
    shutil.copytree(source, repo / "source")
    shutil.copytree(data, repo / "data")
    (repo / "params.yaml").write_text("seed: 1\n")
    (repo / "dvc.yaml").write_text(
        "stages:\n"
        "  train:\n"
        "    cmd: mkdir -p model && source/train model\n"
        "    deps: [source, data]\n"
        "    params: [seed]\n"
        "    outs: [model]\n"
    )
    env = dvc_env(repo.parent)
    call([dvc(), "init", "--no-scm", "-q"], repo, env)
    call([dvc(), "repro"], repo, env)
    return repo


def measure_help(run: Run) -> list[Row]:
    """The console scripts of kaos and of a Typer app with two commands, in the same environment."""
    n = 3 if run.quick else 21
    where = run.fresh("typer")
    (where / "minimal_typer.py").write_text(MINIMAL_TYPER)
    script = where / "minimal"
    # A console script is a few lines that import a compiled module; so is this one.
    script.write_text(f"#!{sys.executable}\nimport sys\nfrom minimal_typer import app\nsys.exit(app())\n")
    script.chmod(0o755)
    env = clean_env({"KAOS_HOME": str(run.fresh("help-home"))})
    timings = alternate(
        {
            "kaos": ([kaos_command(), "--help"], None, env),
            "typer": ([script, "--help"], None, env),
            "python": ([sys.executable, "-c", "pass"], None, env),
        },
        n,
    )
    kaos = timings["kaos"]
    return [
        compare("c", "`kaos --help`", kaos, "minimal Typer app, --help", timings["typer"], below=1.3),
        compare("c", "the same", kaos, "python -c pass", timings["python"]),
    ]
