"""What the services are asked, which is what the HTTP API takes: the one definition of each request body."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, SecretStr, WithJsonSchema

from kaos_backend import errors
from kaos_backend.domain import resources
from kaos_formats import names


class Request(BaseModel):
    """A frozen value that refuses fields which it does not know, and takes no type for another."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


MAX_DESCRIPTION_LENGTH = 4096
MAX_AUTHOR_LENGTH = 256
MAX_REMOVED = 10_000
MAX_NUMBER = 10_000_000
"""Of a trial, or of lines: more than there can be."""

# What the services check, with words of their own, is only described here, for the OpenAPI document.
_ID = {"type": "string", "pattern": "^[0-9a-f]{32}$"}
_SCALAR = {"type": ["string", "number", "boolean", "null"]}
_GRID = {
    "type": "object",
    "minProperties": 1,
    "propertyNames": {"minLength": 1},
    "additionalProperties": {
        "anyOf": [_SCALAR, {"type": "array", "items": _SCALAR, "minItems": 1, "uniqueItems": True}]
    },
}
_PARALLELISM = {"type": "integer", "minimum": 1, "maximum": resources.MAX_PARALLELISM}
_CPU = {"type": "number", "exclusiveMinimum": 0}
_MEMORY = {"type": "string", "pattern": "^[1-9][0-9]{0,5}([.][0-9]{1,3})?(k|[KMGT]i?)?$"}
AUTHOR: dict[str, Any] = {"pattern": "^[ -~À-ɏ]*$", "maxLength": MAX_AUTHOR_LENGTH}
WORKSPACE: dict[str, Any] = {
    "pattern": "^[A-Za-z0-9][A-Za-z0-9_-]*$",
    "maxLength": names.MAX_WORKSPACE_LENGTH,
}
_GPU = {"type": "integer", "minimum": 0}
_BASE64 = "^([A-Za-z0-9+/]{4})*([A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$"
_TRIES = {"type": "integer", "minimum": 1, "maximum": resources.MAX_TRIES}
_BUILD_ARGS = {
    "type": "object",
    "propertyNames": {"pattern": "^[A-Za-z_][A-Za-z0-9_]*$"},
    "additionalProperties": {"type": "string"},
}
_BUILD_SECRETS = {
    "type": "object",
    "propertyNames": {"pattern": "^[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}$"},
    "additionalProperties": {"type": "string", "format": "password"},
}
_TIMEOUT = {"type": "number", "minimum": 0, "maximum": resources.MAX_TIMEOUT_S}


