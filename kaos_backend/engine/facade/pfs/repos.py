"""Projects, repos and branches of `pfs_v2.API`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import grpc
from betterproto.lib.google.protobuf import Empty
from pachyderm_sdk.api import pfs

from kaos_backend.engine.errors import InvalidArgument, NotFound
from kaos_backend.engine.facade.convert import (
    branch_info,
    branch_key,
    page_of,
    picked_branch,
    project_info,
    project_name,
    repo_info,
    repo_key,
    repo_message,
)
from kaos_backend.engine.facade.rpc import Handlers, server_stream, unary
from kaos_backend.engine.facade.transaction import Transactions, header
from kaos_backend.engine.store.model import DEFAULT_PROJECT, USER_REPO, Branch, BranchKey, Repo
from kaos_backend.engine.store.reads import Reads
from kaos_backend.engine.store.store import Store

_MAX_BRANCHES = 10_000
_MAX_DEPTH = 1000


class RepoRpcs:
    """`project_defaults` gives the JSON text that InspectProjectV2 shows for a project."""

    def __init__(
        self, store: Store, transactions: Transactions, project_defaults: Callable[[str], str] | None = None
    ) -> None:
        self._store = store
        self._transactions = transactions
        self._project_defaults = project_defaults or (lambda _: "{}")

    def handlers(self) -> Handlers:
        return {
            "CreateProject": unary(self._create_project, pfs.CreateProjectRequest),
            "InspectProject": unary(self._inspect_project, pfs.InspectProjectRequest),
            "InspectProjectV2": unary(self._inspect_project_v2, pfs.InspectProjectV2Request),
            "ListProject": server_stream(self._list_project, pfs.ListProjectRequest),
            "DeleteProject": unary(self._delete_project, pfs.DeleteProjectRequest),
            "CreateRepo": unary(self._transactional("create_repo"), pfs.CreateRepoRequest),
            "InspectRepo": unary(self._inspect_repo, pfs.InspectRepoRequest),
            "ListRepo": server_stream(self._list_repo, pfs.ListRepoRequest),
            "DeleteRepo": unary(self._delete_repo, pfs.DeleteRepoRequest),
            "DeleteRepos": unary(self._delete_repos, pfs.DeleteReposRequest),
            "DeleteAll": unary(self._delete_all, Empty),
            "ReposSummary": unary(self._repos_summary, pfs.ReposSummaryRequest),
            "CreateBranch": unary(self._transactional("create_branch"), pfs.CreateBranchRequest),
            "InspectBranch": unary(self._inspect_branch, pfs.InspectBranchRequest),
            "ListBranch": server_stream(self._list_branch, pfs.ListBranchRequest),
            "DeleteBranch": unary(self._delete_branch, pfs.DeleteBranchRequest),
            "WalkBranchProvenance": server_stream(self._walk_provenance, pfs.WalkBranchProvenanceRequest),
            "WalkBranchSubvenance": server_stream(self._walk_subvenance, pfs.WalkBranchSubvenanceRequest),
        }

    def _transactional(self, arm: str) -> Callable[[Any, grpc.ServicerContext], Empty]:
        def handle(request: Any, context: grpc.ServicerContext) -> Empty:
            self._transactions.call(context, arm, request)
            return Empty()

        return handle

    # Projects

    def _create_project(self, request: pfs.CreateProjectRequest, _: grpc.ServicerContext) -> Empty:
        with self._store.write() as txn:
            txn.create_project(project_name(request.project), request.description, request.update)
        return Empty()

    def _inspect_project(
        self, request: pfs.InspectProjectRequest, _: grpc.ServicerContext
    ) -> pfs.ProjectInfo:
        return project_info(self._store.inspect_project(project_name(request.project)))

    def _inspect_project_v2(
        self, request: pfs.InspectProjectV2Request, _: grpc.ServicerContext
    ) -> pfs.InspectProjectV2Response:
        name = project_name(request.project)
        info = project_info(self._store.inspect_project(name))
        return pfs.InspectProjectV2Response(info=info, defaults_json=self._project_defaults(name))

    def _list_project(
        self, _request: pfs.ListProjectRequest, _: grpc.ServicerContext
    ) -> Iterator[pfs.ProjectInfo]:
        for project in self._store.list_projects():
            yield project_info(project)

    def _delete_project(self, request: pfs.DeleteProjectRequest, _: grpc.ServicerContext) -> Empty:
        with self._store.write() as txn:
            txn.delete_project(project_name(request.project), request.force)
        return Empty()

    # Repos

    def _repo_info(self, repo: Repo, details: bool = False) -> pfs.RepoInfo:
        branches = self._store.list_branches(repo.key)
        return repo_info(repo, branches, self._store.repo_size(repo.key), details)

    def _inspect_repo(self, request: pfs.InspectRepoRequest, _: grpc.ServicerContext) -> pfs.RepoInfo:
        return self._repo_info(self._store.inspect_repo(repo_key(request.repo)), details=True)

    def _list_repo(self, request: pfs.ListRepoRequest, _: grpc.ServicerContext) -> Iterator[pfs.RepoInfo]:
        projects = [project_name(project) for project in request.projects]
        found = self._store.list_repos(request.type, projects)
        for repo in found[slice(*page_of(request.page))]:
            try:
                info = self._repo_info(repo)
            except NotFound:
                continue  # it was deleted since it was listed
            yield info

    def _delete_repo(
        self, request: pfs.DeleteRepoRequest, context: grpc.ServicerContext
    ) -> pfs.DeleteRepoResponse:
        if header(context):
            self._transactions.call(context, "delete_repo", request)
            return pfs.DeleteRepoResponse(deleted=True)
        with self._store.write() as txn:
            return pfs.DeleteRepoResponse(deleted=txn.delete_repo(repo_key(request.repo), request.force))

    def _delete_repos(
        self, request: pfs.DeleteReposRequest, _: grpc.ServicerContext
    ) -> pfs.DeleteReposResponse:
        projects = [project_name(project) for project in request.projects]
        if not projects and not request.all:
            raise InvalidArgument("name the projects whose repos to delete, or set `all`")
        with self._store.write() as txn:
            doomed = [repo.key for repo in txn.list_repos(USER_REPO, [] if request.all else projects)]
            for key in doomed:
                txn.delete_repo(key, request.force)
        return pfs.DeleteReposResponse(repos=[repo_message(key) for key in doomed])

    def _delete_all(self, _request: Empty, _: grpc.ServicerContext) -> Empty:
        with self._store.write() as txn:
            for project in txn.list_projects():
                txn.delete_project(project.name, force=True)
            txn.create_project(DEFAULT_PROJECT)
        return Empty()

    def _repos_summary(
        self, request: pfs.ReposSummaryRequest, _: grpc.ServicerContext
    ) -> pfs.ReposSummaryResponse:
        summaries = []
        for picker in request.projects:
            name = picker.name or DEFAULT_PROJECT
            self._store.inspect_project(name)
            found = self._store.list_repos(USER_REPO, [name])
            summaries.append(
                pfs.ReposSummary(
                    project=pfs.Project(name=name),
                    user_repo_count=len(found),
                    size_bytes=sum(self._store.repo_size(repo.key) for repo in found),
                )
            )
        return pfs.ReposSummaryResponse(summaries=summaries)

    # Branches

    def _branch_info(self, branch: Branch, reads: Reads) -> pfs.BranchInfo:
        return branch_info(branch, reads.branch_provenance(branch.key), reads.branch_subvenance(branch.key))

    def _inspect_branch(self, request: pfs.InspectBranchRequest, _: grpc.ServicerContext) -> pfs.BranchInfo:
        return self._branch_info(self._store.inspect_branch(branch_key(request.branch)), self._store)

    def _list_branch(
        self, request: pfs.ListBranchRequest, _: grpc.ServicerContext
    ) -> Iterator[pfs.BranchInfo]:
        for branch in self._store.list_branches(repo_key(request.repo), request.reverse):
            yield self._branch_info(branch, self._store)

    def _delete_branch(self, request: pfs.DeleteBranchRequest, context: grpc.ServicerContext) -> Empty:
        if not request.branch.name and not request.branch.repo.name:
            raise InvalidArgument("validate request: branch: value is required")
        self._transactions.call(context, "delete_branch", request)
        return Empty()

    def _walk_provenance(
        self, request: pfs.WalkBranchProvenanceRequest, _: grpc.ServicerContext
    ) -> Iterator[pfs.BranchInfo]:
        return self._walk(request, lambda branch: list(branch.provenance))

    def _walk_subvenance(
        self, request: pfs.WalkBranchSubvenanceRequest, _: grpc.ServicerContext
    ) -> Iterator[pfs.BranchInfo]:
        def downstream(branch: Branch) -> list[BranchKey]:
            below = self._store.branch_subvenance(branch.key)
            return [key for key in below if branch.key in self._store.inspect_branch(key).provenance]

        return self._walk(request, downstream)

    def _walk(self, request: Any, edges: Callable[[Branch], list[BranchKey]]) -> Iterator[pfs.BranchInfo]:
        """Breadth first from each start, each branch once."""
        limit = request.max_branches or _MAX_BRANCHES
        depth_limit = request.max_depth or _MAX_DEPTH
        for picker in request.start:
            queue = [(picked_branch(picker), 0)]
            seen = {queue[0][0]}
            for count, (key, depth) in enumerate(queue):
                if count >= limit:
                    break
                branch = self._store.inspect_branch(key)
                yield self._branch_info(branch, self._store)
                if depth < depth_limit:
                    new = [other for other in edges(branch) if other not in seen]
                    seen.update(new)
                    queue += [(other, depth + 1) for other in new]
