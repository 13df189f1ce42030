"""The port to Pachyderm: the few operations that kaos needs, and what a caller may rely on.

One implementation, ``pachd.sdk``. Every method raises errors of ``kaos_backend.errors`` only: NotFound for a
project, repo, branch, commit, pipeline or job that does not exist, EngineUnavailable when nobody answers,
DiskFull, NeverFits, DataLoss, and Internal with the server's text for the rest. Reads are retried once after
the engine has been brought back; writes are not, since nobody knows whether they happened.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol

from kaos_backend.domain.models import (
    Cluster,
    Commit,
    Datum,
    FileOp,
    Job,
    LogBlock,
    Pipeline,
    Project,
    PutPipeline,
    Queue,
    Repo,
    RunningDatum,
    Staged,
    StartCommit,
)
from kaos_formats import kaos_v1
from kaos_formats.handover import File, Folder


class LogStream(Protocol):
    """Log lines in order of arrival. Iterating blocks while following; ``close`` ends it from any thread."""

    def __iter__(self) -> Iterator[LogBlock]: ...

    def close(self) -> None: ...


class ForegroundCall(Protocol):
    """A command in the foreground. Iterating blocks until it has ended; the other two are of any thread."""

    def __iter__(self) -> Iterator[kaos_v1.ForegroundOutput]: ...

    def type(self, typed: bytes, size: kaos_v1.TerminalSize | None) -> None:
        """Pass on what is typed, and the terminal's new size."""

    def close(self) -> None:
        """End it. Idempotent."""


class IngestCall(Protocol):
    """Files being taken in. Iterating ends with the response that names the file set; ``close`` gives up, and
    then nothing is kept. Iterating raises NoHandover and Changed.
    """

    def __iter__(self) -> Iterator[kaos_v1.IngestResponse]: ...

    def used(self, file_set: str) -> None:
        """The file set is not needed any more: what only it refers to need not be kept for its time."""

    def close(self) -> None:
        """From any thread. Idempotent."""


