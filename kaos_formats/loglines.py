"""Logs as they are stored, and handed over in blocks: lines `<unix µs> <u|s> <text>`.

`u` is the user's output, `s` the system's own words. A block is any number of whole lines, each with its end;
what can be done with a block at once is: a trial may write a million lines a second.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

# How much is read at once: more than the longest line that is written.
BLOCK_BYTES = 1 << 18
_HEAD = re.compile(rb"\n[0-9]{1,16} [us] ")
_EPOCH = datetime.fromtimestamp(0, UTC)


class Line(NamedTuple):
    """`ts_us` is 0 where nobody knows."""

    ts_us: int
    user: bool
    text: str


class Block(NamedTuple):
    """Whole lines of a log: those that begin from its byte `at` on and before `to`."""

    at: int
    to: int
    data: bytes


def blocks(fd: int, at: int, to: int) -> Iterator[Block]:
    """The bytes of a log from `at`, where a line begins, to `to`, where one or the log ends.

    Ends early where the log has become shorter.
    """
    while at < to and (data := os.pread(fd, min(BLOCK_BYTES, to - at), at)):
        if size := data.rfind(b"\n") + 1:
            data = data[:size]
        else:  # the last line, or (power loss) one that is longer than any that is written
            size = len(data)
            data += b"\n"
        yield Block(at, at + size, data)
        at += size


def parse(raw: bytes) -> Line:
    """A line without its end; a damaged one (power loss) becomes a user line at time 0."""
    stamp, _, rest = raw.partition(b" ")
    who, _, text = rest.partition(b" ")
    if not stamp.isdigit() or len(stamp) > 16 or who not in (b"u", b"s"):
        return Line(0, True, raw.decode(errors="replace"))
    return Line(int(stamp), who == b"u", text.decode(errors="replace"))


def encode(line: Line) -> bytes:
    """The line as stored, with its end; one for each line of its text."""
    head = b"%d %c " % (line.ts_us, b"u" if line.user else b"s")
    return b"".join(head + text + b"\n" for text in line.text.encode(errors="replace").split(b"\n"))


def lines(block: bytes) -> Iterator[Line]:
    """The lines of a block."""
    return map(parse, block.split(b"\n")[:-1])


def split(block: bytes) -> list[bytes]:
    """The lines of a block as they are, each with its end."""
    return [raw + b"\n" for raw in block.split(b"\n")[:-1]]


def only(block: bytes, wanted: Callable[[Line], bool]) -> bytes:
    """The block without the lines that are not wanted."""
    return b"".join(raw for raw in split(block) if wanted(parse(raw[:-1])))


def last(block: bytes, count: int) -> bytes:
    """The last `count` lines of a block (at least 1), or all of it if it has no more."""
    at = len(block) - 1
    for _ in range(count):
        if (at := block.rfind(b"\n", 0, max(at, 0))) < 0:
            return block
    return block[at + 1 :]


def texts(block: bytes, prefix: bytes = b"") -> bytes:
    """The texts of a block, each a line with `prefix` before it."""
    if not block:
        return b""
    # Twice as fast as to substitute.
    found = _HEAD.split(b"\n" + block)
    if prefix and len(found) - 1 < block.count(b"\n"):
        return b"".join(prefix + line.text.encode() + b"\n" for line in lines(block))
    return (b"\n" + prefix).join(found)[1:]


def microseconds(moment: datetime) -> int:
    """A moment as lines have it."""
    return (moment - _EPOCH) // timedelta(microseconds=1)


def time_of(line: Line) -> str | None:
    """When it was said in RFC 3339, None where nobody knows."""
    return rfc3339(_EPOCH + timedelta(microseconds=line.ts_us)) if line.ts_us else None


def rfc3339(moment: datetime) -> str:
    """In UTC, with microseconds."""
    return moment.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
