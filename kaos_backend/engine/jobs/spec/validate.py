"""What a pipeline spec must satisfy, and what Pachyderm writes into it. Reference: sections 4 and 10."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import PurePosixPath

import msgspec.structs

from kaos_backend.engine.errors import Unimplemented, Unknown
from kaos_backend.engine.jobs.spec.inputs import NAME, check_input, check_names, complete_input
from kaos_backend.engine.jobs.spec.spec import ResourceSpec, SecretMount, Service, Spec, Transform
from kaos_formats.quantity import parse_bytes, parse_duration

_NOT_FOR_MOUNTS = (("pfs",), ("dev",), ("proc",), ("sys",))


def check_pipeline_name(project: str, name: str) -> None:
    """Raise Unknown for a name Kubernetes could not hold either."""
    if not NAME.fullmatch(name):
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


def complete(spec: Spec, now_us: int) -> Spec:
    """`spec` with defaults that depend on its own values, and on the time; `check` expects this form."""
    done = msgspec.structs.replace(
        spec,
        output_branch=spec.output_branch or "master",
        datum_tries=spec.datum_tries or 3,
        reprocess_spec=spec.reprocess_spec or "until_success",
    )
    if done.service is not None:
        done = msgspec.structs.replace(done, service=_complete_service(done.service))
    if done.spout is not None and done.spout.service is not None:
        # Clients send an empty one so that an empty spout is seen at all.
        service = None if done.spout.service == Service() else _complete_service(done.spout.service)
        spout = msgspec.structs.replace(done.spout, service=service)
        done = msgspec.structs.replace(done, spout=spout)
    if done.input is not None:
        start = datetime.fromtimestamp(now_us / 1e6, UTC).isoformat().replace("+00:00", "Z")
        completed = complete_input(done.input, done.project, done.name, start)
        done = msgspec.structs.replace(done, input=completed)
    return done


def _complete_service(service: Service) -> Service:
    # Where Kubernetes would choose one for us.
    port = service.external_port or service.internal_port
    return msgspec.structs.replace(service, external_port=port, type=service.type or "NodePort")


def check(spec: Spec) -> None:
    """Raise the error Pachyderm would give for a completed spec that is not valid."""
    check_pipeline_name(spec.project, spec.name)
    if spec.transform is None:
        raise Unknown("pipeline must specify a transform")
    if spec.tf_job is not None:
        raise Unknown("embedding TFJobs in pipelines is not supported yet")
    _refuse_what_is_not_here(spec, spec.transform)
    check_secrets(spec.transform.secrets)
    if spec.datum_set_spec is not None and min(msgspec.structs.astuple(spec.datum_set_spec)) < 0:
        raise Unknown("datum_set_spec: number, size_bytes and per_worker must not be negative")
    _check_ports(spec)
    if spec.spout is not None:
        if spec.input is not None:
            raise Unknown(
                "spout pipelines must not have an input: their command finds by itself what to commit"
            )
        if spec.autoscaling:
            raise Unknown("autoscaling can't be used with spouts (did you mean to set a service?)")
    elif spec.input is None:
        raise Unknown("no input set")
    else:
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
    _check_pod("PodSpec", spec.pod_spec, dict)
    _check_pod("PodPatch", spec.pod_patch, list)
    if spec.maximum_expected_uptime:
        _positive_duration("maximum_expected_uptime", spec.maximum_expected_uptime)
        if not spec.autoscaling:
            raise Unknown("maximum_expected_uptime needs autoscaling")
    if any(not t.operator for t in spec.tolerations):
        raise Unknown("tolerations need an operator")


def _check_ports(spec: Spec) -> None:
    """Of a service, or of the service of a spout."""
    if spec.service is not None and spec.spout is not None:
        raise Unknown("a pipeline cannot be a service and a spout: set spout.service")
    service = spec.service or (spec.spout.service if spec.spout else None)
    if service is None:
        return
    if spec.parallelism != 1:
        raise Unknown("services can only be run with a constant parallelism of 1")
    if service.type not in ("", "ClusterIP", "NodePort", "LoadBalancer"):
        raise Unknown(
            f"the following service type {service.type} is not allowed: ClusterIP, NodePort, LoadBalancer"
        )
    for name in ("internal_port", "external_port"):
        if not 0 < getattr(service, name) < 1 << 16:
            raise Unknown(f"service.{name} is {getattr(service, name)}: must be a port, 1 to 65535")


def _refuse_what_is_not_here(spec: Spec, transform: Transform) -> None:
    for what, value, instead in (
        ("egress", spec.egress, "have cmd send what it makes, or read the output repo"),
        ("s3_out", spec.s3_out, "have cmd write to /pfs/out"),
        ("determined", spec.determined, "leave it out"),
        ("datum_batching", transform.datum_batching, "leave it out, cmd is started once per datum"),
    ):
        if value:
            raise Unimplemented(f"this engine does not have {what}: {instead}")


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


def _check_pod(what: str, text: str, kind: type) -> None:
    """Kept though nothing here is a pod, so it must be what a cluster would take."""
    try:
        good = not text or isinstance(json.loads(text), kind)
    except (ValueError, RecursionError):
        good = False
    if not good:
        raise Unknown(f"malformed {what}: it is no JSON {'object' if kind is dict else 'list of patches'}")


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
