from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from kaos_pipelines.fetch.credentials import GOOGLE, NETRC, given
from kaos_pipelines.fetch.errors import FetchError, FetchFailed
from kaos_pipelines.fetch.log import FetchLog

from kaos_formats.build_secrets import variable


def secrets(**values: str) -> dict[str, str]:
    return {variable(name): value for name, value in values.items()}


def test_secrets_are_there_while_it_fetches_and_hidden_in_the_log(capsys: pytest.CaptureFixture[str]) -> None:
    env = secrets(
        AWS_SECRET_ACCESS_KEY="hunter22\n", AWS_DEFAULT_REGION="eu-west-1", PIP_TOKEN="x",
        LD_PRELOAD="evil.so"
    )  # fmt: skip
    before = dict(os.environ)
    with given(env) as (_, hidden):
        assert os.environ["AWS_SECRET_ACCESS_KEY"] == "hunter22"
        assert "LD_PRELOAD" not in os.environ
        assert "PIP_TOKEN" not in os.environ
        FetchLog(hidden).say("key hunter22 in eu-west-1 at https://host/x?X-Amz-Signature=abc: denied")
    assert dict(os.environ) == before
    assert capsys.readouterr().out == "key **** in eu-west-1 at https://host/x?****: denied\n"


def test_a_netrc_says_who_is_who_where(tmp_path: Path) -> None:
    (tmp_path / ".netrc").write_text("machine a.example login me password old\nmachine c.example password x")
    netrc = "machine A.example login ada password s3cret\nmachine b.example login bearer password tok3n"
    with given({"HOME": str(tmp_path), **secrets(**{NETRC: netrc})}) as (shown, hidden):
        assert shown.authorization("a.example") == "Basic YWRhOnMzY3JldA=="
        assert shown.authorization("B.EXAMPLE") == "Bearer tok3n"
        assert shown.authorization("c.example") == "Basic Ong="
        assert shown.authorization("evil.example") is None
        assert {"s3cret", "tok3n"} <= set(hidden)
        assert "s3cret" not in repr(shown)


@pytest.mark.parametrize(
    ("name", "text"), [(NETRC, "machine a\nlogin me s3cret\nbroken"), (GOOGLE, "s3cret")]
)
def test_credentials_that_cannot_be_read_are_not_quoted(name: str, text: str) -> None:
    with pytest.raises(FetchError, match=name) as caught, given(secrets(**{name: text})):
        pass
    assert "s3cret" not in str(caught.value)


def test_a_service_account_of_google() -> None:
    account = {"client_email": "a@b", "private_key": "-----BEGIN KEY-----\nsecretline\n"}
    with given(secrets(**{GOOGLE: json.dumps(account)})) as (shown, hidden):
        assert shown.google == account
        assert FetchLog(hidden).mask("x secretline y") == "x **** y"


def test_the_reason_of_a_job_has_all_numbers_that_fit() -> None:
    assert str(FetchFailed({3: "c", 1: "a", 2: "b"}, 9)).endswith(": 1-3; line 1: a")
    many = str(FetchFailed(dict.fromkeys(range(1, 2000, 2), "x" * 500), 5000))
    assert many.startswith("1000 of 5000 line(s) of the manifest cannot be fetched: 1, 3, 5, ")
    assert "(see the log)" in many[:300]
