from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kaos_formats.masking import Masker, mask


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("--index-url https://user:secret@host/simple x", "--index-url https://****@host/simple x"),
        ("https://token@host", "https://****@host"),
        ("https://a:p@ss@host/x@1", "https://****@host/x@1"),
        ("git+https://u:p@host/r.git@main#egg=x", "git+https://****@host/r.git@main#egg=x"),
        ("'http://a:b@h','http://c:d@h'", "'http://****@h','http://****@h'"),
        ("http://a:b@h http://h2/@c", "http://****@h http://h2/@c"),
        ("user@host:path https://host/path", "user@host:path https://host/path"),
        ("https://host?mail=a@b", "https://host?mail=a@b"),
    ],
)
def test_user_and_password_of_urls(text: str, masked: str) -> None:
    assert mask(text) == masked
    assert mask(masked) == masked


def test_passwords_are_masked_wherever_they_are() -> None:
    masker = Masker(
        ["https://user:hunter%402@host", "https://longtoken@host", "ssh://git@host", "http://u:abc@h"]
    )
    assert masker("ARG P=hunter%402, or hunter@2; longtoken git abc") == "ARG P=****, or ****; **** git abc"
    assert masker("https://new:pair@host") == "https://****@host"
    assert Masker()("nothing") == "nothing"


@given(
    st.text(alphabet="ab:/@ %.'", max_size=60), st.from_regex(r"[A-Za-z0-9_%.:!$&*+~-]{1,30}", fullmatch=True)
)
def test_no_password_survives(noise: str, password: str) -> None:
    assert mask(f"https://user:{password}ZZ@host/{noise}").startswith("https://****@host/")
