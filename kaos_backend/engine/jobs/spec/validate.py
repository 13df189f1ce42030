"""What a pipeline spec must satisfy, and what Pachyderm writes into it. Reference: sections 4, 10, 11.1."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

import msgspec.structs

from kaos_backend.engine.errors import Unimplemented, Unknown
from kaos_backend.engine.jobs.spec.spec import Input, PfsInput, ResourceSpec, SecretMount, Spec
from kaos_backend.engine.store.trees.pattern import clean
from kaos_formats.quantity import parse_bytes, parse_duration

_NAME = re.compile(r"[a-zA-Z0-9_-]+")
_NOT_FOR_MOUNTS = (("pfs",), ("dev",), ("proc",), ("sys",))


@dataclass(frozen=True, slots=True)
class InputBranch:
    """One branch a pipeline reads. `never`: its commits start no job."""

    project: str
    repo: str
    repo_type: str
    branch: str
    never: bool


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


def leaves(node: Input) -> Iterator[PfsInput]:
    """The pfs inputs below `node`, left to right."""
    if node.pfs is not None:
        yield node.pfs
    for child in children(node):
        yield from leaves(child)


def complete_input(node: Input, project: str) -> Input:
    """`node` with Pachyderm's defaults written in and its children sorted by name."""
    changes: dict[str, object] = {
        arm: tuple(sorted((complete_input(c, project) for c in getattr(node, arm)), key=_sort_key))
        for arm in ("cross", "union", "join", "group")
        if getattr(node, arm)
    }
    if node.pfs is not None:
        pfs = node.pfs
        changes["pfs"] = msgspec.structs.replace(
            pfs,
            name=pfs.name or pfs.repo,
            branch=pfs.branch or "master",
            repo_type=pfs.repo_type or "user",
            project=pfs.project or project,
            glob=clean(pfs.glob) if pfs.glob else "",
        )
    return msgspec.structs.replace(node, **changes)


def _sort_key(node: Input) -> str:
    return next((leaf.name for leaf in leaves(node)), "")


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
        raise Unimplemented("cron inputs are not built yet in this engine")
    if node.pfs is None:
        for child in children(node):
            check_input(child, arms[0])
        return
    pfs = node.pfs
    where = f'input "{pfs.name or pfs.repo}"'
    if not pfs.repo:
        raise Unknown("input must specify a repo")
    if pfs.repo == "out" and pfs.name == "out":
        raise Unknown('input cannot be named out: the repo "out" needs an explicit name')
    if not pfs.name:
        raise Unknown("input must specify a name")
    if pfs.name in ("out", ".env"):
        raise Unknown(f"input cannot be named {pfs.name}")
    if not _NAME.fullmatch(pfs.name):
        raise Unknown(
            f'input name "{pfs.name}" invalid: only alphanumeric characters, underscores, and dashes'
        )
    if not pfs.branch:
        raise Unknown("input must specify a branch")
    if pfs.commit:
        raise Unknown(f"input cannot come from a commit, use a branch ({where})")
    if not pfs.glob:
        raise Unknown(f"input must specify a glob ({where})")
    if pfs.s3:
        raise Unimplemented("s3 inputs are not built yet in this engine")
    if pfs.lazy:
        raise Unimplemented(
            "lazy inputs are not built yet in this engine; leave lazy out, inputs are shared, not copied"
        )
    if pfs.trigger is not None and pfs.trigger != type(pfs.trigger)():
        raise Unimplemented("triggers on inputs are not built yet in this engine")
    if nested == "join" and not pfs.join_on:
        raise Unknown(f"input must specify join_on in a join ({where})")
    if nested == "group" and not pfs.group_by:
        raise Unknown(f"input must specify group_by in a group ({where})")


def check_names(node: Input) -> None:
    """Input names are unique, except among the alternatives of one union."""
    _names(node)


def _names(node: Input) -> frozenset[str]:
    if node.pfs is not None:
        return frozenset({node.pfs.name})
    seen: set[str] = set()
    for child in children(node):
        names = _names(child)
        twice = seen & names
        if twice and not node.union:
            raise Unknown(f'name "{min(twice)}" was used more than once')
        seen |= names
    return frozenset(seen)


def input_branches(node: Input) -> list[InputBranch]:
    """The distinct branches below a completed tree, in order of first appearance.

    A branch is `never` only if every input that reads it says so.
    """
    found: dict[tuple[str, str, str, str], bool] = {}
    for leaf in leaves(node):
        key = (leaf.project, leaf.repo, leaf.repo_type, leaf.branch)
        never = leaf.propagation_spec is not None and leaf.propagation_spec.never
        found[key] = found.get(key, True) and never
    return [InputBranch(*key, never) for key, never in found.items()]


