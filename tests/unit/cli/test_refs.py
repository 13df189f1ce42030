from __future__ import annotations

import pytest

from kaos_cli.config import Home
from kaos_cli.errors import MISSING, KaosError
from kaos_cli.refs import job_ref, remember

A, B = "a" * 32, "12345" + "b" * 27


@pytest.fixture
def shown(home: Home) -> Home:
    remember(home, "ws", [A, B])
    return home


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ((None, None, None), "last"),
        (("last", None, None), "last"),
        (("0", None, None), A),
        (("1", None, None), B),
        ((None, "1", None), B),
        ((None, None, 0), A),
        (("123450", None, None), "123450"),
        # No such row, but ids may begin with digits alone.
        (("0123", None, None), "0123"),
        (("abc", None, None), "abc"),
        (("ABC", None, None), "abc"),
        ((None, B, None), B),
    ],
)
def test_what_is_meant(shown: Home, given: tuple[str | None, str | None, int | None], meant: str) -> None:
    assert job_ref(shown, "ws", *given) == meant


@pytest.mark.parametrize("token", ["2", "999", "xyz", "", "../x", "dead beef"])
def test_what_is_no_job(shown: Home, token: str) -> None:
    with pytest.raises(KaosError) as caught:
        job_ref(shown, "ws", token, None, None)
    assert caught.value.exit_code == MISSING
    assert token in caught.value.message


def test_rows_belong_to_the_workspace_they_were_shown_for(shown: Home) -> None:
    with pytest.raises(KaosError, match="nothing was listed"):
        job_ref(shown, "other", "0", None, None)


def test_negative_row(shown: Home) -> None:
    with pytest.raises(KaosError, match="no row -1"):
        job_ref(shown, "ws", None, None, -1)


def test_one_job_at_a_time(shown: Home) -> None:
    with pytest.raises(KaosError, match="several"):
        job_ref(shown, "ws", "a", "b", None)


def test_a_row_means_what_was_shown(shown: Home) -> None:
    """A newer job pushes the listing down; the number still means the job that stood there."""
    assert job_ref(shown, "ws", "0", None, None) == A
    remember(shown, "ws", ["f" * 32, A, B])
    assert job_ref(shown, "ws", "0", None, None) == "f" * 32


def test_damaged_cache_is_no_listing(shown: Home) -> None:
    (shown.cache / "listings/ws.json").write_text("[")
    with pytest.raises(KaosError, match="nothing was listed"):
        job_ref(shown, "ws", "0", None, None)
