"""The messages of `kaos_v1.Engine`, the embedded engine's own gRPC service beside pachd's.

It has what one machine needs and Pachyderm's protocol lacks; elsewhere its methods are UNIMPLEMENTED. A
message is a JSON object; fields may be added, so readers pass over those that they do not know.

    Check(CheckRequest) → stream of CheckResponse, one field of each set
    Damaged(DamagedRequest) → DamagedResponse
    Collect(CollectRequest) → stream of CollectResponse, one field of each set
    DiskUse(DiskUseRequest) → DiskUseResponse
    LogRanges(pps_v2.GetLogsRequest) → stream of LogRange
    StopDatum(StopDatumRequest) → Done
    RerunJob(RerunJobRequest) → RerunJobResponse
    Foreground(stream of ForegroundInput) → stream of ForegroundOutput
    Pause(PauseRequest) → PausedResponse
    Paused(PausedRequest) → PausedResponse
    Find(FindRequest) → FindResponse
    Receive(stream of ReceiveRequest, then of bytes) → ReceiveResponse
    Queue(QueueRequest) → QueueResponse
    Datums(DatumsRequest) → stream of DatumsResponse
    JobCounts(JobCountsRequest) → JobCountsResponse
    JobIds(JobIdsRequest) → JobIdsResponse
    PutSecret(PutSecretRequest) → Done
    Transact(TransactRequest) → TransactResponse
    Ingest(stream of IngestRequest) → stream of IngestResponse
    Export(ExportRequest) → stream of ExportResponse

The last two are for callers of the same user on the same machine: over the engine's Unix socket only.
"""

from __future__ import annotations

from typing import Self

import msgspec

from kaos_formats.handover import File, Folder

SERVICE = "kaos_v1.Engine"


class Message(msgspec.Struct, kw_only=True):
    """Encoded by ``bytes(message)`` and decoded by ``FromString``, as the SDK's messages are."""

    def __bytes__(self) -> bytes:
        return msgspec.json.encode(self)

    @classmethod
    def FromString(cls, data: bytes) -> Self:
        """Raises msgspec.ValidationError or DecodeError."""
        return msgspec.json.decode(data, type=cls)


class CheckRequest(Message):
    """Read and compare all that is stored; `repair` what can be had from elsewhere on the machine."""

    repair: bool = False


class Finding(Message):
    """One thing that is wrong.

    `repo` is ``name``, ``name.meta`` or ``name.spec``; `commit` the newest one that holds `path`. They are
    empty where no commit speaks of what is wrong. `object` is 64 hex digits, or empty when it is no object.
    """

    project: str
    repo: str
    commit: str
    path: str
    object: str
    what: str
    repaired: bool


class Progress(Message):
    """Objects and bytes that have been read and compared, and how many there are."""

    objects: int
    objects_total: int
    bytes: int
    bytes_total: int


class CheckResponse(Message, omit_defaults=True):
    finding: Finding | None = None
    progress: Progress | None = None


class CollectRequest(Message):
    """Remove what nothing needs any more; with `dry_run` tell only what that is."""

    dry_run: bool = False


class StoredImage(Message):
    """An image of this home, an environment or a layer (`kind`): what it takes, bytes, and the images that
    need it.
    """

    kind: str
    name: str
    bytes: int
    images: list[str] = []


class Collected(Message):
    """What went, or would go.

    Contents and directories that nothing refers to; files in which contents lay together, with those that
    were written anew; how much smaller the files of the store are, and its database. What was kept for images
    that no pipeline mentions. Logs of jobs that are gone. Inputs laid out whose commits are gone.
    """

    objects: int
    object_bytes: int
    directories: int
    packs: int
    freed_bytes: int
    database_bytes: int
    images: list[StoredImage] = []
    logs: int = 0
    log_bytes: int = 0
    inputs: int = 0
    input_bytes: int = 0


class CollectProgress(Message):
    """How far a stage is, of how much."""

    stage: str
    done: int
    total: int