def check_pipeline_name(project: str, name: str) -> None:
    """Raise Unknown for a name Kubernetes could not hold either."""
    if not _NAME.fullmatch(name):
        raise Unknown(f'pipeline name "{name}" invalid: only alphanumeric characters, underscores and dashes')
    if not name[0].isalnum():
        raise Unknown(
            f'pipeline name "{name}" invalid: pipeline names must start with an alphanumeric character'
        )
    if len(name) > 51:
        raise Unknown(f'pipeline name "{name}" is {len(name)} characters long, the limit is 51: shorten it')
    if len(f"{project}-{name}-v99") > 63:
        raise Unknown(
            f'project and pipeline name "{project}-{name}" together are too long: at most 59 characters'
        )


def complete(spec: Spec) -> Spec:
    """`spec` with defaults that depend on its own values; `check` expects this form."""
    done = msgspec.structs.replace(
        spec,
        output_branch=spec.output_branch or "master",
        datum_tries=spec.datum_tries or 3,
        reprocess_spec=spec.reprocess_spec or "until_success",
    )
    if done.input is not None:
        done = msgspec.structs.replace(done, input=complete_input(done.input, done.project))
    return done


def check(spec: Spec) -> None:
    """Raise the error Pachyderm would give for a completed spec that is not valid."""
    check_pipeline_name(spec.project, spec.name)
    if spec.transform is None:
        raise Unknown("pipeline must specify a transform")
    if spec.tf_job is not None:
        raise Unknown("embedding TFJobs in pipelines is not supported yet")
    if spec.spout is not None or spec.service is not None:
        raise Unimplemented("services and spouts are not built yet in this engine")
    for name, value in (("egress", spec.egress), ("s3_out", spec.s3_out), ("determined", spec.determined)):
        if value:
            raise Unimplemented(f"{name} is not built yet in this engine")
    check_secrets(spec.transform.secrets)
    if spec.transform.datum_batching:
        raise Unimplemented("datum_batching is not built yet in this engine")
    if spec.input is None:
        raise Unknown("no input set")
    check_input(spec.input)
    check_names(spec.input)
    if spec.reprocess_spec not in ("until_success", "every_job"):
        raise Unknown(f'invalid reprocess_spec "{spec.reprocess_spec}": must be until_success or every_job')
    if spec.datum_tries < 0:
        raise Unknown(f"datum_tries is {spec.datum_tries}: must be positive")
    for name, text in (("datum_timeout", spec.datum_timeout), ("job_timeout", spec.job_timeout)):
        if text:
            _positive_duration(name, text)
    for name, resources in (
        ("resource_requests", spec.resource_requests),
        ("resource_limits", spec.resource_limits),
    ):
        if resources is not None:
            _check_resources(name, resources)
    if any(not t.operator for t in spec.tolerations):
        raise Unknown("tolerations need an operator")


def check_secrets(mounts: Sequence[SecretMount]) -> None:
    """Raise Unknown for a secret that could not be given to any worker."""
    paths = set()
    for mount in mounts:
        where = f'secret "{mount.name}"'
        if not mount.name:
            raise Unknown("a secret of the transform must have a name")
        if not mount.env_var and not mount.mount_path:
            raise Unknown(f"{where} has neither env_var nor mount_path: nothing would be given to the code")
        if mount.env_var and not mount.key:
            raise Unknown(f"{where} has env_var {mount.env_var} but no key: say which of its values that is")
        if "=" in mount.env_var or "\0" in mount.env_var:
            raise Unknown(f"{where}: {mount.env_var!r} cannot be the name of a variable")
        if not mount.mount_path:
            continue
        path = PurePosixPath(mount.mount_path)
        first = path.parts[1:2]
        if (
            not path.is_absolute()
            or ".." in path.parts
            or first in ((), *_NOT_FOR_MOUNTS)
            or "\0" in str(path)
        ):
            raise Unknown(
                f"{where} cannot be mounted at {mount.mount_path!r}: mount_path must be an absolute path"
                " outside /pfs, /dev, /proc and /sys, such as /secrets/mine"
            )
        if path in paths:
            raise Unknown(f"{where}: another secret is mounted at {path} already")
        paths.add(path)


def _positive_duration(name: str, text: str) -> None:
    try:
        seconds = parse_duration(text)
    except ValueError as e:
        raise Unknown(f"{name}: {e}") from None
    if seconds <= 0:
        raise Unknown(f"{name} is {text}: must be positive")


def _check_resources(name: str, resources: ResourceSpec) -> None:
    # Pachyderm drops what it cannot parse with a log line; a limit that is silently no limit helps nobody.
    if resources.cpu < 0:
        raise Unknown(f"{name}.cpu is {resources.cpu:g}: must not be negative")
    for part, text in (("memory", resources.memory), ("disk", resources.disk)):
        if text:
            try:
                parse_bytes(text)
            except ValueError as e:
                raise Unknown(f"{name}.{part}: {e}") from None
    if resources.gpu is not None and resources.gpu.number < 0:
        raise Unknown(f"{name}.gpu.number is {resources.gpu.number}: must not be negative")
