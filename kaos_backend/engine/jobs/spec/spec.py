"""Pipeline specs: the JSON of `CreatePipelineRequest`, its defaults, and the parsed form.

The JSON is protobuf's: camelCase or snake_case in, camelCase out, 64-bit integers as strings or
numbers, durations like "1.5s", unknown fields refused. Reference: pachyderm-api.md section 10.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Struct

from kaos_backend.engine.errors import InvalidArgument

Json = dict[str, Any]


class _Part(Struct, frozen=True, rename="camel", forbid_unknown_fields=True, omit_defaults=True):
    """Every message of the spec."""


class ProjectRef(_Part, frozen=True):
    name: str = ""


class PipelineRef(_Part, frozen=True):
    project: ProjectRef | None = None
    name: str = ""


class SecretMount(_Part, frozen=True):
    name: str = ""
    key: str = ""
    mount_path: str = ""
    env_var: str = ""


class Transform(_Part, frozen=True):
    image: str = ""
    cmd: tuple[str, ...] = ()
    err_cmd: tuple[str, ...] = ()
    env: dict[str, str] = {}
    secrets: tuple[SecretMount, ...] = ()
    image_pull_secrets: tuple[str, ...] = ()
    stdin: tuple[str, ...] = ()
    err_stdin: tuple[str, ...] = ()
    accept_return_code: tuple[int, ...] = ()
    debug: bool = False
    user: str = ""
    working_dir: str = ""
    dockerfile: str = ""
    memory_volume: bool = False
    datum_batching: bool = False


class TfJob(_Part, frozen=True):
    tf_job: str = ""


class ObjectStorageEgress(_Part, frozen=True):
    url: str = ""


class Egress(_Part, frozen=True):
    url: str = msgspec.field(default="", name="URL")
    object_storage: ObjectStorageEgress | None = None
    sql_database: dict[str, Any] | None = None


class ParallelismSpec(_Part, frozen=True):
    constant: int = 0


class GpuSpec(_Part, frozen=True):
    type: str = ""
    number: int = 0


class ResourceSpec(_Part, frozen=True):
    """cpu in cores, memory and disk as Kubernetes quantities."""

    cpu: float = 0.0
    memory: str = ""
    gpu: GpuSpec | None = None
    disk: str = ""


class Trigger(_Part, frozen=True):
    branch: str = ""
    all: bool = False
    rate_limit_spec: str = ""
    size: str = ""
    commits: int = 0
    cron_spec: str = ""


class PropagationSpec(_Part, frozen=True):
    never: bool = False


class PfsInput(_Part, frozen=True):
    project: str = ""
    name: str = ""
    repo: str = ""
    repo_type: str = ""
    branch: str = ""
    commit: str = ""
    glob: str = ""
    join_on: str = ""
    outer_join: bool = False
    group_by: str = ""
    lazy: bool = False
    empty_files: bool = False
    s3: bool = False
    trigger: Trigger | None = None
    propagation_spec: PropagationSpec | None = None
    reference: bool = False


class CronInput(_Part, frozen=True):
    name: str = ""
    project: str = ""
    repo: str = ""
    commit: str = ""
    spec: str = ""
    overwrite: bool = False
    start: str = ""


class Input(_Part, frozen=True):
    pfs: PfsInput | None = None
    join: tuple[Input, ...] = ()
    group: tuple[Input, ...] = ()
    cross: tuple[Input, ...] = ()
    union: tuple[Input, ...] = ()
    cron: CronInput | None = None


class Service(_Part, frozen=True):
    internal_port: int = 0
    external_port: int = 0
    ip: str = ""
    type: str = ""


class Spout(_Part, frozen=True):
    service: Service | None = None


class DatumSetSpec(_Part, frozen=True):
    number: int = 0
    size_bytes: int = 0
    per_worker: int = 0


class SchedulingSpec(_Part, frozen=True):
    node_selector: dict[str, str] = {}
    priority_class_name: str = ""


class Metadata(_Part, frozen=True):
    annotations: dict[str, str] = {}
    labels: dict[str, str] = {}


class Toleration(_Part, frozen=True):
    key: str = ""
    operator: str = ""
    value: str = ""
    effect: str = ""
    toleration_seconds: int | None = None


class Determined(_Part, frozen=True):
    workspaces: tuple[str, ...] = ()


class Spec(_Part, frozen=True):
    """An effective `CreatePipelineRequest` without its request-only switches."""

    pipeline: PipelineRef = PipelineRef()
    tf_job: TfJob | None = None
    transform: Transform | None = None
    parallelism_spec: ParallelismSpec | None = None
    egress: Egress | None = None
    output_branch: str = ""
    s3_out: bool = False
    resource_requests: ResourceSpec | None = None
    resource_limits: ResourceSpec | None = None
    sidecar_resource_limits: ResourceSpec | None = None
    sidecar_resource_requests: ResourceSpec | None = None
    input: Input | None = None
    description: str = ""
    service: Service | None = None
    spout: Spout | None = None
    datum_set_spec: DatumSetSpec | None = None
    datum_timeout: str = ""
    job_timeout: str = ""
    salt: str = ""
    datum_tries: int = 0
    scheduling_spec: SchedulingSpec | None = None
    pod_spec: str = ""
    pod_patch: str = ""
    metadata: Metadata | None = None
    reprocess_spec: str = ""
    autoscaling: bool = False
    tolerations: tuple[Toleration, ...] = ()
    determined: Determined | None = None
    maximum_expected_uptime: str = ""

    @property
    def project(self) -> str:
        return (self.pipeline.project.name if self.pipeline.project else "") or "default"

    @property
    def name(self) -> str:
        return self.pipeline.name

    @property
    def parallelism(self) -> int:
        """Workers wanted; at least 1."""
        return max(1, self.parallelism_spec.constant if self.parallelism_spec else 1)


# Come with the request, never from stored JSON.
REQUEST_ONLY = ("update", "reprocess", "dryRun", "specCommit")

BUILT_IN_DEFAULTS: Json = {
    "createPipelineRequest": {
        "transform": {"image": "ubuntu:20.04"},
        "outputBranch": "master",
        "datumTries": "3",
        "reprocessSpec": "until_success",
    }
}


def _names(struct: type[Struct]) -> dict[str, tuple[str, Any]]:
    """Accepted key → (canonical key, type of the field)."""
    hints = get_type_hints(struct)
    names: dict[str, tuple[str, Any]] = {}
    for field in msgspec.structs.fields(struct):
        for accepted in (field.encode_name, field.name):
            names[accepted] = (field.encode_name, hints[field.name])
    return names


_KNOWN: dict[type[Struct], dict[str, tuple[str, Any]]] = {}


def _canonical(value: Any, kind: Any, where: str) -> Any:
    """`value` with the keys of every message in camelCase; maps and scalars untouched."""
    if value is None:
        return None
    args = get_args(kind)
    if get_origin(kind) is tuple:
        if not isinstance(value, list):
            raise InvalidArgument(f"could not make effective spec: {where or 'spec'} must be a list")
        return [_canonical(v, args[0], f"{where}[{i}]") for i, v in enumerate(value)]
    if args and get_origin(kind) is not dict:  # X | None
        kind = next(a for a in args if a is not type(None))
    if not (isinstance(kind, type) and issubclass(kind, Struct)):
        return value
    if not isinstance(value, dict):
        raise InvalidArgument(f"could not make effective spec: {where or 'spec'} must be an object")
    if kind not in _KNOWN:
        _KNOWN[kind] = _names(kind)
    out: Json = {}
    for key, item in value.items():
        if kind is Spec and key in ("spec_commit", "dry_run"):
            key = {"spec_commit": "specCommit", "dry_run": "dryRun"}[key]
        if kind is Spec and key in REQUEST_ONLY:
            out[key] = item
            continue
        if key not in _KNOWN[kind]:
            raise InvalidArgument(
                f'could not make effective spec: unknown field "{where}{"." * bool(where)}{key}"'
            )
        name, inner = _KNOWN[kind][key]
        if name in out:
            raise InvalidArgument(f'could not make effective spec: duplicate field "{name}"')
        out[name] = _canonical(item, inner, f"{where}.{name}" if where else name)
    return out


def parse_json(text: str, what: str = "spec") -> Json:
    """The object in `text`; InvalidArgument when it is not one JSON object."""
    try:
        value = json.loads(text)
        # Surrogates alone, which JSON can escape but nobody can store.
        json.dumps(value, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as e:
        raise InvalidArgument(f"could not make effective spec: {what} is not valid JSON: {e}") from None
    if not isinstance(value, dict):
        raise InvalidArgument(f"could not make effective spec: {what} must be a JSON object")
    return value


def canonical(spec: Json) -> Json:
    """A `CreatePipelineRequest` in JSON with canonical field names; InvalidArgument on unknown fields."""
    out: Json = _canonical(spec, Spec, "")
    return out


def defaults(text: str) -> Json:
    """The `createPipelineRequest` layer of a cluster or project defaults JSON."""
    value = parse_json(text, "defaults")
    unknown = set(value) - {"createPipelineRequest", "create_pipeline_request"}
    if unknown:
        raise InvalidArgument(
            f'could not make effective spec: unknown field "{sorted(unknown)[0]}" in defaults'
        )
    layer: Json = next(iter(value.values()), {}) or {}
    return canonical(layer)


def merge_patch(target: Any, patch: Any) -> Any:
    """RFC 7396: objects merge, null deletes, everything else replaces. Neither argument is changed."""
    if not isinstance(patch, Mapping):
        return patch
    result: Json = dict(target) if isinstance(target, Mapping) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merge_patch(result.get(key), value)
    return result


def effective(user: Json, *layers: Json) -> Json:
    """`layers` (weakest first) patched with the canonical user spec, without request-only fields."""
    merged: Json = {}
    for layer in (BUILT_IN_DEFAULTS["createPipelineRequest"], *layers, user):
        merged = merge_patch(merged, layer)
    return {k: v for k, v in merged.items() if k not in REQUEST_ONLY}


def parse(spec: Json) -> Spec:
    """The typed form of an effective spec; InvalidArgument names the field that does not fit."""
    try:
        return msgspec.convert(spec, Spec, strict=False)
    except msgspec.ValidationError as e:
        raise InvalidArgument(f"could not make effective spec: {e}") from None


def to_json(spec: Spec) -> str:
    """Canonical JSON of a spec; `parse(json.loads(...))` gives it back."""
    return msgspec.json.encode(spec).decode()


def from_json(text: str) -> Spec:
    """The stored form back."""
    return msgspec.json.decode(text, type=Spec, strict=False)