class CollectResponse(Message, omit_defaults=True):
    progress: CollectProgress | None = None
    collected: Collected | None = None


class DiskUseRequest(Message):
    """What takes the disk, and whose is it?"""


class DiskShare(Message):
    """Bytes: what was put in, what pipelines made, images with environments and layers, inputs laid out for
    trials, logs.
    """

    data: int
    models: int
    images: int
    inputs: int
    logs: int


class DiskUseResponse(Message):
    """What is in one project alone, what several share, what nothing needs, the database. Each byte once."""

    projects: dict[str, DiskShare]
    shared: DiskShare
    unneeded: DiskShare
    database: int


class DamagedRequest(Message):
    """Which files at and below `path` of a commit (an id or a branch) are known to be damaged?"""

    project: str
    repo: str
    commit: str
    path: str


class DamagedResponse(Message):
    paths: list[str] = []


class LogRange(Message, omit_defaults=True):
    """Lines of one log, for each of which `GetLogs` has a message: a trial may write a million a second.

    They are the bytes from `at` to `to` of `file`, a path on the engine's machine; `loglines` says how they
    are read. `paths` are the files of the datum that they belong to. One without a file comes once, behind
    all that was there when the call began. A time (`since`) cannot be asked for.
    """

    datum: str = ""
    paths: list[str] = []
    file: bytes = b""
    at: int = 0
    to: int = 0


class Done(Message):
    """It is done, and stays so."""


class StopDatumRequest(Message):
    """End one datum of a job, that which reads a file at `path`; the others go on.

    It ends as one that failed, for `reason`. Answered when that is written down; nothing is done to one that
    has ended.
    """

    project: str
    pipeline: str
    job: str
    path: str
    reason: str


class RerunJobRequest(Message):
    """New jobs of `pipelines` (upstream first) with the versions and inputs that they had in the set `job`.

    What was done stays done. `only_failed`: of the last pipeline's datums those that failed are run, and not
    those that were never run. No branch moves, but where a job's output is the head of its branch the new one
    becomes that.
    """

    project: str
    pipelines: list[str]
    job: str
    only_failed: bool = False


class RerunJobResponse(Message):
    """The id of the new jobs."""

    job: str


class PutSecretRequest(Message):
    """As pps_v2's CreateSecret, whose `file` it is, but in place of a secret of that name that there may be:
    one that is replaced is never gone.
    """

    file: bytes


class PauseRequest(Message):
    """With `paused` nothing new starts in the project from now on, restarts included, and what runs goes on;
    without, what waits there starts again. "" is all projects, later ones included.
    """

    project: str
    paused: bool


class PausedRequest(Message):
    """What is paused?"""


class PausedResponse(Message):
    """`everywhere`: also in projects that are not among `projects`."""

    projects: list[str] = []
    everywhere: bool = False


class RoomRequest(Message):
    """How much room has the disk, where so many bytes are `wanted`? And how many bytes of `objects` are
    not stored yet? They are given by their hashes, with their `sizes` in the same order.
    """

    wanted: int
    objects: list[bytes] = []
    sizes: list[int] = []


class RoomResponse(Message):
    """In bytes. `free`: after what no job uses has made room, if it had to. `missing`: of the objects."""

    free: int
    total: int
    missing: int = 0


class FindRequest(Message):
    """Which of `objects` are stored? They are given by their hashes, with their `sizes` in the same order."""

    objects: list[bytes]
    sizes: list[int]


class FindResponse(Message):
    """`missing`: the places in the request of those that are not there. The others are in a file set, each a
    file that is called like its hash in hex: so they stay for its time. "" where there are none.

    `begun`: of missing ones that broke off within, as [place, bytes that are there].
    """

    file_set: str = ""
    missing: list[int] = []
    begun: list[tuple[int, int]] = []


class ReceiveRequest(Message):
    """The content of an `object` of so many bytes follows from `offset` on, in messages that are nothing but
    bytes; with 0 what there may be of it goes.
    """

    object: bytes
    size: int
    offset: int = 0


