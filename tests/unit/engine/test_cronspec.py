"""Cron texts."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from kaos_backend.engine.cronspec import parse

NOW = datetime(2024, 1, 31, 23, 59, 59, 500_000, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("* * * * *", "2024-02-01T00:00:00"),
        ("*/15 0-5,8 * JAN-MAR MON-FRI", "2024-02-01T00:00:00"),
        ("30 4 ? * *", "2024-02-01T04:30:00"),
        ("0 0 29 2 *", "2024-02-29T00:00:00"),
        ("0 0 1 * 1", "2024-02-01T00:00:00"),  # the day of the month or of the week
        ("@hourly", "2024-02-01T00:00:00"),
        ("@weekly", "2024-02-04T00:00:00"),
        ("@monthly", "2024-02-01T00:00:00"),
        ("@yearly", "2025-01-01T00:00:00"),
        ("@every 1h30m", "2024-02-01T01:29:59"),
        ("@every 100ms", "2024-02-01T00:00:00"),
        ("TZ=Asia/Tokyo 0 9 * * *", "2024-02-01T00:00:00"),
        ("CRON_TZ=America/New_York 0 19 * * *", "2024-02-01T00:00:00"),
    ],
)
def test_the_next_tick(text: str, expected: str) -> None:
    assert parse(text)(NOW) == datetime.fromisoformat(expected).replace(tzinfo=UTC)


def test_never() -> None:
    assert parse("@never")(NOW) is None


@pytest.mark.parametrize(
    "text",
    [
        "",
        "* * * *",
        "* * * * * *",
        "60 * * * *",
        "* * L * *",
        "0 9 * * 1#2",
        "@reboot",
        "@every",
        "@every 5",
        "@every -1h",
        "@every 9999999h",
        "TZ=Nowhere/Land * * * * *",
        "TZ=../../etc/passwd * * * * *",
        "a b c d e",
    ],
)
def test_what_is_none(text: str) -> None:
    with pytest.raises(ValueError, match="cron spec"):
        parse(text)
