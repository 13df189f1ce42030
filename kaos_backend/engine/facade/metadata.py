"""`metadata.API`: the key-value pairs that users hang on projects, repos, branches and commits."""

from __future__ import annotations

from typing import Any, Protocol, cast

import betterproto
import grpc
from pachyderm_sdk.api import metadata, pps

from kaos_backend.engine.errors import EngineError, InvalidArgument, Unimplemented, Unknown
from kaos_backend.engine.facade.convert import picked_branch, picked_commit, picked_repo
from kaos_backend.engine.facade.rpc import Handlers, unary
from kaos_backend.engine.store.model import DEFAULT_PROJECT, BranchKey, CommitKey, RepoKey
from kaos_backend.engine.store.store import Store, Txn

_Target = str | RepoKey | BranchKey | CommitKey | None


class PipelineMetadata(Protocol):
    """Metadata of pipelines, kept by the jobs layer. Both raise NotFound for a missing pipeline."""

    def get(self, txn: Txn, project: str, name: str) -> dict[str, str]: ...

    def set(self, txn: Txn, project: str, name: str, value: dict[str, str]) -> None: ...


class MetadataService:
    name = "metadata.API"

    def __init__(self, store: Store, pipelines: PipelineMetadata | None = None) -> None:
        self._store = store
        self._pipelines = pipelines

    def handlers(self) -> Handlers:
        return {"EditMetadata": unary(self._edit, metadata.EditMetadataRequest)}

    def _edit(
        self, request: metadata.EditMetadataRequest, _: grpc.ServicerContext
    ) -> metadata.EditMetadataResponse:
        """All edits in order, or none; what fails is reported together."""
        problems: list[EngineError] = []
        with self._store.write() as txn:
            for number, edit in enumerate(request.edits):
                try:
                    self._apply(txn, edit)
                except EngineError as error:
                    error.message = f"edit #{number}: {error.message}"
                    problems.append(error)
            if problems:
                raise EngineError("; ".join(one.message for one in problems), code=problems[0].code)
        return metadata.EditMetadataResponse()

    def _apply(self, txn: Txn, edit: metadata.Edit) -> None:
        arm, picker = cast("tuple[str, Any]", betterproto.which_one_of(edit, "target"))
        if arm == "pipeline":
            self._apply_to_pipeline(txn, edit, picker)
            return
        target: _Target
        if arm == "project":
            target = picker.name or DEFAULT_PROJECT
            current = txn.inspect_project(target).metadata
        elif arm == "repo":
            target = picked_repo(picker)
            current = txn.inspect_repo(target).metadata
        elif arm == "branch":
            target = picked_branch(picker)
            current = txn.inspect_branch(target).metadata
        elif arm == "commit":
            commit = picked_commit(txn, picker)
            target, current = commit.key, commit.metadata
        elif arm == "cluster":
            target, current = None, txn.cluster_metadata()
        else:
            raise InvalidArgument("validate request: target: value is required")
        txn.set_metadata(target, _edited(dict(current), edit))

    def _apply_to_pipeline(self, txn: Txn, edit: metadata.Edit, picker: pps.PipelinePicker) -> None:
        if self._pipelines is None:
            raise Unimplemented("metadata of pipelines is not built into this server")
        project, name = picker.name.project.name or DEFAULT_PROJECT, picker.name.name
        current = self._pipelines.get(txn, project, name)
        self._pipelines.set(txn, project, name, _edited(dict(current), edit))


def _edited(current: dict[str, str], edit: metadata.Edit) -> dict[str, str]:
    op, value = cast("tuple[str, Any]", betterproto.which_one_of(edit, "op"))
    if op == "replace":
        if "" in value.replacement:
            raise InvalidArgument("validate request: replacement: keys must not be empty")
        return dict(value.replacement)
    if op not in ("add_key", "edit_key", "delete_key"):
        raise InvalidArgument("validate request: op: value is required")
    if not value.key:
        raise InvalidArgument(f"validate request: {op}: the key must not be empty")
    if op == "delete_key":
        current.pop(value.key, None)
        return current
    if op == "add_key" and value.key in current:
        raise Unknown(f"add_key target key {value.key!r} already exists; use edit_key instead")
    return {**current, value.key: value.value}
