"""Datums by brute force and by `plan` are the same; ids depend on what the reference says, nothing else."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

from hypothesis import given
from hypothesis import strategies as st

from kaos_backend.engine.jobs.spec.plan import Match, datum_id, expand, plan
from kaos_backend.engine.jobs.spec.spec import Input, PfsInput

paths = st.lists(st.text("abc", min_size=1, max_size=3), unique=True, max_size=5)


def pfs(name: str, **more: object) -> Input:
    return Input(
        pfs=PfsInput(project="p", name=name, repo=name, branch="master", repo_type="user", glob="/*", **more)
    )  # type: ignore[arg-type]


class Repos:
    """Repo name → file names; a file's content is its name and `content`."""

    def __init__(self, files: dict[str, list[str]], content: str = "", commit: str = "c") -> None:
        self.files = files
        self.content = content
        self.commit = commit

    def __call__(self, node: PfsInput) -> tuple[str, Iterable[Match]]:
        return self.commit, [
            Match(f"/{f}", f"{f}{self.content}".encode().ljust(32), 1, (f[0],)) for f in self.files[node.repo]
        ]


@given(paths, paths, paths)
def test_cross_is_the_product_and_ids_are_unique_and_sorted(a: list[str], b: list[str], c: list[str]) -> None:
    node = Input(cross=(pfs("a"), Input(cross=(pfs("b"), pfs("c")))))
    datums = plan(node, Repos({"a": a, "b": b, "c": c}), "")
    got = {tuple(f.path for f in d.files) for d in datums}
    assert got == {(f"/{x}", f"/{y}", f"/{z}") for x, y, z in itertools.product(a, b, c)}
    assert [d.id for d in datums] == sorted({d.id for d in datums})
    assert len(datums) == len(a) * len(b) * len(c)


@given(paths, paths)
def test_union_is_the_concatenation_and_equal_datums_collapse(a: list[str], b: list[str]) -> None:
    repos = Repos({"a": a, "b": b})
    assert len(plan(Input(union=(pfs("a"), pfs("b"))), repos, "")) == len(a) + len(b)
    assert len(plan(Input(union=(pfs("a"), pfs("a"))), repos, "")) == len(a)


@given(paths, paths)
def test_inner_join_pairs_equal_keys_and_outer_keeps_the_rest(a: list[str], b: list[str]) -> None:
    repos = Repos({"a": a, "b": b})
    pairs = {(f"/{x}", f"/{y}") for x in a for y in b if x[0] == y[0]}
    inner = plan(Input(join=(pfs("a", join_on="$1"), pfs("b", join_on="$1"))), repos, "")
    assert {tuple(f.path for f in d.files) for d in inner} == pairs
    outer = plan(Input(join=(pfs("a", join_on="$1", outer_join=True), pfs("b", join_on="$1"))), repos, "")
    lonely = {(f"/{x}",) for x in a if not any(y[0] == x[0] for y in b)}
    assert {tuple(f.path for f in d.files) for d in outer} == pairs | lonely


@given(paths, paths)
def test_group_puts_everything_with_one_key_together(a: list[str], b: list[str]) -> None:
    repos = Repos({"a": a, "b": b})
    datums = plan(Input(group=(pfs("a", group_by="$1"), pfs("b", group_by="$1"))), repos, "")
    assert len(datums) == len({x[0] for x in a + b})
    assert sum(len(d.files) for d in datums) == len(a) + len(b)


@given(paths, st.text("xy", min_size=1), st.text("xy"))
def test_ids_outlive_content_commit_and_salt_and_hashes_do_not(
    files: list[str], content: str, salt: str
) -> None:
    old = plan(pfs("a"), Repos({"a": files}), "")
    new = plan(pfs("a"), Repos({"a": files}, content, "other"), salt)
    assert [d.id for d in old] == [d.id for d in new]
    assert all(x.hash != y.hash for x, y in zip(old, new, strict=True))
    by_reference = [plan(pfs("a", reference=True), Repos({"a": files}, c), "") for c in ("", content)]
    assert [d.hash for d in by_reference[0]] == [d.hash for d in by_reference[1]]


def test_an_id_is_what_the_reference_says() -> None:
    import hashlib

    (datum,) = plan(pfs("in"), Repos({"in": ["f"]}), "")
    text = b"".join(t + len(t).to_bytes(8, "big") for t in (b"in", b"in", b"master", b"/f"))
    assert datum.id == hashlib.blake2b(text, digest_size=32).hexdigest() == datum_id(datum.files)


def test_expansion() -> None:
    assert expand("$1-${2}-$0-$$1-$9", "/a/b", ("x", "y")) == "x-y-/a/b-$1-"
