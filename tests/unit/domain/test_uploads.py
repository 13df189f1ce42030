from __future__ import annotations

import blake3
import pytest
from hypothesis import given
from hypothesis import strategies as st

from kaos_backend.domain.descriptions import Description, parse
from kaos_backend.domain.uploads import Layout, copies, plan_upload
from kaos_backend.errors import InvalidBundle
from kaos_formats.stored import MAP_FILE
from kaos_formats.tree import TreeEntry, make_tree

NAMES = ["a", "b", "c", "d", "(", "%28", "é/x", "é/(", MAP_FILE, "x/" + MAP_FILE]
FILES = st.dictionaries(st.sampled_from(NAMES), st.sampled_from("xyz"), min_size=1)


def bundle(files: dict[str, str]) -> Layout:
    return Layout(
        make_tree(
            TreeEntry(path, 1, "644", blake3.blake3(content.encode()).hexdigest())
            for path, content in files.items()
        )
    )


def stored(files: dict[str, str]) -> dict[str, str]:
    """What lies in PFS: stored path → content."""
    layout = bundle(files)
    held = {path: files[entry.path] for path, entry in layout.entries.items()}
    return held if layout.map_text is None else {**held, MAP_FILE: layout.map_text.decode()}


@given(FILES, FILES, st.sets(st.sampled_from(NAMES)), st.booleans())
def test_base_and_upload_make_the_bundle(
    base: dict[str, str], new: dict[str, str], extra: set[str], begun: bool
) -> None:
    """Applies the plan to a dict, as the engine does to a tree. One file of each content is sent."""
    layout, held = bundle(new), stored(base)
    known = set(base.values())
    sent: dict[str, str] = {}
    for path, entry in layout.entries.items():
        if entry.path in extra or new[entry.path] not in known | set(sent.values()):
            sent[path] = new[entry.path]
    plan = plan_upload(layout, bundle(base), is_begun=begun)
    result = dict(held) if plan.copy_all else {}
    for path in plan.removed:
        del result[path]
    if layout.map_text is not None:
        assert MAP_FILE not in result
        result[MAP_FILE] = layout.map_text.decode()
    result.update(sent)
    made = copies(plan, layout, sent)
    for source, path in made.of_base:
        result[path] = held[source]
    for source, path in made.of_itself:
        result[path] = result[source]
    assert result == stored(new)


@given(FILES)
def test_what_was_not_sent_is_missed(new: dict[str, str]) -> None:
    plan = plan_upload(bundle(new), None)
    with pytest.raises(InvalidBundle, match="were not sent"):
        copies(plan, bundle(new), [])


def test_one_changed_file_of_many_is_one_change() -> None:
    base = {f"f{i}": "x" for i in range(100)}
    plan = plan_upload(bundle({**base, "f7": "y"}), bundle(base))
    assert plan.copy_all
    assert plan.removed == ("f7",)


@pytest.mark.parametrize(
    "description",
    [
        Description("source", "a" * 32, "mnist", "me@here", "2026-01-01T00:00:00Z", 3, 4, staging="b" * 32),
        Description("staging", "a" * 32, "mnist", "", "2026-01-01T00:00:00Z", 3, 4),
        Description("hyper", "a" * 32, author="me", created="x", trials=2, grid={"lr": [1, 2], "b": None}),
    ],
)
def test_descriptions_survive_their_json(description: Description) -> None:
    assert parse(description.to_json()) == description


@pytest.mark.parametrize(
    "text",
    ["", "hello", "{", '{"kaos":2,"kind":"source","id":"x"}', '{"a":1}', '{"kaos":1,"kind":"x","id":""}'],
)
def test_other_peoples_descriptions(text: str) -> None:
    assert parse(text) is None
