"""`jqFilter`: which messages a jq program lets through."""

from __future__ import annotations

import contextlib
import json
import select
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import betterproto

from kaos_backend.engine.errors import Unknown

_CHILD = Path(__file__).with_name("jq_child.py")
_ANSWER_S = 10.0

Keep = Callable[[betterproto.Message], bool]


@contextmanager
def jq_filter(program: str) -> Iterator[Keep]:
    """Whether a message is wanted; all are when the program is empty.

    A message is to the program what `pachctl --raw` shows: snake_case, enums by name, 64-bit numbers as
    strings, nothing that is unset. Its first result decides: null and false drop the message.

    Raises:
        Unknown: it is no jq program, or takes too long over a message.
    """
    if not program:
        yield lambda _message: True
        return
    child = subprocess.Popen(
        [sys.executable, "-I", str(_CHILD)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env={},  # which a program can read
        bufsize=0,
    )
    try:
        told = _ask(child, program)
        if told != "ok":
            raise Unknown(f"jqFilter {program!r} is no jq program: {told}")

        def keep(message: betterproto.Message) -> bool:
            # The SDK's own annotation of `casing` is wrong.
            return _ask(child, message.to_dict(casing=betterproto.Casing.SNAKE)) == "1"  # type: ignore[arg-type]

        yield keep
    finally:
        child.kill()
        child.wait()
        for pipe in (child.stdin, child.stdout):
            if pipe is not None:
                pipe.close()


def _ask(child: subprocess.Popen[bytes], value: object) -> str:
    """The child's line for a line of ours; it reads all of ours before it answers."""
    assert child.stdin is not None
    assert child.stdout is not None
    said = b""
    with contextlib.suppress(BrokenPipeError):
        data = json.dumps(value).encode() + b"\n"
        while data:
            data = data[child.stdin.write(data) or 0 :]
        until = time.monotonic() + _ANSWER_S
        while not said.endswith(b"\n"):
            if not select.select([child.stdout], [], [], max(0.0, until - time.monotonic()))[0]:
                raise Unknown(f"jqFilter took more than {_ANSWER_S:g} s over one message: make it simpler")
            data = child.stdout.read(4096)
            if not data:
                break
            said += data
    if not said:
        raise Unknown("jqFilter needed more memory than it may have, or crashed: make it simpler")
    return said.decode("utf-8", "replace").strip()
