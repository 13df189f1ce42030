"""What one run of a datum is given, and what its exit means. Pure. Reference: pachyderm-api.md section 13."""

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping, Sequence

from kaos_backend.engine.jobs.db.rows import JobKey, Pipeline, PipelineKey
from kaos_backend.engine.jobs.spec.plan import File
from kaos_backend.engine.jobs.spec.spec import Transform
from kaos_backend.engine.workers.port import Exit, WorkerSpec
from kaos_formats.endings import of_program
from kaos_formats.quantity import format_bytes

MACHINE_OUT_OF_MEMORY = "the machine ran out of memory"
"""How a worker ends the message of an exit whose memory was not used up by itself alone."""


def worker_spec(pipeline: Pipeline) -> WorkerSpec:
    """The workers of one pipeline version, named as Pachyderm names their pods."""
    key = pipeline.key
    name = f"{key.project}-{key.name}-v{pipeline.version}".lower().replace("_", "-")
    return worker_of(name, key, pipeline.spec.transform or Transform(), pipeline.spec_commit)


def worker_of(name: str, key: PipelineKey, transform: Transform, spec_commit: str) -> WorkerSpec:
    """A worker for the code of a pipeline."""
    return WorkerSpec(
        name=name,
        image=transform.image,
        env={
            **transform.env,
            "PACH_IN_WORKER": "true",
            "PPS_PROJECT_NAME": key.project,
            "PPS_PIPELINE_NAME": key.name,
            "PPS_SPEC_COMMIT": spec_commit,
        },
        user=transform.user,
        working_dir=transform.working_dir or None,
    )


def by_name(files: Sequence[File]) -> dict[str, list[File]]:
    """A datum's files per input name, in input order."""
    named: dict[str, list[File]] = {}
    for file in files:
        named.setdefault(file.name, []).append(file)
    return named


def datum_env(job: JobKey, datum: str, files: Sequence[File]) -> Mapping[str, str]:
    """The variables that differ from datum to datum, without the input paths (the worker sets those)."""
    env = {"PACH_DATUM_ID": datum, "PACH_JOB_ID": job.id, "PACH_OUTPUT_COMMIT_ID": job.id}
    # Inputs have their true names here, and outputs may have any: train.sh leaves both alone.
    env["KAOS_ANY_NAME"] = "1"
    for name, group in by_name(files).items():
        first = group[0]
        env[f"{name}_COMMIT"] = first.commit
        if first.join_on:
            env[f"PACH_DATUM_{name}_JOIN_ON"] = first.join_on
        if first.group_by:
            env[f"PACH_DATUM_{name}_GROUP_BY"] = first.group_by
    return env


def stdin_of(lines: Sequence[str]) -> bytes:
    """The lines joined by newlines, with a final one; nothing for no lines."""
    return "".join(f"{line}\n" for line in lines).encode()


def failure(
    exit: Exit,
    accepted: Sequence[int],
    limit_bytes: int | None,
    timeout_s: float | None,
    said: Callable[[], Sequence[str]] = tuple,
) -> str:
    """Why a run failed, by a name of `kaos_formats.endings`; empty when it succeeded.

    `said`: the last lines that it printed; asked for only where they matter.
    """
    match exit.reason:
        case "exited":
            if exit.code == 0 or exit.code in accepted:
                return ""
            return of_program(f"exit code {exit.code}", said(), exit.code)
        case "signal":
            try:
                name = signal.Signals(exit.signal or 0).name
            except ValueError:
                name = str(exit.signal)
            return of_program(f"killed by signal {name}", said())
        case "oom" if exit.message.endswith(MACHINE_OUT_OF_MEMORY):
            return f"{MACHINE_OUT_OF_MEMORY}: {exit.message.removesuffix(MACHINE_OUT_OF_MEMORY).rstrip('; ')}"
        case "oom" if exit.message:
            return f"out of memory: {exit.message}"
        case "oom":
            limit = "no limit" if limit_bytes is None else format_bytes(limit_bytes)
            return f"out of memory: used {format_bytes(exit.max_rss_bytes)} of {limit}"
        case "timeout":
            return f"timed out after {timeout_s:g} s"
        case _:
            return f"worker lost: {exit.message or exit.reason}"
