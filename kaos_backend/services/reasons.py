"""Why trials failed: what is recorded with their datums, or what their logs say."""

from __future__ import annotations

from collections.abc import Sequence

from kaos_backend import errors
from kaos_backend.domain.metas import reason_of
from kaos_backend.domain.models import Datum
from kaos_backend.pachd.port import Pachd
from kaos_backend.services.stream import IteratorSource
from kaos_formats import loglines, names
from kaos_formats.endings import Code, code_of, of_program
from kaos_formats.tar import TarReader

# So many are asked for one by one; of more all that is recorded of the job is read at once.
ONE_BY_ONE = 20
# So many logs are read of datums of which nothing, or nothing that tells, is recorded.
LOGS = 50
# Lines from a log's end: the system's last line has those of err_cmd behind it.
_TAIL = 50
_MAX_META_BYTES = 1 << 20
_FAILED_LINE = "datum failed: "


class Reasons:
    """Reading why datums of a train job failed."""

    def __init__(self, pachd: Pachd) -> None:
        self._pachd = pachd

    def of(self, workspace: str, job_id: str, failed: Sequence[Datum]) -> dict[str, str]:
        """Datum id → why it failed; what nobody knows, or is not looked up for want of time, is not there."""
        found = {datum.id: datum.reason for datum in failed if datum.reason}
        untold = [datum.id for datum in failed if not datum.reason]
        if len(untold) > ONE_BY_ONE:
            found |= self._all(workspace, job_id, set(untold))
        else:
            found |= {id: self._pachd.datum_reason(workspace, names.TRAIN, job_id, id) for id in untold}
        unclear = [datum for datum in failed if not _tells(found.get(datum.id, ""))]
        for datum in unclear[:LOGS]:
            found[datum.id] = self._from_log(workspace, job_id, datum, found.get(datum.id, ""))
        return found

    def why_failed(self, workspace: str, job_id: str, datum: Datum) -> str:
        """Why one datum failed; "" if nobody knows."""
        return self.of(workspace, job_id, [datum])[datum.id]

    def _all(self, workspace: str, job_id: str, wanted: set[str]) -> dict[str, str]:
        reader = TarReader(
            IteratorSource(
                self._pachd.read_tar(workspace, names.meta_repo(names.TRAIN), job_id, "/meta/*/meta")
            )
        )
        found = {}
        try:
            for member in reader:
                datum_id = member.name.strip("/").removeprefix("meta/").removesuffix("/meta")
                if datum_id in wanted and member.kind == "file" and member.size <= _MAX_META_BYTES:
                    found[datum_id] = reason_of(b"".join(reader.payload()))
        except errors.NotFound:
            return {}  # it is written when the job ends
        return found

    def _from_log(self, workspace: str, job_id: str, datum: Datum, recorded: str) -> str:
        blocks = self._pachd.logs(workspace, names.TRAIN, job_id, datum_id=datum.id, tail=_TAIL)
        log = [line for block in blocks for line in loglines.lines(block.data)]
        told = [line.text for line in log if not line.user and line.text.startswith(_FAILED_LINE)]
        if told:
            return told[-1].removeprefix(_FAILED_LINE)
        # Another server than the embedded engine does not look at what the program said last.
        return of_program(recorded or "failed", [line.text for line in log if line.user])


def _tells(reason: str) -> bool:
    """Whether a reason is one of the embedded engine's, which have all that matters."""
    return code_of(reason) not in ("", Code.FAILED)