class Pachd(Protocol):
    """What kaos asks of Pachyderm. Safe to use from several threads."""

    # -- projects and repos
    def cluster(self) -> Cluster: ...

    def projects(self) -> list[Project]: ...

    def project(self, name: str) -> Project: ...

    def create_project(self, name: str, description: str) -> None:
        """Raises Exists if there is one of that name."""

    def delete_project(self, name: str) -> None:
        """Deletes its pipelines, jobs, repos and then the project; a repeated call goes on where it
        stopped.
        """

    def repos(self, project: str | None = None) -> list[Repo]:
        """User repos of one project or of all, with their branches."""

    def ensure_repos(self, project: str, names: Sequence[str]) -> Mapping[str, Repo]:
        """Creates those that do not exist, idempotent; those that do, by name."""

    # -- commits
    def commit(self, project: str, repo: str, ref: str) -> Commit:
        """The commit that ``ref`` (a commit id, a commit set id or a branch) names; does not wait."""

    def commits(self, project: str, repo: str, number: int) -> list[Commit]:
        """The ``number`` newest commits of a repo over all branches, newest first (0: all); [] without the
        repo.
        """

    def start_commit(self, project: str, repo: str, branch: str, description: str) -> str:
        """Opens a commit on its own and returns its id."""

    def modify(self, project: str, repo: str, commit_id: str, ops: Iterable[FileOp]) -> None:
        """Applies all of ``ops`` in order, or none of them: an exception in the iterator aborts the whole
        stream and is raised from here. ``ops`` is consumed in another thread.
        """

    def finish_commit(
        self, project: str, repo: str, commit_id: str, error: str = "", description: str = ""
    ) -> Commit:
        """Closes a commit and returns it when it is finished; one that is closed already is no error.

        ``description``: another one than it was opened with.
        """

    def drop_branch(self, project: str, repo: str, branch: str) -> None:
        """Deletes a branch that nothing depends on; a missing one is no error. Its commits stay."""

    def drop_commit_set(self, commit_id: str) -> None:
        """Deletes a commit set without children; a missing one is no error."""

    def forget_commit(self, project: str, repo: str, commit_id: str) -> None:
        """Removes one commit, of a repo or of a meta repo; a missing one is no error. Its children keep their
        content, and a branch whose head it is goes back to the parent. InUse if others were made of it.
        """

    def transact(self, project: str, commits: Sequence[StartCommit], pipelines: Sequence[PutPipeline]) -> str:
        """Opens all commits and puts all pipelines in one transaction and returns its id, which is the id of
        the commit set and of its jobs. All or nothing; a crash before the end leaves at most an unfinished
        transaction, which ``delete_abandoned_transactions`` finds.
        """

    def transact_at_once(
        self,
        project: str,
        repos: Sequence[str],
        commits: Sequence[StartCommit],
        pipelines: Sequence[PutPipeline],
        staged: Sequence[Staged],
    ) -> str:
        """As ``transact``, and within the same transaction: ``repos`` that do not exist are made, commits
        with ``changes`` get them and are finished, ``staged`` branches go with their commits. A crash leaves
        all of it or nothing. Raises NeedsEmbeddedEngine elsewhere.
        """

    def delete_abandoned_transactions(self, owner: str, before: datetime) -> int:
        """Deletes unfinished transactions: those that open commits which name ``owner`` in their descriptions
        (or no owner); and of those begun before ``before`` all of kaos's, and those to which nothing was ever
        appended. Returns how many.
        """

    # -- files: of a user repo by its name, of a pipeline's meta repo as ``names.meta_repo`` calls it
    def read_file(self, project: str, repo: str, commit_id: str, path: str) -> Iterator[bytes]:
        """Content of one file. NotFound is raised at the first ``next``."""

    def read_tar(self, project: str, repo: str, commit_id: str, glob: str) -> Iterator[bytes]:
        """A tar of everything that ``glob`` matches, folders with all below; names are absolute, modes 0.
        Nothing matched: NotFound at the first ``next``.
        """

    def sizes(self, project: str, repo: str, commit_id: str, folder: str) -> Mapping[str, int]:
        """Of all files below a folder their paths in it, and their bytes; a missing folder has none."""

    def folders(self, project: str, repo: str, commit_id: str, glob: str) -> Mapping[str, str]:
        """The folders of a commit's top level that ``glob`` matches, each with a name for its content."""

    # -- pipelines, jobs, datums
    def pipelines(self, project: str) -> list[Pipeline]: ...

    def jobs(
        self,
        project: str | None,
        pipeline: str | None = None,
        number: int = 0,
        before: datetime | None = None,
    ) -> list[Job]:
        """Jobs of all versions, newest first; ``number`` 0 means all, ``project`` None those of every
        project, ``before`` those that were made before. [] without the pipeline.
        """

    def queue(self) -> Queue:
        """The jobs of all projects that have not ended, and who has which GPU. Only the embedded engine knows
        of workers, of earlier jobs and of GPUs.
        """

    def room(self, needed_bytes: int, objects: Mapping[bytes, int]) -> kaos_v1.RoomResponse:
        """The room on the disk, and what of ``objects`` (BLAKE3 → size) is not stored; see
        ``kaos_v1.RoomRequest``. Raises NeedsEmbeddedEngine.
        """

    def find(self, objects: Mapping[bytes, int]) -> kaos_v1.FindResponse:
        """What of ``objects`` (BLAKE3 → size) is stored, under whatever name; see ``kaos_v1.FindRequest``.
        Raises NeedsEmbeddedEngine.
        """

    def receive(
        self, name: bytes, size: int, offset: int, pieces: Iterable[bytes]
    ) -> kaos_v1.ReceiveResponse:
        """Takes in a large content by its BLAKE3 from ``offset`` on; what has come stays when ``pieces`` end
        too early or raise (then that is raised from here), see ``kaos_v1.ReceiveRequest``. They are consumed
        in another thread. Raises NeedsEmbeddedEngine.
        """

    def job_set(self, project: str, job_id: str) -> list[Job]:
        """This project's jobs of a commit set; [] if there are none."""

    def job_spec(self, project: str, pipeline: str, job_id: str) -> Mapping[str, Any]:
        """What a job was run with, in the spelling of ``Pipeline.spec``: its transform, limits, tries, …"""

    def stop_job(self, project: str, pipeline: str, job_id: str, reason: str) -> None:
        """Idempotent on a job that has ended."""

    def delete_job(self, project: str, pipeline: str, job_id: str) -> None:
        """Forgets a job, its log, and what its datums did; a missing one is no error. Its commits stay."""

    def datums(
        self, project: str, pipeline: str, job_id: str, *, since: int = 0, path: str = ""
    ) -> list[Datum]:
        """The datums of a job that have ended, in no useful order. ``path``: only those that read a file
        there. ``since``: those that were among the first so many to end may be left out.
        """

    def job_counts(self, pipelines: Collection[str]) -> Mapping[str, int]:
        """How many jobs of pipelines of these names each project has, those of one commit set together."""

    def job_ids(self, project: str, pipelines: Collection[str], prefix: str = "") -> list[str]:
        """The ids that start with ``prefix`` of a project's jobs of such pipelines, newest first."""

    def running(self, project: str, pipeline: str, job_id: str) -> list[RunningDatum]:
        """What the workers of a job are at; [] unless it is running."""

    def datum_reason(self, project: str, pipeline: str, job_id: str, datum_id: str) -> str:
        """Why a datum failed, as recorded with it; "" if nothing is."""

    def logs(
        self,
        project: str,
        pipeline: str,
        job_id: str,
        *,
        datum_id: str = "",
        path: str = "",
        follow: bool = False,
        tail: int = 0,
    ) -> LogStream:
        """The log of a job, of one of its datums, or of those that read a file at ``path``: the last ``tail``
        lines of each (0: all). Following ends when the job has ended.

        With ``tail`` a whole job's may be more than these, and when it is followed a block without lines
        comes once: behind what was there when it began.
        """

    # -- secrets
    def put_secret(self, name: str, values: Mapping[str, str]) -> None:
        """Makes a secret, in place of one that there may be; no call returns its values."""

    def drop_secret(self, name: str) -> None:
        """Deletes a secret; a missing one is no error."""

    # -- what only the embedded engine has
    def check(self, repair: bool) -> Iterator[kaos_v1.Finding | kaos_v1.Progress]:
        """Reads and compares all that is stored, and repairs what it can. Raises NeedsEmbeddedEngine."""

    def collect(self, dry_run: bool) -> Iterator[kaos_v1.Collected | kaos_v1.CollectProgress]:
        """Removes what nothing needs any more, or only tells what that is. Raises NeedsEmbeddedEngine."""

    def disk_use(self) -> kaos_v1.DiskUseResponse:
        """What takes the disk, and whose it is. Raises NeedsEmbeddedEngine."""

    def stop_datum(self, project: str, pipeline: str, job_id: str, path: str, reason: str) -> None:
        """Ends the datum that reads a file at ``path`` as one that failed; the others go on. Nothing is done
        to one that has ended. The job runs or has ended. Raises NeedsEmbeddedEngine.
        """

    def rerun_job(self, project: str, pipelines: Sequence[str], job_id: str, *, only_failed: bool) -> str:
        """The id of new jobs of ``pipelines`` (upstream first) on the inputs that they had in a commit set;
        no branch of an input moves. What was done stays done; ``only_failed``: what was never run is not run
        either. Raises NeedsEmbeddedEngine.
        """

    def pause(self, project: str | None, paused: bool) -> kaos_v1.PausedResponse:
        """With ``paused`` nothing new starts in a project (None: in any) from now on, and what runs goes on;
        without, it does again. What is paused then. Raises NeedsEmbeddedEngine.
        """

    def paused(self) -> kaos_v1.PausedResponse:
        """What is paused; elsewhere nothing ever is."""

    def foreground(self, ask: kaos_v1.ForegroundOpen) -> ForegroundCall:
        """A command in the foreground, see ``kaos_v1.ForegroundOpen``. Iterating raises
        NeedsEmbeddedEngine.
        """

    def ingest(self, folder: Folder, files: Iterable[list[File]]) -> IngestCall:
        """Takes in files of a folder of this machine, see ``kaos_v1.IngestRequest``. ``files`` is consumed in
        another thread. Elsewhere iterating raises NoHandover.
        """

    def export(self, request: kaos_v1.ExportRequest) -> Iterator[kaos_v1.ExportResponse]:
        """Writes files into a folder of this machine. Closing the iterator gives up. Raises NoHandover,
        NotFound.
        """

    def damaged(self, project: str, repo: str, commit_id: str, path: str) -> list[str]:
        """The files at and below a path that are known to be damaged; elsewhere none ever is."""
