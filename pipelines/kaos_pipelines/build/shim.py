"""In a RUN, in the place of pip: has the builder carry it out, which keeps the environment (`tools`).

Executed as a script inside the sandbox: standard library only. Says who calls, sends the files that it is
asked for, prints what it is told to, and ends as it is told to.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import tarfile
import tempfile
from io import BufferedRWPair
from typing import Any

SOCKET = "/run/kaos/socket"
BLOCK_BYTES = 1 << 20


def main() -> int:
    """The exit code that the builder gives; 1 when it is gone."""
    tool, *argv = sys.argv[1:]
    with socket.socket(socket.AF_UNIX) as connection:
        connection.connect(SOCKET)
        stream = connection.makefile("rwb")
        _send(stream, {"tool": tool, "argv": argv, "cwd": os.getcwd(), "env": dict(os.environ)})  # noqa: PTH109
        for line in stream:
            message: dict[str, Any] = json.loads(line)
            if "say" in message:
                print(message["say"], flush=True)
            elif "send" in message:
                _send_file(stream, message["send"])
            elif "exec" in message:
                os.environ.update(message["env"])
                os.execv(message["exec"][0], message["exec"])  # noqa: S606
            elif "exit" in message:
                return int(message["exit"])
    return 1


def _send(stream: BufferedRWPair, message: dict[str, Any]) -> None:
    stream.write(json.dumps(message).encode() + b"\n")
    stream.flush()


def _send_file(stream: BufferedRWPair, path: str) -> None:
    try:
        with tempfile.TemporaryFile() as data:
            if os.path.isdir(path):  # noqa: PTH112
                with tarfile.open(fileobj=data, mode="w") as tar:
                    tar.add(os.path.realpath(path), ".")
                kind = "folder"
            else:
                with open(path, "rb") as file:  # noqa: PTH123
                    while block := file.read(BLOCK_BYTES):
                        data.write(block)
                kind = "file"
            _send(stream, {"kind": kind, "size": data.tell()})
            data.seek(0)
            while block := data.read(BLOCK_BYTES):
                stream.write(block)
            stream.flush()
    except OSError as error:
        _send(stream, {"kind": "", "size": 0, "why": error.strerror})


if __name__ == "__main__":
    sys.exit(main())
