from __future__ import annotations

from collections.abc import Iterator

from kaos_backend.services.foreground import Session
from kaos_backend.services.lines import ForegroundLine


def steps(_: Session) -> Iterator[ForegroundLine]:
    yield ForegroundLine(running=True)


def test_a_session_is_found_from_its_first_line_to_its_last() -> None:
    listed: dict[str, Session] = {}
    session = Session(steps, listed)
    lines = iter(session)
    assert next(lines).session == session.name
    assert listed == {session.name: session}
    assert next(lines).running
    assert next(lines, None) is None
    assert listed == {}


def test_a_session_that_nobody_listens_to_is_not_kept() -> None:
    listed: dict[str, Session] = {}
    Session(steps, listed)
    assert listed == {}
