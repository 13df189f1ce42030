"""What the image store lets go: images that nobody wants, and what only they needed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from kaos_backend.engine.workers.process.images import ImageStore
from kaos_formats.home import try_lock
from kaos_formats.images import BUILDING, CONFIG, LAYERS, VENV_READY, directory_name


def image(store: ImageStore, name: str, venv: str, layer: str) -> None:
    folder = store.images / directory_name(name)
    folder.mkdir(parents=True)
    (folder / CONFIG).write_text(json.dumps({"name": name, "venv": venv}))
    (folder / LAYERS).write_text(json.dumps([layer]))
    for made in (store.venvs / venv, store.layers / layer):
        made.mkdir(parents=True, exist_ok=True)
        (made / VENV_READY).write_text("ready")


@pytest.fixture
def images(tmp_path: Path) -> ImageStore:
    store = ImageStore(tmp_path)
    image(store, "kaos/a:1", "shared", "l1")
    image(store, "kaos/b:1", "shared", "l2")
    image(store, "kaos/b:2", "own", "l2")
    return store


def left(store: ImageStore) -> set[tuple[str, str]]:
    return {(one.kind, one.name) for one in store.stored()}


def test_what_images_share_stays_as_long_as_one_needs_it(images: ImageStore) -> None:
    assert {one.name: one.images for one in images.stored() if one.kind == "environment"} == {
        "shared": {"kaos/a:1", "kaos/b:1"},
        "own": {"kaos/b:2"},
    }
    assert images.keep(lambda name: name.startswith("kaos/a"))
    assert left(images) == {("image", "kaos/a:1"), ("environment", "shared"), ("layer", "l1")}
    assert images.keep(lambda _: False)
    assert left(images) == set()


def test_environments_stay_while_a_build_may_be_about_to_need_them(images: ImageStore) -> None:
    (images.images / BUILDING).mkdir()
    lock = images.images / BUILDING / "some.lock"
    held = try_lock(lock)
    assert held is not None
    assert not images.keep(lambda _: False)
    assert {name for kind, name in left(images) if kind == "environment"} == {"shared", "own"}
    lock.unlink()
    assert images.keep(lambda _: False)
    assert left(images) == set()
