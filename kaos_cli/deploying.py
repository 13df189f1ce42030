"""``kaos train deploy``: read the folders, send what is new, start what has to run, say what that was."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from kaos_cli import bundle, text
from kaos_cli.errors import OK, KaosError
from kaos_cli.inputs import check_resources, read_grid
from kaos_cli.manifest import ManifestFile, read_manifest, send_manifest
from kaos_cli.session import Session
from kaos_cli.upload import Sent, send

MAX_POINTS_WIDTH = 48
MAX_ROWS = 12


@dataclass(frozen=True, slots=True)
class Request:
    """What was typed. None: as it was in the last deploy. A ``timeout_s`` of 0 lifts the limit.

    A job that the deploy would stop: ``after`` waits for its end, ``replace`` lets it be stopped.
    """

    source: Path | None
    data: Path | None
    manifest: Path | None
    hyper: Path | None
    parallelism: int | None
    cpu: float | None
    memory: str | None
    gpu: int | None
    tries: int | None
    timeout_s: float | None
    build_args: dict[str, str] | None
    build_secrets: dict[str, str] | None
    retry: bool
    after: bool = False
    replace: bool = False
    refresh: bool = False


@dataclass(frozen=True, slots=True)
class Given:
    """What a deploy brings: folders that have been listed, and a manifest that has been read."""

    folders: list[bundle.Listed]
    manifest: ManifestFile | None = None
    refreshes: bool = False


@dataclass(frozen=True, slots=True)
class SentManifest:
    """``known``: the backend had it."""

    file: ManifestFile
    known: bool

    def as_json(self) -> dict[str, Any]:
        return {"id": self.file.id, "name": self.file.name, "lines": len(self.file.manifest.lines)}


@dataclass(frozen=True, slots=True)
class Arrived:
    """What of a deploy the backend has now."""

    folders: list[Sent]
    manifest: SentManifest | None = None
    refreshes: bool = False

    @property
    def ids(self) -> dict[str, str | None]:
        found: dict[str, str | None] = {one.bundle.kind: one.bundle.id for one in self.folders}
        manifest = None if self.manifest is None else self.manifest.file.id
        return {"source": found.get("source"), "data": found.get("data"), "manifest": manifest}

    def as_json(self) -> dict[str, Any]:
        packed = {one.bundle.kind: one.as_json() for one in self.folders}
        return packed | ({} if self.manifest is None else {"manifest": self.manifest.as_json()})


def deploy(session: Session, ws: str, request: Request, wait: bool, timeout_s: float | None = None) -> int:
    """Run the whole deploy; the exit code. Nothing is sent before all that was typed has been checked.

    ``timeout_s`` limits what is waited for, in all.
    """
    session.home.create()
    check_resources(request.parallelism, request.cpu, request.memory, request.gpu, request.tries)
    grid = read_grid(request.hyper) if request.hyper else None
    folders: dict[bundle.Kind, Path | None] = {"source": request.source, "data": request.data}
    with interrupted("interrupted; nothing was sent"):
        manifest = read_manifest(request.manifest) if request.manifest is not None else None
        listed = [
            list_bundle(session, folder, kind) for kind, folder in folders.items() if folder is not None
        ]
    asked = {
        "hyper": grid,
        "parallelism": request.parallelism,
        "resources": {
            "cpu": request.cpu,
            "memory": request.memory,
            "gpu": request.gpu,
            "tries": request.tries,
            "timeout_s": request.timeout_s,
        },
        "build_args": request.build_args,
        "build_secrets": request.build_secrets,
        "author": author(session.env),
        "retry": request.retry,
        "replace": request.replace,
        "refresh": request.refresh,
    }
    given = Given(listed, manifest, request.refresh)
    answer, sent, timeout_s = _send_and_start(session, ws, given, asked, request.after, timeout_s)
    for line in describe(answer, sent):
        session.terminal.answer(line)
    result = None
    code = OK
    if wait and answer["job"] is not None:
        from kaos_cli.watch import wait_for

        result, code = wait_for(session, ws, answer["job"], timeout_s)
    else:
        session.terminal.hint(*_next(answer, session.flag(ws)))
    if session.terminal.json:
        packed = {"packed": sent.as_json()}
        session.terminal.answer_json(answer | packed | ({"result": result} if wait else {}))
    return code


def _send_and_start(
    session: Session,
    ws: str,
    given: Given,
    asked: dict[str, Any],
    after: bool,
    timeout_s: float | None,
) -> tuple[dict[str, Any], Arrived, float | None]:
    """The answer, what was sent for it, and what is left of the time limit. With ``after``, jobs that stand
    in the way are waited for.
    """
    sent, again = _send_given(session, ws, given), False
    while True:
        try:
            return _start(session, ws, asked | sent.ids), sent, timeout_s
        except KaosError as error:
            if error.code == "job_open" and after:
                timeout_s = _wait_for_the_end(session, ws, error.fields["jobs"], timeout_s)
            elif error.code == "no_bundle" and (given.folders or given.manifest) and not again:
                # What waits to be deployed is shared by content: somebody else's deploy of the same took it.
                again = True
                sent = _send_given(session, ws, given)
            else:
                raise


def _wait_for_the_end(
    session: Session, ws: str, jobs: Sequence[str], timeout_s: float | None
) -> float | None:
    """Wait until jobs that stand in the way of a deploy have ended, however they do; what is left of the time
    limit.
    """
    from kaos_cli.limit import TimeLimitReached, time_limit
    from kaos_cli.watch import watch

    shown = ", ".join(job_id[:8] for job_id in jobs)
    started = time.monotonic()
    nothing = f"nothing was deployed, and job {shown} goes on"
    session.terminal.say(f"waiting for the end of job {shown} before anything is deployed")
    with interrupted(f"interrupted; {nothing}"):
        try:
            with time_limit(timeout_s):
                for job_id in jobs:
                    watch(session, ws, job_id)
        except TimeLimitReached:
            raise KaosError("timed_out", f"not ended in time; {nothing}", jobs=list(jobs)) from None
    # At least a moment, for the limit to be told.
    return None if timeout_s is None else max(0.001, timeout_s - (time.monotonic() - started))


def author(env: Mapping[str, str]) -> str:
    """``user@host`` of whoever deploys."""
    import pwd

    try:
        user = pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        user = env.get("USER") or str(os.getuid())
    return f"{user}@{socket.gethostname()}"


def _next(answer: Mapping[str, Any], flag: str) -> list[str]:
    """What to type after a deploy that nobody waits for."""
    if answer["status"] == "started":
        return [f"kaos train logs -f{flag} follows it", f"kaos train info{flag} shows it"]
    if answer.get("hint"):
        return [answer["hint"]]
    return [f"kaos train info {answer['job'][:8]}{flag} shows it"] if answer["job"] else []


def describe(answer: Mapping[str, Any], sent: Arrived) -> list[str]:
    """What a person reads after a deploy: bundles, grid, job."""
    packed: dict[str, Sent] = {one.bundle.kind: one for one in sent.folders}
    lines = []
    for kind in ("source", "data"):
        if one := packed.get(kind):
            lines.append(f"{kind:<6}  {one.bundle.label}  {one.describe()}")
            if made := one.bundle.generated:
                lines.append(
                    f"        no Dockerfile: made from {made.made_from}, Python {made.python} ({made.why})"
                )
                lines += [] if one.known else [f"        | {line}" for line in made.text.splitlines()]
            if one.bundle.ignored:
                names = one.bundle.ignored
                more = f" and {len(names) - 3} more" if len(names) > 3 else ""
                lines.append(f"        left out: {', '.join(map(text.printable, names[:3]))}{more}")
        elif kind == "data" and (named := sent.manifest):
            count = text.lines(len(named.file.manifest.lines))
            fetches = "fetched by the server" if "fetch" in answer["stages"] else "fetched before"
            lines.append(f"data    {named.file.name}  {count} of a manifest, {fetches}")
        elif kind == "data" and (of := answer.get("manifest")):
            again = "what has changed is fetched" if sent.refreshes else "as before"
            lines.append(f"data    {of['name']}  of a manifest, {again}")
        elif given := answer.get(kind):
            lines.append(f"{kind:<6}  {given['name']}:{given['id'][:6]}  as before")
    if answer.get("build_args"):
        lines.append(f"args    {text.arguments(answer['build_args'])}")
    if answer.get("build_secrets"):
        lines.append(f"secrets {', '.join(answer['build_secrets'])}")
    lines += describe_grid(answer.get("grid"))
    if answer["status"] == "started" or (answer["stages"] and answer["job"]):
        *others, last = answer["stages"] or [""]
        runs = f"{', '.join(others)} and {last}" if others else last
        at_once = f", {answer['parallelism']} at a time" if answer.get("parallelism") else ""
        lines.append(f"job     {answer['job']}" + (f"  (runs {runs}{at_once})" if runs else ""))
        lines.append(answer.get("message") or "")
    elif answer["status"] == "unchanged":
        why = answer.get("message") or "these inputs were deployed already"
        lines.append(f"nothing to run: {why}")
        lines.append(f"job     {answer['job']}")
    else:
        lines.append(answer.get("message") or "stored; source or data is still missing")
    return [line for line in lines if line]


def describe_grid(grid: Mapping[str, Any] | None) -> list[str]:
    """The grid as rows of name and points: lists are axes, the rest is fixed; long ones by head and count."""
    if not grid:
        return []
    axes, fixed = grid.get("axes") or {}, grid.get("fixed") or {}
    lines = [f"grid    {grid['id'][:6]}  {text.trials(grid['trials'])}"]
    rows = [(name, _points(points)) for name, points in axes.items()]
    rows += [(name, f"{_point(value)}  (fixed)") for name, value in fixed.items()]
    width = min(24, max((len(name) for name, _ in rows), default=0))
    for name, points in rows[:MAX_ROWS]:
        lines.append(f"        {_cut(name, 24):<{width}}  {points}")
    if len(rows) > MAX_ROWS:
        lines.append(f"        … and {len(rows) - MAX_ROWS} more, {len(rows)} in all")
    return lines


def _points(points: list[Any]) -> str:
    shown: list[str] = []
    for point in points:
        cell = _point(point)
        if shown and len(", ".join([*shown, cell])) > MAX_POINTS_WIDTH - 12:
            return f"{', '.join(shown)}, …  ({len(points)} values)"
        shown.append(cell)
    return ", ".join(shown)


def _point(value: Any) -> str:
    import json

    return _cut(value if isinstance(value, str) and value.isprintable() and value else json.dumps(value), 36)


def _cut(value: str, width: int) -> str:
    return value if len(value) <= width else value[: width - 1] + "…"


@contextmanager
def interrupted(message: str, hint: str = "") -> Iterator[None]:
    """What Ctrl-C during the block means."""
    try:
        yield
    except KeyboardInterrupt:
        raise KaosError("interrupted", message, hint=hint) from None


def _start(session: Session, ws: str, asked: dict[str, Any]) -> dict[str, Any]:
    with interrupted(
        "interrupted while the job was being started: it may have",
        f"kaos train list{session.flag(ws)} shows whether it did",
    ):
        return session.client.deploy(ws, asked)


def list_bundle(session: Session, folder: Path, kind: bundle.Kind) -> bundle.Listed:
    return bundle.list_folder(folder, kind, session.home.cache)


def send_all(session: Session, ws: str, listed: list[bundle.Listed]) -> list[Sent]:
    """Send them in turn; when one is refused, those that went before it leave no trace either."""
    sent: list[Sent] = []
    try:
        for one in listed:
            with interrupted(f"interrupted while the {one.kind} was being sent; nothing was deployed"):
                sent.append(_send(session, ws, one))
    except KaosError:
        _forget(session, ws, sent)
        raise
    return sent


def _send_given(session: Session, ws: str, given: Given) -> Arrived:
    """The manifest last: what went before it is forgotten if it is refused, as in ``send_all``."""
    folders = send_all(session, ws, given.folders)
    if given.manifest is None:
        return Arrived(folders, None, given.refreshes)
    try:
        with interrupted("interrupted while the manifest was being sent; nothing was deployed"):
            known = send_manifest(session.client, ws, given.manifest)
    except KaosError:
        _forget(session, ws, folders)
        raise
    return Arrived(folders, SentManifest(given.manifest, known), given.refreshes)


def _forget(session: Session, ws: str, sent: list[Sent]) -> None:
    for done in sent:
        if not done.known:
            with contextlib.suppress(KaosError):
                session.client.forget_bundle(ws, done.bundle.kind, done.bundle.id)


def _send(session: Session, ws: str, one: bundle.Listed) -> Sent:
    try:
        return send(session.client, ws, one, session.terminal)
    except KaosError as error:
        if error.code == "invalid_bundle" and not error.hint:
            error.hint = f"check {one.root}"
        raise
