from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kaos_formats.errors import InvalidBundle
from kaos_formats.paths import check_paths, path_problem, shown


@given(st.text(st.characters(), max_size=12))
def test_every_path_is_fine_or_has_a_problem(path: str) -> None:
    try:
        path.encode()
    except UnicodeEncodeError:
        assert "UTF-8" in (path_problem(path) or "")
        return
    fine = path and "\0" not in path and not {"", ".", ".."} & set(path.split("/"))
    assert (path_problem(path) is None) == bool(fine)


@pytest.mark.parametrize(
    ("path", "fine"),
    [
        ("é" * 127, True),
        ("é" * 128, False),
        ("n" * 255, True),
        ("n" * 256, False),
        ("数" * 85, True),
        ("数" * 86, False),
        ("ab/" * 341 + "c", True),
        ("ab/" * 341 + "cd", False),
    ],
)
def test_lengths_are_those_of_linux_in_bytes(path: str, fine: bool) -> None:
    assert (path_problem(path) is None) == fine


def test_the_message_lists_the_first_offenders() -> None:
    with pytest.raises(InvalidBundle) as caught:
        check_paths([*(f"bad{i}\udcff" for i in range(9)), "good"])
    assert "9 file name(s)" in caught.value.message
    assert "and 4 more" in caught.value.message
    assert "good" not in caught.value.message
    assert len(caught.value.fields["paths"]) == 5
    caught.value.message.encode()
    str(caught.value.fields).encode()


@given(st.text(st.characters()))
def test_what_is_shown_can_be_printed(path: str) -> None:
    assert shown(path).isprintable()
    shown(path).encode()


def test_odd_names_are_shown_by_their_bytes() -> None:
    assert shown("a\nb\udcff é") == "a\\nb\\xff é"


@given(st.lists(st.one_of(st.text(st.characters(), max_size=6), st.text("é./\0", max_size=300)), max_size=5))
def test_many_paths_are_as_good_as_each_of_them(paths: list[str]) -> None:
    bad = [path for path in paths if path_problem(path) is not None]
    if bad:
        with pytest.raises(InvalidBundle, match=rf"^{len(bad)} file name"):
            check_paths(paths)
    else:
        check_paths(paths)