def _whole(value: object) -> object:
    """JSON has one kind of number: 2.0 is an integer, too."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


# As far as every reader of JSON tells numbers apart.
_Bytes = Annotated[int, Field(ge=0, le=1 << 53), BeforeValidator(_whole)]
_Whole = Annotated[int, BeforeValidator(_whole)]


def nullable(schema: dict[str, Any]) -> dict[str, Any]:
    return {"anyOf": [schema, {"type": "null"}]}


class WorkspaceCreate(Request):
    name: Annotated[
        str,
        Field(json_schema_extra=WORKSPACE),
    ]
    description: Annotated[str, Field(max_length=MAX_DESCRIPTION_LENGTH)] = ""


class Remove(Request):
    """Jobs by id, unique prefix or ``last``; versions by id or unique prefix. ``force``: also what others
    that stay need; ``dry_run``: nothing, but say what would go, and refuse what would be refused.
    """

    jobs: Annotated[list[str], Field(max_length=MAX_REMOVED)] = []
    source: Annotated[list[str], Field(max_length=MAX_REMOVED)] = []
    data: Annotated[list[str], Field(max_length=MAX_REMOVED)] = []
    force: bool = False
    dry_run: bool = False


class Resources(Request):
    """What each trial is granted; None leaves it as it is. ``memory`` is a Kubernetes quantity, a
    ``timeout_s`` of 0 lifts the limit.
    """

    cpu: Annotated[float | None, Field(json_schema_extra=nullable(_CPU))] = None
    memory: Annotated[str | None, Field(json_schema_extra=nullable(_MEMORY))] = None
    gpu: Annotated[int | None, BeforeValidator(_whole), Field(json_schema_extra=nullable(_GPU))] = None
    tries: Annotated[int | None, BeforeValidator(_whole), Field(json_schema_extra=nullable(_TRIES))] = None
    timeout_s: Annotated[float | None, Field(json_schema_extra=nullable(_TIMEOUT))] = None


class Deploy(Request):
    """What to deploy; None leaves a part as it is. ``hyper`` is the grid as the user's JSON has it, and of
    ``data`` and ``manifest`` there is one.

    ``build_args``, ``build_secrets``: all those that the build is to have, and the fetch its credentials
    among these. ``replace``: jobs that have not ended are stopped where the deploy cannot be without that.
    ``refresh``: what the manifest names is fetched again, as far as it has changed.
    """

    source: Annotated[str | None, Field(json_schema_extra=nullable(_ID))] = None
    data: Annotated[str | None, Field(json_schema_extra=nullable(_ID))] = None
    manifest: Annotated[str | None, Field(json_schema_extra=nullable(_ID))] = None
    hyper: Annotated[Any, Field(json_schema_extra=nullable(_GRID))] = None
    parallelism: Annotated[
        int | None, BeforeValidator(_whole), Field(json_schema_extra=nullable(_PARALLELISM))
    ] = None
    resources: Resources | None = None
    author: Annotated[str, Field(json_schema_extra=AUTHOR)] = ""
    build_args: Annotated[dict[str, str] | None, Field(json_schema_extra=nullable(_BUILD_ARGS))] = None
    build_secrets: Annotated[
        dict[str, SecretStr] | None, Field(json_schema_extra=nullable(_BUILD_SECRETS))
    ] = None
    retry: bool = False
    replace: bool = False
    refresh: bool = False

    @property
    def bundles(self) -> dict[names.BundleKind, str]:
        """The ids of the bundles that it names."""
        given: dict[names.BundleKind, str | None] = {
            names.SOURCE: self.source,
            names.DATA: self.data,
            names.MANIFEST: self.manifest,
        }
        return {kind: id_ for kind, id_ in given.items() if id_ is not None}

    @property
    def for_builds(self) -> bool:
        return self.build_args is not None or self.build_secrets is not None

    @property
    def settings_given(self) -> bool:
        return self.parallelism is not None or self.resources not in (None, Resources())


class Export(Request):
    """``what`` of a job into an empty folder, with ``mode`` for its files."""

    what: Literal["code", "data"]
    path: str
    device: _Whole
    inode: _Whole
    mode: Annotated[int, Field(ge=0, le=0o777), BeforeValidator(_whole)]


class Pause(Request):
    """``workspace``: where nothing new shall start (``paused``), or again; null: everywhere."""

    workspace: str | None
    paused: bool


_Hash = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


# Pydantic's own schema does not say that there are no other names.
_Objects = Annotated[
    dict[_Hash, _Bytes],
    WithJsonSchema(
        {
            "type": "object",
            "propertyNames": {"pattern": "^[0-9a-f]{64}$"},
            "additionalProperties": {"type": "integer", "minimum": 0, "maximum": 1 << 53},
        }
    ),
]


class Room(Request):
    """``bytes``: how many there should be room for. ``objects``: contents by BLAKE3, with their sizes."""

    bytes: _Bytes
    objects: _Objects = {}


class Missing(Request):
    """``objects``: contents by BLAKE3, with their sizes."""

    objects: _Objects


_Characters = Annotated[int, Field(ge=1, le=10_000), BeforeValidator(_whole)]


class Shell(Request):
    """The terminal: its size in characters, and its kind as ``TERM`` names it."""

    rows: _Characters = 24
    columns: _Characters = 80
    term: Annotated[str, Field(max_length=64, pattern="^[A-Za-z0-9._+-]*$")] = "dumb"


class Typed(Request):
    """What is ``typed`` (base64), the new size of the terminal, or that all is to ``end``."""

    typed: Annotated[str, Field(max_length=64 << 10, pattern=_BASE64)] = ""
    rows: _Characters | None = None
    columns: _Characters | None = None
    end: bool = False


class Run(Request):
    """One trial: bundles (None: the current ones), parameters of one value each, what it is granted where
    that differs from what is in force; ``keep``: its output folder is sent.
    """

    source: Annotated[str | None, Field(json_schema_extra=nullable(_ID))] = None
    data: Annotated[str | None, Field(json_schema_extra=nullable(_ID))] = None
    params: Annotated[
        dict[str, Any], Field(json_schema_extra={"type": "object", "additionalProperties": _SCALAR})
    ] = {}
    resources: Resources | None = None
    keep: bool = False


class Retry(Request):
    """``failed``: only what failed is run again, not what never ran."""

    failed: bool = False
    author: Annotated[str, Field(json_schema_extra=AUTHOR)] = ""


class Check(Request):
    """``repair``: what is damaged is restored where there is another copy of it on the machine."""

    repair: bool = False


class Collect(Request):
    """``dry_run``: nothing is removed."""

    dry_run: bool = False


def check_author(author: str) -> None:
    """Raises InvalidName for what is no name of anybody."""
    if len(author) > MAX_AUTHOR_LENGTH or not author.isprintable():
        raise errors.InvalidName(
            "the author's name is not printable or too long", hint="set another one, like user@host"
        )
