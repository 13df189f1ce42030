"""Trees of inputs: their defaults, their rules, and the branches that they read. Reference: section 11.1."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

import msgspec.structs

from kaos_backend.engine import cronspec
from kaos_backend.engine.errors import Unimplemented, Unknown
from kaos_backend.engine.jobs.spec.spec import CronInput, Input, PfsInput, Trigger
from kaos_backend.engine.store.trees.pattern import clean

NAME = re.compile(r"[a-zA-Z0-9_-]+")


@dataclass(frozen=True, slots=True)
class InputBranch:
    """One branch a pipeline reads. `never`: its commits start no job. `trigger`: what else moves it."""

    project: str
    repo: str
    repo_type: str
    branch: str
    never: bool
    trigger: Trigger | None


def _arms(node: Input) -> list[str]:
    """Names of the arms that are set on one node."""
    arms = [name for name in ("join", "group", "cross", "union") if getattr(node, name)]
    if node.pfs is not None:
        arms.append("pfs")
    if node.cron is not None:
        arms.append("cron")
    return arms


def children(node: Input) -> tuple[Input, ...]:
    """The inputs directly below a node; none for pfs and cron."""
    return node.cross or node.union or node.join or node.group


def leaf(node: Input) -> PfsInput | None:
    """What a node reads of PFS; None for one with children. A cron input reads one file a tick."""
    if node.cron is not None:
        cron = node.cron
        return PfsInput(
            project=cron.project, name=cron.name, repo=cron.repo, repo_type="user", branch="master", glob="/*"
        )
    return node.pfs


def leaves(node: Input) -> Iterator[PfsInput]:
    """What is read below `node`, left to right."""
    if (found := leaf(node)) is not None:
        yield found
    for child in children(node):
        yield from leaves(child)


def crons(node: Input | None) -> Iterator[CronInput]:
    """The cron inputs below `node`, left to right."""
    if node is not None:
        if node.cron is not None:
            yield node.cron
        for child in children(node):
            yield from crons(child)


def complete_input(node: Input, project: str, pipeline: str = "", start: str = "") -> Input:
    """`node` with Pachyderm's defaults written in and its children sorted by name.

    `start`: when cron inputs begin that do not say so, an RFC 3339 time.
    """
    return _complete(node, project, pipeline, start, Counter())


def _complete(node: Input, project: str, pipeline: str, start: str, made: Counter[str]) -> Input:
    changes: dict[str, object] = {}
    for arm in ("cross", "union", "join", "group"):
        below = sorted(getattr(node, arm), key=_sort_key)
        if below:
            changes[arm] = tuple(_complete(child, project, pipeline, start, made) for child in below)
    if node.pfs is not None:
        pfs = node.pfs
        branch, trigger = pfs.branch or "master", pfs.trigger
        if trigger is not None and trigger == Trigger():
            trigger = None
        if trigger is not None:
            if not pfs.branch:
                made[pfs.repo] += 1
                branch = f"{pipeline}-trigger-{made[pfs.repo]}"
            trigger = msgspec.structs.replace(trigger, branch=trigger.branch or "master")
        changes["pfs"] = msgspec.structs.replace(
            pfs,
            name=pfs.name or pfs.repo,
            branch=branch,
            repo_type=pfs.repo_type or "user",
            project=pfs.project or project,
            glob=clean(pfs.glob) if pfs.glob else "",
            trigger=trigger,
        )
    if node.cron is not None:
        cron = node.cron
        changes["cron"] = msgspec.structs.replace(
            cron,
            project=cron.project or project,
            repo=cron.repo or f"{pipeline}_{cron.name}",
            start=cron.start or start,
        )
    return msgspec.structs.replace(node, **changes)


def _sort_key(node: Input) -> str:
    """The name that an input goes by before its defaults are written in."""
    return next((one.name or one.repo for one in leaves(node)), "")


def check_input(node: Input, nested: str = "") -> None:
    """Raise Unknown, with Pachyderm's text, for an input tree that cannot be run.

    Expects a completed tree; `nested` is the kind of the nearest node above.
    """
    arms = _arms(node)
    if not arms:
        raise Unknown("no input set")
    if len(arms) > 1:
        raise Unknown(f"multiple input types set: {', '.join(sorted(arms))}")
    if node.cron is not None:
        _check_cron(node.cron, nested)
    if node.pfs is not None:
        _check_pfs(node.pfs, nested)
    for child in children(node):
        check_input(child, arms[0])


def _check_cron(cron: CronInput, nested: str) -> None:
    _check_name(cron.name, cron.repo)
    if cron.commit:
        raise Unknown(f'input cannot come from a commit, ticks are of a branch (input "{cron.name}")')
    if nested in ("join", "group"):
        raise Unknown(
            f'cron input "{cron.name}" cannot be in a {nested}: a tick has no key; use cross or union'
        )
    try:
        cronspec.parse(cron.spec)
    except ValueError as error:
        raise Unknown(f'error parsing cron-spec of input "{cron.name}": {error}') from None
    if cron.start:
        try:
            started = datetime.fromisoformat(cron.start)
        except ValueError:
            started = datetime.min
        if started.tzinfo is None:
            raise Unknown(
                f'start {cron.start!r} of cron input "{cron.name}" is no time like 2024-01-31T06:00:00Z'
            )


def _check_name(name: str, repo: str) -> None:
    if not repo:
        raise Unknown("input must specify a repo")
    if repo == "out" and name == "out":
        raise Unknown('input cannot be named out: the repo "out" needs an explicit name')
    if not name:
        raise Unknown("input must specify a name")
    if name in ("out", ".env"):
        raise Unknown(f"input cannot be named {name}")
    if not NAME.fullmatch(name):
        raise Unknown(f'input name "{name}" invalid: only alphanumeric characters, underscores, and dashes')


def _check_pfs(pfs: PfsInput, nested: str) -> None:
    where = f'input "{pfs.name or pfs.repo}"'
    _check_name(pfs.name, pfs.repo)
    if not pfs.branch:
        raise Unknown("input must specify a branch")
    if pfs.commit:
        raise Unknown(f"input cannot come from a commit, use a branch ({where})")
    if not pfs.glob:
        raise Unknown(f"input must specify a glob ({where})")
    if pfs.s3:
        raise Unimplemented(
            f"{where} cannot be read through S3: this engine has no S3 gateway; leave s3 out, and read"
            f" /pfs/{pfs.name}"
        )
    if pfs.trigger is not None and pfs.trigger.branch == pfs.branch:
        raise Unknown(f"triggers cannot form a loop: {where} reads the branch that triggers it, {pfs.branch}")
    if nested == "join" and not pfs.join_on:
        raise Unknown(f"input must specify join_on in a join ({where})")
    if nested == "group" and not pfs.group_by:
        raise Unknown(f"input must specify group_by in a group ({where})")


def check_names(node: Input) -> None:
    """Input names are unique, except among the alternatives of one union."""
    _names(node)


def _names(node: Input) -> frozenset[str]:
    if (found := leaf(node)) is not None:
        return frozenset({found.name})
    seen: set[str] = set()
    for child in children(node):
        names = _names(child)
        twice = seen & names
        if twice and not node.union:
            raise Unknown(f'name "{min(twice)}" was used more than once')
        seen |= names
    return frozenset(seen)


def input_branches(node: Input | None) -> list[InputBranch]:
    """The distinct branches below a completed tree, in order of first appearance.

    A branch is `never` only if every input that reads it says so.
    """
    found: dict[tuple[str, str, str, str], tuple[bool, Trigger | None]] = {}
    for one in leaves(node) if node is not None else ():
        key = (one.project, one.repo, one.repo_type, one.branch)
        never = one.propagation_spec is not None and one.propagation_spec.never
        before = found.get(key, (True, None))
        found[key] = before[0] and never, one.trigger or before[1]
    return [InputBranch(*key, never, trigger) for key, (never, trigger) in found.items()]
