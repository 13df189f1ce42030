"""How jobs and trials look: values of the API in, tables and lines out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from kaos_cli import text
from kaos_cli.failures import show_failures
from kaos_cli.render import Column, Table, show
from kaos_cli.session import Session
from kaos_formats.quantity import format_bytes

Json = Mapping[str, Any]
LEADERS = 10
NOTES = 5
DONE = frozenset({"success", "skipped"})


def jobs_table(jobs: Sequence[Json], now: datetime) -> Table:
    """One row per job, newest first, numbered as ``-i`` takes it."""
    columns = [
        Column("#", right=True),
        Column("job"),
        Column("state", state=True),
        Column("done", right=True),
        Column("failed", right=True),
        Column("skipped", right=True, drop=2),
        Column("age", right=True),
        Column("time", right=True),
        Column("source", drop=3),
        Column("data", drop=4),
    ]
    told = any(job.get("reason") for job in jobs)
    columns += [Column("reason", shrink=True)] if told else []
    rows = []
    for number, job in enumerate(jobs):
        train = with_trials(job)
        rows.append(
            [
                str(number),
                job["id"][:8],
                job["state"],
                f"{train['processed'] + train['skipped']}/{train['total']}" if train else "",
                str(train["failed"]) if train else "",
                str(train["skipped"]) if train else "",
                text.age(job.get("created"), now),
                text.duration(job.get("duration_s")),
                label(job.get("source")),
                label(job.get("data")),
                *([text.printable(job["reason"])] if told else []),
            ]
        )
    return Table(columns, rows)


def with_trials(job: Json) -> Json | None:
    """The stage of a job whose counts are of trials, if it has one."""
    return next((stage for stage in job["stages"] if stage["trials"]), None)


def has_models(job: Json) -> bool:
    """Whether any trial of a job is done."""
    train = with_trials(job)
    return train is not None and train["processed"] + train["skipped"] > 0


def label(bundle: Json | None) -> str:
    """Its name and id; what is being fetched has no id yet."""
    return f"{bundle['name']}:{bundle['id'][:6]}".removesuffix(":") if bundle else ""


def bundle_line(bundle: Json, manifest: Json | None = None) -> str:
    """A bundle, how much it is, and the manifest that it was fetched for."""
    if manifest is not None and not bundle["id"]:
        return f"{label(bundle)}  of manifest {manifest['id'][:6]}, not fetched"
    amount = f"{text.files(bundle['files'])}, {text.size(bundle['bytes'])}"
    fetched = f", fetched (manifest {manifest['id'][:6]})" if manifest is not None else ""
    return f"{label(bundle)}  {amount}{fetched}"


def trials_table(job: Json, trials: Sequence[Json]) -> Table:
    """One row per trial: params that differ, state, model id, the metric sorted by and then the others."""
    metric = job.get("metric") or {}
    others = [name for name in job.get("metrics", []) if name != metric.get("name")]
    params = job["varied"]
    columns = [Column("trial", right=True), Column("model"), Column("state", state=True)]
    columns += [Column(name, right=True, drop=2) for name in params]
    columns += [Column(metric["name"], right=True)] if metric else []
    columns += [Column(name, right=True, drop=4) for name in others]
    columns += [Column("time", right=True, drop=3)]
    rows = []
    for trial in trials:
        cells = [str(trial["trial"]), trial["model"], trial["state"]]
        cells += [text.number(trial["params"].get(name)) for name in params]
        cells += [text.metric(trial["metrics"].get(metric["name"]))] if metric else []
        cells += [text.metric(trial["metrics"].get(name)) for name in others]
        rows.append([text.printable(cell) for cell in [*cells, text.duration(trial.get("duration_s"))]])
    return Table(columns, rows)


def order_line(job: Json) -> str:
    """How the trials are sorted, and whether somebody said so; "" without a metric."""
    metric = job.get("metric")
    if not metric:
        return ""
    direction = "highest first" if metric["order"] == "desc" else "lowest first"
    turn = "--asc" if metric["order"] == "desc" else "--desc"
    guessed = f" (a guess; {turn} turns it)" if metric.get("guessed") else ""
    return f"sorted by {metric['name']}, {direction}{guessed}"


def heading(job: Json, now: datetime) -> list[str]:
    """The lines above a job's trials: what went in, by whom, and how far it is."""
    inputs = job.get("inputs") or {}
    state = job["state"] + (f": {job['reason']}" if job.get("reason") else "")
    created = text.age(job.get("created"), now)
    lines = [f"job     {job['id']}", f"state   {state}"]
    if created:
        took = f", took {text.duration(job['duration_s'])}" if job.get("finished") else ""
        lines.append(f"made    {created} ago{took}")
    for kind in ("source", "data"):
        if bundle := inputs.get(kind):
            manifest = inputs.get("manifest") if kind == "data" else None
            lines.append(f"{kind:<6}  {bundle_line(bundle, manifest)}")
            made = f"by {bundle['author']} {text.age(bundle.get('created'), now)} ago"
            lines.append(f"        {bundle['id']}  {made}" if bundle["id"] else f"        {made}")
    if grid := inputs.get("hyper"):
        author = (
            f", by {grid['author']} {text.age(grid.get('created'), now)} ago" if grid.get("author") else ""
        )
        lines.append(f"grid    {grid['id'][:6]}  {text.trials(grid['trials'])}{author}")
    if arguments := job.get("build_args"):
        lines.append(f"args    {text.arguments(arguments)}")
    if secrets := job.get("build_secrets"):
        lines.append(f"secrets {', '.join(secrets)}")
    if settings := job.get("settings"):
        lines.append(f"each    {describe_settings(settings)}")
    lines += [f"{stage['name']:<6}  {_stage(stage)}" for stage in job["stages"]]
    return [text.printable(line) for line in lines]