class ReceiveResponse(Message, omit_defaults=True):
    """The file set that has the object, as in FindResponse. Without one it is not whole: so many bytes of it
    are `held` for a day, for another call to go on there. `differs`: it was whole and not that object, and
    none are.
    """

    file_set: str = ""
    held: int = 0
    differs: bool = False


class QueueRequest(Message):
    """What runs and waits on this machine?"""


class OpenJob(Message):
    """A job that has not ended. Counters are of datums, times in µs.

    `running`: on a worker now, since `elapsed_us` together; `at_once`: how many the machine and the pipeline
    would run of them; `process_us`: what those that ran took; `usual_us`: what one took in the newest earlier
    job of the pipeline that ran any, 0 where none did.
    """

    project: str
    pipeline: str
    job: str
    total: int
    processed: int
    skipped: int
    failed: int
    recovered: int
    running: int
    at_once: int
    process_us: int
    elapsed_us: int
    usual_us: int


class Device(Message):
    """A GPU, or a MIG instance of one: what CUDA_VISIBLE_DEVICES calls it, and who is on it.

    `memory_bytes` is 0 where nobody knows. `project`, `pipeline` and `job` are empty unless a datum has it;
    `others` says which programs of others compute on it.
    """

    device: str
    model: str = ""
    memory_bytes: int = 0
    project: str = ""
    pipeline: str = ""
    job: str = ""
    others: str = ""


class QueueResponse(Message):
    """`jobs` in order of creation."""

    jobs: list[OpenJob] = []
    gpus: list[Device] = []


class DatumsRequest(Message, omit_defaults=True):
    """Which datums of a job have ended? As `ListDatum`, but many to a message: one for each of ten thousand
    costs seconds. `since`: those that were not among the first so many to end; `path`: those that read a file
    there.
    """

    project: str
    pipeline: str
    job: str
    since: int = 0
    path: str = ""


class InputPath(Message):
    """A file or folder that a datum read, of a repo of its project or another."""

    repo: str
    path: str


class Datum(Message, omit_defaults=True):
    """A datum that has ended; what ran it: `job`, an earlier one if it was skipped. Times in µs.

    `state` is pps_v2.DatumState. `ended`: it was the how many-th to end, 0 where nobody noted it. `output`
    names the content of what it wrote, of `size_bytes`, "" where that is nothing.
    """

    id: str
    job: str
    state: int
    inputs: list[InputPath]
    ended: int = 0
    process_us: int = 0
    started_us: int = 0
    finished_us: int = 0
    size_bytes: int = 0
    output: str = ""
    image: str = ""
    reason: str = ""


class DatumsResponse(Message):
    """Some of the datums asked for, in order of their ids; together the answers have each once."""

    datums: list[Datum] = []


class JobCountsRequest(Message):
    """How many commit sets have jobs of pipelines of these names, in each project?"""

    pipelines: list[str]


class JobCountsResponse(Message):
    """By project; those without any are not there."""

    jobs: dict[str, int] = {}


class JobIdsRequest(Message):
    """The jobs of such pipelines whose id starts with `prefix`, hex digits or nothing."""

    project: str
    pipelines: list[str]
    prefix: str = ""


class JobIdsResponse(Message):
    """Each id once, newest first."""

    ids: list[str] = []


class TerminalSize(Message):
    """In characters."""

    rows: int
    columns: int


class DatumOf(Message):
    """The datum of a job that reads a file at `path`."""

    pipeline: str
    job: str
    path: str


class CommitInput(Message):
    """An input: what is at `path` of a commit, as a datum whose glob is that path has it."""

    name: str
    repo: str
    commit: str
    path: str


class FileInput(Message):
    """An input with one small file that no commit holds; `path` is what the variable `name` leads to."""

    name: str
    path: str
    file: str
    content: bytes


