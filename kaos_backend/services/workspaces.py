"""Workspaces: one Pachyderm project each."""

from __future__ import annotations

from kaos_backend import errors
from kaos_backend.domain.descriptions import rfc3339
from kaos_backend.domain.models import Project
from kaos_backend.pachd.port import Pachd
from kaos_backend.services import inputs, presenters, views
from kaos_backend.services.jobs import Jobs
from kaos_backend.services.locks import KeyedLocks
from kaos_backend.services.requests import MAX_DESCRIPTION_LENGTH
from kaos_formats import names
from kaos_formats.build_secrets import secret_name


class Workspaces:
    """Creating, listing and deleting workspaces."""

    def __init__(self, pachd: Pachd, jobs: Jobs, locks: KeyedLocks) -> None:
        self._pachd = pachd
        self._jobs = jobs
        self._locks = locks

    def all(self) -> list[views.Workspace]:
        """All workspaces by name, with the number of their jobs."""
        counts = self._jobs.counts()
        projects = sorted(self._pachd.projects(), key=lambda p: p.name)
        return [_short(project, counts.get(project.name, 0)) for project in projects]

    def create(self, name: str, description: str) -> views.Workspace:
        """A new workspace. Raises InvalidName, Exists."""
        names.check_workspace(name)
        if len(description) > MAX_DESCRIPTION_LENGTH:
            raise errors.InvalidName(f"the description is longer than {MAX_DESCRIPTION_LENGTH} characters")
        try:
            self._pachd.create_project(name, description)
        except errors.Exists as error:
            raise errors.Exists(
                f"workspace {name!r} exists already",
                hint=f"`kaos workspace set {name}` makes it the current one",
            ) from error
        return _short(self._pachd.project(name), 0)

    def get(self, name: str) -> views.WorkspaceDetail:
        """What is deployed in a workspace, and its newest job. Raises NoSuchWorkspace."""
        project = inputs.require_workspace(self._pachd, name)
        heads = inputs.heads(self._pachd, name)
        data = inputs.current_data(self._pachd, name, heads)
        described = {repo: head.description if head else None for repo, head in heads.items()}
        last = self._jobs.last(name)
        return views.WorkspaceDetail(
            name=name,
            created=rfc3339(project.created),
            source=presenters.bundle(described[names.SOURCE]),
            data=presenters.bundle(inputs.counted(self._pachd, name, data)),
            manifest=presenters.bundle(described[names.MANIFEST]),
            hyper=presenters.hyper(described[names.HYPER]),
            jobs=self._jobs.counts().get(name, 0),
            last_job=self._jobs.summary(name, last) if last is not None else None,
        )

    def delete(self, name: str) -> int:
        """Deletes a workspace with everything in it and returns how many jobs it had. Raises NoSuchWorkspace.

        The default workspace is emptied: it is there again at once.
        """
        project = inputs.require_workspace(self._pachd, name)
        with self._locks.hold("workspace", name):
            jobs = self._jobs.counts().get(name, 0)
            self._pachd.delete_project(name)
            self._pachd.drop_secret(secret_name(name))
            if name == names.DEFAULT_WORKSPACE:
                self._pachd.create_project(name, project.description)
        return jobs


def _short(project: Project, jobs: int) -> views.Workspace:
    created = rfc3339(project.created)
    return views.Workspace(name=project.name, description=project.description, created=created, jobs=jobs)
