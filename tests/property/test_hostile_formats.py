"""Pure readers of what users write: every input has an answer or a refusal in words, and soon."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from kaos_pipelines.build.context import Context, ContextFile, Ignore
from kaos_pipelines.build.dockerfile import parse
from kaos_pipelines.build.errors import BuildError, Refused
from kaos_pipelines.build.pip import references
from kaos_pipelines.build.plan import compile_plan
from kaos_pipelines.build.words import split

from kaos_backend.domain import hyperparams, metrics
from kaos_backend.errors import InvalidHyper
from kaos_formats import quantity
from kaos_formats.errors import InvalidBundle, InvalidResources
from kaos_formats.paths import path_problem
from kaos_formats.tree import TreeEntry, make_tree, parse_tree
from tests.support.hostile import any_body, any_json, any_text, few, paths, text

instructions = st.lists(
    st.tuples(
        st.sampled_from(
            [
                "FROM",
                "RUN",
                "COPY",
                "ADD",
                "ENV",
                "ARG",
                "WORKDIR",
                "USER",
                "LABEL",
                "CMD",
                "from",
                "ONBUILD",
                "#",
                "SHELL",
                "",
            ]
        ),
        st.one_of(
            text,
            st.lists(
                st.sampled_from(
                    [
                        "python:3.11",
                        "pip",
                        "install",
                        "-r",
                        "a",
                        "--chown=x",
                        "$x",
                        "${x:-${y}}",
                        '"',
                        "'",
                        "\\",
                        "\\\n",
                        "&&",
                        "|",
                        ">",
                        "..",
                        "/",
                        "--mode=",
                        "[",
                        '["a"]',
                        "a=b",
                        "=",
                        "<<EOF",
                        "\0",
                        "`id`",
                        "$(id)",
                        "*",
                        "mkdir",
                        "-p",
                        "rm",
                        "-rf",
                        "cp",
                        "mv",
                        "touch",
                        "chmod",
                        "777",
                        "export",
                    ]
                ),
                max_size=6,
            ).map(" ".join),
        ),
    ).map(" ".join),
    max_size=5,
).map("\n".join)


@few(400)
@given(st.one_of(instructions, instructions.map(lambda rest: f"FROM python:3.11\n{rest}"), text))
def test_dockerfiles(dockerfile: str) -> None:
    with suppress(BuildError):
        compile_plan(parse(dockerfile))


@few(200)
@given(
    st.one_of(
        text,
        st.lists(
            st.sampled_from(
                [
                    "-r x",
                    "-c ",
                    "a @ file:///x",
                    "-e .",
                    "--hash",
                    "./a.whl",
                    "[",
                    "a[b",
                    ";",
                    "-",
                    "--",
                    "\\",
                ]
            ),
            max_size=4,
        ).map("\n".join),
    )
)
def test_requirements(requirements: str) -> None:
    with suppress(Refused):
        list(references(requirements))


@few(200)
@given(
    st.one_of(
        text,
        st.text("ab*?[]!\\/.\n#-^", max_size=30),
        st.sampled_from(["**/" * 30 + "b", "[b-a]", "[^]", "[0--]", "[+--]"]),
    ),
    paths,
)
def test_dockerignores(rules: str, path: str) -> None:
    with suppress(BuildError, Refused):
        Ignore(rules).matches(path)


@few(300)
@given(
    st.one_of(
        text,
        st.text("ab*?[]^-!\\\\/.$\"' ", max_size=20),
        st.sampled_from(["*a" * 20 + "b", "[b-a]", "[^]", "[0--]", "[+--]"]),
    )
)
def test_sources_of_a_copy(line: str) -> None:
    files = (ContextFile(path, Path(path), 0o644) for path in ("a", "b/a", "a" * 200))
    context = Context(files)
    with suppress(Refused):
        for word in split(line, {"a": "*"}):
            with suppress(Refused):
                context.select(word)


@few(400)
@given(st.lists(any_body, max_size=3))
def test_metrics(files: list[bytes]) -> None:
    """They can be sent, sorted and shown, whatever a trial wrote."""
    reading = metrics.read(
        metrics.File(f"metrics{i}.json", len(content), content) for i, content in enumerate(files)
    )
    found = {name: metrics.to_json(value) for name, value in reading.metrics.items()}
    json.dumps([found, *reading.notes], ensure_ascii=False, allow_nan=False).encode()
    chosen = metrics.choose(found)
    assert (chosen is None) == (not found)
    assert metrics.sort_best_first([0, 1], [found, {}], chosen) == [0, 1]


@few(400)
@given(any_json)
def test_grids(raw: object) -> None:
    """Refused, or each point is kept exactly."""
    try:
        grid = hyperparams.parse_grid(raw)
    except InvalidHyper as refusal:
        str(refusal).encode()
        return
    assert json.dumps(grid.as_given(), sort_keys=True) == json.dumps(raw, sort_keys=True)
    assert len({trial.params_id for trial in grid.trials}) == len(grid.trials)
    for trial in grid.trials:
        assert json.dumps(json.loads(trial.text.encode()), sort_keys=True) == json.dumps(
            trial.params, sort_keys=True
        )


@few(200)
@given(
    st.one_of(
        any_text,
        st.from_regex(r"[+-]?[0-9]{1,30}(\.[0-9]*)?(e[+-]?[0-9]{1,6})?[kKMGTPE]?i?B?"),
        st.just("9" * 5000),
        st.just("1e999999999"),
    )
)
def test_quantities(amount: str) -> None:
    for read in (quantity.parse_memory, quantity.parse_duration):
        with suppress(InvalidResources, ValueError):
            assert read(amount) >= 0


@few(200)
@given(st.lists(paths, max_size=4, unique=True), st.binary(max_size=30))
def test_trees(names: list[str], junk: bytes) -> None:
    """A tree is refused, or its text says exactly what it holds."""
    try:
        tree = make_tree(TreeEntry(name, 0, "644", "0" * 64) for name in names)
    except InvalidBundle:
        assert any(path_problem(name) for name in names) or len(names) != 1
        return
    assert set(parse_tree(tree.text).by_path()) == set(names)
    with suppress(InvalidBundle):
        parse_tree(junk)
    with suppress(InvalidBundle):
        parse_tree(tree.text + junk)
