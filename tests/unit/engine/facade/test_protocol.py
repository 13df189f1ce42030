"""`docs/pfs.md` speaks of every call that the SDK can make, and the engine does what the page says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import grpc
from pachyderm_sdk.api import pfs, storage

from .conftest import TOKEN

PAGE = Path(__file__).parents[4] / "docs" / "pfs.md"


class Calls:
    """A channel that notes what a stub may call."""

    def __init__(self, stub: Any) -> None:
        self.kinds: dict[str, str] = {}
        stub(self)

    def __getattr__(self, kind: str) -> Any:
        return lambda method, **_: self.kinds.__setitem__(method, kind)


STUBS = Calls(pfs.ApiStub).kinds | Calls(storage.FilesetStub).kinds


def described() -> dict[str, str]:
    """method → what the page says that the engine does."""
    found: dict[str, str] = {}
    service = ""
    for line in PAGE.read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if match := re.match(r"\| call of (\S+) \|", line):
            service = match[1]
        elif line.startswith("| ") and service:
            for name in cells[0].split(", "):
                assert f"/{service}/{name}" not in found, f"{name} is there twice"
                found[f"/{service}/{name}"] = cells[1]
    return found


def test_every_call_of_the_sdk_is_on_the_page() -> None:
    assert described().keys() == STUBS.keys()


def test_the_engine_does_what_the_page_says(address: tuple[str, int]) -> None:
    """What is refused is refused with the reason. The rest is built, whatever it says to an empty request."""
    with grpc.insecure_channel("{}:{}".format(*address)) as channel:
        said = {method: refusal(channel, method) for method in STUBS}
    refused = {method for method, what in described().items() if what == "refused"}
    assert {method for method, words in said.items() if words} == refused
    for method in refused:
        assert method[1:] in said[method]
        assert len(said[method]) > len(f"{method[1:]} is not built into the embedded engine: ")


def refusal(channel: grpc.Channel, method: str) -> str:
    """With what words a call ends that is not built; "" for any other end."""
    arity = STUBS[method]
    call = getattr(channel, arity)(method)
    try:
        answer = call(
            iter(()) if arity.startswith("stream") else b"", metadata=[("authn-token", TOKEN)], timeout=20
        )
        if arity.endswith("stream"):
            list(answer)
    except grpc.RpcError as error:
        return str(error.details()) if error.code() == grpc.StatusCode.UNIMPLEMENTED else ""
    return ""
