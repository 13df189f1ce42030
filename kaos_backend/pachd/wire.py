"""The messages that come by the thousand, by hand: files of uploads, datums of large grids, lines of logs.

The SDK's message classes spend ~50 µs in Python on every message, and a DatumInfo has twenty-five within it.
An object that answers ``bytes()`` is all that the SDK's stub asks of a request.
"""

from __future__ import annotations

from pachyderm_sdk.api import pps

from kaos_backend.domain.models import AddFile, CopyFile, Datum, DatumState, DeleteFile, FileOp, LogBlock
from kaos_formats import loglines
from kaos_formats.protobuf import field, fields, text, values, varint

_SET_COMMIT, _DELETE_FILE, _COPY_FILE = 1, 3, 4
_ADD_TAG, _RAW_TAG, _VALUE_TAG = b"\x12", b"\x1a", b"\x0a"


class Encoded:
    """An encoded ModifyFileRequest; ``bytes(it)`` is the message."""

    __slots__ = ("_data",)

    def __init__(self, data: bytes) -> None:
        self._data = data

    def __bytes__(self) -> bytes:
        return self._data

    def __len__(self) -> int:
        return len(self._data)


def set_commit(project: str, repo: str, commit_id: str) -> Encoded:
    """The first message of a stream: the commit that it changes."""
    return Encoded(field(_SET_COMMIT, _commit(project, repo, commit_id)))


def encode(project: str, op: FileOp) -> Encoded:
    """One change; ``project`` is where the source repo of a copy lives."""
    if isinstance(op, AddFile):
        return Encoded(_add(op))
    if isinstance(op, DeleteFile):
        return Encoded(field(_DELETE_FILE, text(1, op.path)))
    return Encoded(_copy(project, op))


def _add(op: AddFile) -> bytes:
    size = len(op.data)
    path = text(1, op.path)
    # An empty BytesValue stays on the wire, so that the file exists.
    value_head = _VALUE_TAG + varint(size) if size else b""
    raw_size = len(value_head) + size
    raw_head = _RAW_TAG + varint(raw_size)
    body_size = len(path) + len(raw_head) + raw_size
    return b"".join((_ADD_TAG, varint(body_size), path, raw_head, value_head, op.data))


def _copy(project: str, op: CopyFile) -> bytes:
    source = field(1, _commit(project, op.src_repo, op.src_commit)) + text(2, op.src)
    return field(_COPY_FILE, text(1, op.dst) + field(3, source))


def _commit(project: str, repo: str, commit_id: str) -> bytes:
    # Commit{branch 1, id 2, repo 3}; Repo{name 1, type 2, project 3}; Project{name 1}
    place = text(1, repo) + text(2, "user") + field(3, text(1, project))
    return text(2, commit_id) + field(3, place)


def file_size(message: bytes) -> tuple[str, int]:
    """The path and the bytes of an encoded FileInfo{file 1, size_bytes 4}; folders end in ``/``."""
    path, size = "", 0
    for number, value in values(memoryview(message)):
        if number == 1 and not isinstance(value, int):
            path = _string(value, 2)
        elif number == 4 and isinstance(value, int):
            size = value
    return path, size


def datum(message: bytes) -> Datum:
    """An encoded DatumInfo, read.

    DatumInfo{datum 1, state 2, stats 3, data 5, image_id 6}, Datum{job 1, id 2}, Job{id 2},
    ProcessStats{process_time 2}, FileInfo{file 1}, File{commit 1, path 2}, Commit{repo 3}, Repo{name 1}.
    """
    datum_id = job_id = image = ""
    state, took_us = DatumState.UNKNOWN, 0
    inputs: list[tuple[str, str]] = []
    for number, value in values(memoryview(message)):
        if isinstance(value, int):
            if number == 2:
                state = datum_state(value)
        elif number == 1:
            datum_id, job_id = _string(value, 2), _string(_part(value, 1), 2)
        elif number == 3:
            took_us = _microseconds(_part(value, 2))
        elif number == 5:
            file = _part(value, 1)
            inputs.append((_string(_part(_part(file, 1), 3), 1), _string(file, 2)))
        elif number == 6:
            image = str(value, "utf-8")
    ended = state not in (DatumState.UNKNOWN, DatumState.STARTING)
    return Datum(
        id=datum_id,
        job=job_id,
        state=state,
        inputs=tuple(inputs),
        seconds=took_us / 1e6 if ended else None,
        image=image,
    )


def datum_state(value: int) -> DatumState:
    """The state of a number of pps_v2.DatumState."""
    return _STATES.get(value, DatumState.UNKNOWN)


def log_message(message: bytes) -> LogBlock:
    """An encoded LogMessage{datum_id 4, data 6, user 7, ts 8, message 9}, read; InputFile{path 1}."""
    datum_id = said = ""
    user, ts_us = False, 0
    paths: list[str] = []
    for number, value in values(memoryview(message)):
        if isinstance(value, int):
            if number == 7:
                user = bool(value)
        elif number == 4:
            datum_id = str(value, "utf-8")
        elif number == 6:
            paths.append(_string(value, 1))
        elif number == 8:
            ts_us = _microseconds(value)
        elif number == 9:
            said = str(value, "utf-8")
    data = loglines.encode(loglines.Line(max(ts_us, 0), user, said))
    return LogBlock(datum_id, tuple(paths), None, None, data)


_STATES = {int(state): DatumState(str(state.name).lower()) for state in pps.DatumState}


def _part(message: memoryview, number: int) -> memoryview:
    """The sub-message of a field, empty if it is not set; the last one of several, as protobuf has it."""
    found = memoryview(b"")
    for at, value in fields(message):
        if at == number:
            found = value
    return found


def _string(message: memoryview, number: int) -> str:
    return str(_part(message, number), "utf-8")


def _microseconds(message: memoryview) -> int:
    """Of a Duration or a Timestamp, which both are {seconds 1, nanos 2}."""
    parts = {number: value for number, value in values(message) if isinstance(value, int)}
    return parts.get(1, 0) * 1_000_000 + parts.get(2, 0) // 1000
