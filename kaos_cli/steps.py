"""The step that a build or a fetch is at, told by its log to those who wait for it."""

from __future__ import annotations

import re
import time
from dataclasses import dataclass

from kaos_cli import text
from kaos_cli.errors import ConnectionLost, KaosError
from kaos_cli.session import Session
from kaos_formats import loglines
from kaos_formats.names import BUILD, FETCH

# Builds and fetches take seconds to hours; a wait asks for the job's state far more often.
EVERY_S = 1.0
# A step that has said more than this since it began was seen before.
LINES = 40
_STEPS = {
    BUILD: re.compile(r"Step (\d+)/(\d+) : (.*)"),
    FETCH: re.compile(r"(\d+) of (\d+) file\(s\),? ?(.*)"),
}


@dataclass(frozen=True, slots=True)
class Step:
    """`number` counts from 1; `doing` is the Dockerfile's line, or how much has been fetched."""

    number: int
    total: int
    doing: str


class Steps:
    """Asks for the end of a stage's log, at most once in `EVERY_S`."""

    def __init__(self, session: Session, ws: str, job_id: str) -> None:
        self._session, self._ws, self._job_id = session, ws, job_id
        self._asked: float | None = None
        self._steps: dict[str, Step] = {}

    def now(self, stage: str) -> Step | None:
        """The last step that was begun; None as long as none is known, and for a stage without any."""
        if stage not in _STEPS:
            return None
        now = time.monotonic()
        if self._asked is None or now - self._asked >= EVERY_S:
            self._asked = now
            try:
                for block in self._session.client.logs(self._ws, self._job_id, None, stage, False, LINES):
                    for line in loglines.lines(block.get("data", b"")):
                        if found := _STEPS[stage].match(line.text):
                            self._steps[stage] = Step(int(found[1]), int(found[2]), text.printable(found[3]))
            except (KaosError, ConnectionLost):
                pass  # who waits needs the job, not its log
        return self._steps.get(stage)
