"""The committed digits are what ORIGIN.md says they are."""

from __future__ import annotations

import gzip
import hashlib
import re
from pathlib import Path

import pytest

from kaos_cli.manifest import read_manifest
from tests.unit.templates.convert_mnist import PIXELS, SPLITS, Digit, idx, quotas, split

DATA = Path(__file__).parents[3] / "templates" / "mnist" / "data"


@pytest.fixture(scope="module")
def splits() -> dict[str, list[Digit]]:
    def read(name: str) -> list[Digit]:
        images = gzip.decompress((DATA / "features" / name / "images-idx3-ubyte.gz").read_bytes())[16:]
        labels = gzip.decompress((DATA / "features" / name / "labels-idx1-ubyte.gz").read_bytes())[8:]
        assert len(images) == len(labels) * PIXELS
        return [(images[i * PIXELS : (i + 1) * PIXELS], label) for i, label in enumerate(labels)]

    return {name: read(name) for name in SPLITS}


def test_sizes_and_labels(splits: dict[str, list[Digit]]) -> None:
    assert {name: len(part) for name, part in splits.items()} == SPLITS
    for part in splits.values():
        assert {label for _, label in part} == set(range(10))


def test_no_image_is_twice_in_the_data(splits: dict[str, list[Digit]]) -> None:
    images = [grey for part in splits.values() for grey, _ in part]
    assert len(set(images)) == len(images) == 10_000


def test_images_are_ink_on_paper(splits: dict[str, list[Digit]]) -> None:
    for grey, _ in splits["test"]:
        assert max(grey) > 200
        assert sum(grey) / PIXELS < 128


def test_splits_are_stratified_and_remade_by_the_converter(splits: dict[str, list[Digit]]) -> None:
    again = split(digit for part in splits.values() for digit in part)
    assert again == splits
    per_label = {
        name: [sum(x == label for _, x in part) for label in range(10)] for name, part in splits.items()
    }
    whole = [sum(counts) for counts in zip(*per_label.values(), strict=True)]
    for name, counts in per_label.items():
        for count, all_of_label in zip(counts, whole, strict=True):
            assert abs(count - all_of_label * SPLITS[name] / 10_000) < 2


def test_checksums_and_counts_in_the_note_of_origin(splits: dict[str, list[Digit]]) -> None:
    note = (DATA / "ORIGIN.md").read_text()
    noted = dict(reversed(line.split("  ")) for line in re.findall(r"^[0-9a-f]{64}  .+$", note, re.MULTILINE))
    actual = {
        f"{name}/{file}": hashlib.sha256(content).hexdigest()
        for name, part in splits.items()
        for file, content in idx(part).items()
    }
    assert noted == actual
    for name, part in splits.items():
        counts = " ".join(str(sum(x == label for _, x in part)) for label in range(10))
        assert f"| `features/{name}` | {len(part):,} | {counts} |" in note


def test_committed_files_are_valid_idx(splits: dict[str, list[Digit]]) -> None:
    for name, part in splits.items():
        for file, content in idx(part).items():
            assert gzip.decompress((DATA / "features" / name / file).read_bytes()) == content


def test_quotas_are_exact_in_sum_and_fair() -> None:
    assert quotas([3, 3, 4], 5) == [2, 1, 2]
    assert sum(quotas([1001, 1127, 991], 500)) == 500


def test_the_manifest_names_the_same_files() -> None:
    named = read_manifest(DATA.parent / "data.mf")
    there = {str(path.relative_to(DATA)): path for path in DATA.rglob("*") if path.is_file()}
    assert named.here
    assert {line.path for line in named.manifest.lines.values()} == set(there)
    for line in named.manifest.lines.values():
        content = there[line.path].read_bytes()
        assert line.url == there[line.path].as_uri()
        assert (line.size, line.sha256) == (len(content), hashlib.sha256(content).hexdigest())
