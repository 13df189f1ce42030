"""Why trials failed on a Pachyderm that is not kaos's own, which records little: what the log says last."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, cast

import pytest

from kaos_backend.domain.models import Datum, DatumState, LogBlock
from kaos_backend.services.reasons import LOGS, ONE_BY_ONE, Reasons
from kaos_formats.loglines import Line, encode


class Elsewhere:
    """As much of the port as is asked."""

    def __init__(self, recorded: str, *said: tuple[bool, str]) -> None:
        self._recorded = recorded
        self._said = said
        self.logs_read = 0

    def datum_reason(self, *_: str) -> str:
        return self._recorded

    def read_tar(self, *_: str) -> Iterator[bytes]:
        from kaos_backend.errors import NotFound

        raise NotFound("no meta commit yet")
        yield b""

    def logs(self, *_: str, **__: Any) -> list[LogBlock]:
        self.logs_read += 1
        data = b"".join(encode(Line(0, user, text)) for user, text in self._said)
        return [LogBlock("d", (), None, None, data)]


def datum(number: int = 0) -> Datum:
    return Datum(f"d{number}", "j", DatumState.FAILED, (), 1.0)


@pytest.mark.parametrize(
    ("recorded", "said", "told"),
    [
        ("error running user code: exit status 1", [(True, "ValueError: x")],
         "error running user code: exit status 1: ValueError: x"),
        ("", [(True, "epoch 1"), (True, "RuntimeError: CUDA out of memory")],
         "out of GPU memory: RuntimeError: CUDA out of memory"),
        ("", [], "failed"),
        # The embedded engine, before the job has ended.
        ("", [(True, "ValueError: x"), (False, "datum failed: exit code 1: ValueError: x"), (True, "err")],
         "exit code 1: ValueError: x"),
        ("timed out after 3 s", [(True, "epoch 1")], "timed out after 3 s"),
    ],
)  # fmt: skip
def test_what_is_told(recorded: str, said: list[tuple[bool, str]], told: str) -> None:
    pachd = Elsewhere(recorded, *said)
    assert Reasons(cast(Any, pachd)).why_failed("w", "j", datum()) == told


def test_of_many_not_every_log_is_read() -> None:
    pachd = Elsewhere("", (True, "why"))
    many = [datum(number) for number in range(LOGS + ONE_BY_ONE)]
    found = Reasons(cast(Any, pachd)).of("w", "j", many)
    assert (pachd.logs_read, len(found)) == (LOGS, LOGS)