def describe_settings(settings: Json) -> str:
    """What each trial is granted, in a line."""
    memory, timeout = settings["memory_bytes"], settings["timeout_s"]
    parts = [f"{settings['cpu']:g} cpu"]
    parts += [f"{format_bytes(memory)} of memory"] if memory is not None else []
    parts += [f"{settings['gpu']} gpu"] if settings["gpu"] else []
    parts += [f"{settings['tries']} tries"] if settings["tries"] > 1 else []
    parts += [f"{text.duration(timeout)} at most"] if timeout is not None else []
    return f"{', '.join(parts)}; {settings['parallelism']} at a time"


def _stage(stage: Json) -> str:
    state: str = stage["state"] + (f": {stage['reason']}" if stage["reason"] else "")
    if not stage["trials"]:
        return state
    done = stage["processed"] + stage["skipped"]
    counts = f"{stage['failed']} failed, {stage['skipped']} skipped"
    return f"{state}; {done} of {stage['total']} done, {counts}"


def notes(job: Json) -> list[str]:
    """A line for each of the first notes on what trials wrote, and how many more there are."""
    lines = [f"trial {told['trial']}: {told['note']}" for told in job["notes"][:NOTES]]
    over = job["noted"] - len(lines)
    return [text.printable(line) for line in lines] + (
        [f"… and {over} more notes (--json has them)"] if over else []
    )


def show_job(session: Session, ws: str, job: Json, fmt: str | None, all_columns: bool) -> None:
    """``kaos train info`` for a person; with a format the table of trials alone."""
    terminal = session.terminal
    table = trials_table(job, job["trials"])
    if fmt is not None:
        show(table, terminal, fmt)
        return
    print("\n".join(heading(job, datetime.now(UTC))))
    if job["trials"]:
        print()
        show(table, terminal, None, all_columns)
        if line := order_line(job):
            print(line)
    for line in notes(job):
        print(line)
    show_failures(session, ws, job)


def show_outcome(session: Session, ws: str, job: Json) -> None:
    """What ``--wait`` ends with: the best trials first, what failed, and what to do now."""
    terminal, flag = session.terminal, session.flag(ws)
    if has_models(job) or any(trial["state"] != "unrunnable" for trial in job["trials"]):
        leaders = job["trials"][:LEADERS]
        print()
        show(trials_table(job, leaders), terminal)
        if job["count"] > LEADERS:
            print(f"… the first {LEADERS} of {job['count']:,} trials (kaos train info{flag} shows all)")
        if line := order_line(job):
            print(line)
    for line in notes(job):
        print(line)
    show_failures(session, ws, job)
    state = job["state"] + (f": {text.printable(job['reason'])}" if job.get("reason") else "")
    took = text.duration(job.get("duration_s"))
    print(f"job {job['id'][:8]} {state}" + (f", took {took}" if took else ""))
    if has_models(job):
        terminal.hint(f"kaos train get --model best{flag} fetches the best model")