class ForegroundOpen(Message):
    """Run one command as a datum of the project is run: image, inputs, limits, isolation, a share of the
    machine.

    Either as a `datum` of a job was, with its output folder as that left it; or as `spec` says (the JSON of a
    CreatePipelineRequest), with the inputs given. `cmd` is run in place of the transform's when it is not
    empty, `env` is added. With a `terminal` the command has one. `keep`: its output folder is sent at the
    end. Nothing of it is stored; when the call ends, so does the command.
    """

    project: str
    datum: DatumOf | None = None
    spec: str = ""
    commits: list[CommitInput] = []
    files: list[FileInput] = []
    cmd: list[str] = []
    env: dict[str, str] = {}
    terminal: TerminalSize | None = None
    keep: bool = False


class ForegroundInput(Message, omit_defaults=True):
    """The first has `open`; then what is typed, or the terminal's new size; an empty one says that all is
    well.
    """

    open: ForegroundOpen | None = None
    typed: bytes = b""
    size: TerminalSize | None = None


class ForegroundEnd(Message):
    """`code` by shell convention; `reason` why it failed where the code does not tell all, or ""."""

    code: int
    reason: str = ""


class ForegroundOutput(Message, omit_defaults=True):
    """One of: what is waited for, that it runs now, a remark of the runtime, what was printed, a piece of the
    tar of its output folder, the end. An empty one says that all is well.
    """

    waiting: str = ""
    running: bool = False
    note: str = ""
    printed: bytes = b""
    output: bytes = b""
    end: ForegroundEnd | None = None


class IngestRequest(Message, omit_defaults=True):
    """The first has the `folder` whose files are to be taken in; then `files`, sorted by path over all of
    them.

    All of it becomes a file set, or nothing when it fails or the call ends early. A file whose `hash` is
    there already is not read.
    """

    folder: Folder | None = None
    files: list[File] = []


class IngestResponse(Message, omit_defaults=True):
    """How many bytes have been read since the last one; the hashes (32 bytes each) of the files of one
    request, in the order of the requests; the last one has the id of the file set, and how much of its
    content is new here.
    """

    read_bytes: int = 0
    hashes: bytes = b""
    file_set: str = ""
    new_files: int = 0
    new_bytes: int = 0


class ExportRequest(Message, omit_defaults=True):
    """Write what is below the directory `path` of a commit into a new folder `name` of the folder `into`.

    `places`: where files go that are called otherwise there, by their path below `path`; "" for nowhere.
    `mode` is that of all files, but for the `executable` ones, which get 0755.
    """

    project: str
    repo: str
    commit: str
    path: str
    into: Folder
    name: str
    mode: int
    places: dict[str, str] = {}
    executable: list[str] = []


class ExportResponse(Message):
    """What has been written since the last one; each file is verified."""

    files: int
    bytes: int


class Source(Message):
    """A file or folder of a commit, or of a file set where `repo` is that of Pachyderm for these."""

    repo: str
    commit: str
    path: str


class Change(Message, omit_defaults=True):
    """What is at `path` is replaced by a `source`, or has `data` appended; without both of them it goes, a
    folder where it ends in a slash.
    """

    path: str
    source: Source | None = None
    data: bytes | None = None


class NewCommit(Message, omit_defaults=True):
    """A commit on `branch`, which begins as the one before. With `changes` it is finished, without it stays
    open.
    """

    repo: str
    branch: str
    description: str
    changes: list[Change] | None = None


class PutPipeline(Message):
    """`spec`: a CreatePipelineRequest as JSON."""

    spec: str
    reprocess: bool


class Staged(Message):
    """A branch that goes together with the commit that is its head; what is not there is no error."""

    repo: str
    branch: str
    commit: str


class TransactRequest(Message):
    """In one transaction, and in this order: make those `repos` that do not exist, and the `commits`, put the
    `pipelines`, and drop what was `staged`.
    """

    project: str
    repos: list[str]
    commits: list[NewCommit]
    pipelines: list[PutPipeline]
    staged: list[Staged]


class TransactResponse(Message):
    """The id of the transaction: of its commits and of the jobs that it has made."""

    id: str


def method(name: str) -> str:
    """The full name of a method, as channels take it."""
    return f"/{SERVICE}/{name}"
