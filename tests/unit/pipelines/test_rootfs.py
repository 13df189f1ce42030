"""The image's files: the commands do what Docker's would, and nothing leaves the image's root."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kaos_pipelines.build.commands import FileCommand
from kaos_pipelines.build.context import Context, ContextFile, Ignore, load_context, read_modes
from kaos_pipelines.build.dockerfile import parse
from kaos_pipelines.build.errors import BuildError, Refused
from kaos_pipelines.build.executor import check_train, execute
from kaos_pipelines.build.plan import BUILTIN, Copy, compile_plan
from kaos_pipelines.build.rootfs import RootFs
from kaos_pipelines.build.script import parse_run

from kaos_formats.tree import TreeEntry, format_tree


@pytest.fixture
def fs(tmp_path: Path) -> RootFs:
    root = tmp_path / "image" / "root"
    root.mkdir(parents=True)
    (tmp_path / "outside").write_text("precious")
    return RootFs(root)


def sh(fs: RootFs, line: str, cwd: str = "/") -> None:
    for command in parse_run(line, None, cwd, {}, BUILTIN):
        assert isinstance(command, FileCommand)
        fs.run(command)


def snapshot(folder: Path, without: Path) -> list[tuple[str, int, bytes]]:
    found = []
    for path in sorted(folder.rglob("*")):
        if without not in path.parents and path != without:
            content = path.read_bytes() if path.is_file() else b""
            found.append((str(path), path.lstat().st_mode, content))
    return found


def test_file_commands(fs: RootFs) -> None:
    sh(
        fs,
        "mkdir -p a/b && cd a && touch f && echo one two > g && echo -n three >> g && cp -r /a/b c && mv f h",
    )
    sh(
        fs,
        "cd a && ln -s g link && ln g hard && printf '%s=%d\\n' x 1 y 2 > p"
        " && mkdir -m 700 secret && chmod u=rwx,go=rx g",
    )
    root = fs.root / "a"
    assert sorted(p.name for p in root.iterdir()) == ["b", "c", "g", "h", "hard", "link", "p", "secret"]
    assert (root / "g").read_text() == "one two\nthree"
    assert (root / "p").read_text() == "x=1\ny=2\n"
    assert (root / "link").readlink() == Path("g")
    assert (root / "g").stat().st_mode & 0o777 == 0o755
    sh(fs, "rm -rf a/[gh]* /nothing/* && rmdir a/c && rm a/link")
    assert sorted(p.name for p in root.iterdir()) == ["b", "p", "secret"]
    sh(fs, "chmod -R a-w,+x a && chmod 4777 a/p")
    assert (root / "p").stat().st_mode & 0o7777 == 0o777


def test_hidden_files_in_the_root_keep_their_names(fs: RootFs) -> None:
    sh(
        fs,
        "echo x > a && cp a .env && mkdir .d ..e && cp a .d/.f && cp -r .d .g && mv .env .env2 && ln -s a .l",
    )
    assert sorted(path.name for path in fs.root.iterdir()) == ["..e", ".d", ".env2", ".g", ".l", "a"]
    assert (fs.root / ".g" / ".f").read_text() == "x\n"
    assert (fs.image_path(fs.root), fs.image_path(fs.root / ".env")) == ("/", "/.env")


def test_a_link_is_copied_as_its_content_under_its_own_name(fs: RootFs) -> None:
    sh(fs, "echo x > target && ln -s target link && mkdir d && cp link d && cp ./link d/")
    assert [path.name for path in (fs.root / "d").iterdir()] == ["link"]
    assert (fs.root / "d" / "link").read_text() == "x\n"


def test_depth_that_no_output_could_have_is_refused(fs: RootFs) -> None:
    sh(fs, f"mkdir -p {'d/' * 200}")
    with pytest.raises(Refused, match="nested more than 200 folders deep"):
        sh(fs, f"mkdir -p {'e/' * 1100}")
    with pytest.raises(Refused, match="nested more than 200 folders deep"):
        sh(fs, "mkdir f && cp -r d f/d")


@pytest.mark.parametrize(
    "line",
    [
        "chmod 777 /etc/passwd",
        "chmod +x ../../outside",
        "rm /etc/hostname",
        "rm -r /",
        "rm a",
        "cp /etc/passwd x",
        "cp ../outside x",
        "mv /etc/passwd x",
        "mkdir a/b/c",
        "mkdir a",
        "ln -s x full/f",
        "cp a b",
        "cp -r a a/b",
        "mv a a/b",
        "touch no/such/f",
        "echo x > no/such/f",
        "chmod nonsense a",
        "rmdir full",
        "ln -s x loop && cp loop y",
        "mkdir --weird x",
    ],
)
def test_mistakes_are_refused(fs: RootFs, line: str, tmp_path: Path) -> None:
    sh(fs, "mkdir a full && touch full/f")
    before = snapshot(tmp_path, fs.root)
    with pytest.raises(Refused):
        sh(fs, line)
    assert snapshot(tmp_path, fs.root) == before


def test_links_lead_nowhere_outside(fs: RootFs, tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    before = snapshot(tmp_path, fs.root)
    sh(
        fs,
        "ln -s / x && ln -s ../../.. up && mkdir src && echo evil > src/outside"
        " && mkdir src/sub && touch src/sub/f",
    )
    sh(fs, f"mkdir -p /{tmp_path.name} && ln -s {tmp_path} abs && mkdir -p {tmp_path}")
    for target in ("x", "up", "abs", f"x{tmp_path}", "up/up/up"):
        sh(
            fs,
            f"cp src/outside {target}/ && cp -r src/. {target}/ && touch {target}/t && echo y > {target}/z",
        )
        sh(fs, f"chmod 777 {target}/outside && rm -rf {target}/outside {target}/sub")
    sh(fs, "mkdir goal && ln -s /etc goal/sub && mkdir etc && cp -r src/. goal")
    assert (fs.root / "etc" / "f").is_file()
    assert snapshot(tmp_path, fs.root) == before
    assert outside.read_text() == "precious"
    sh(fs, "ln -s loop loop")
    with pytest.raises(Refused, match="loop"):
        sh(fs, "touch loop/x")


NAMES = st.sampled_from(
    ["a", "b", "..", ".", "/", "/a", "../a", "a/b", "b/..", "*", "/..", "a/../../b", "./b"]
)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    st.lists(
        st.tuples(
            st.sampled_from(
                ["mkdir -p", "ln -s", "ln -sf", "cp -r", "mv", "rm -rf", "touch", "chmod -R 777", "echo x >"]
            ),
            NAMES,
            NAMES,
        ),
        max_size=12,
    )
)
def test_no_sequence_of_commands_leaves_the_root(
    tmp_path_factory: pytest.TempPathFactory, lines: list[tuple[str, str, str]]
) -> None:
    base = tmp_path_factory.mktemp("w")
    fs = RootFs(base / "r" / "root")
    fs.root.mkdir(parents=True)
    for name in ("a", "b"):
        (base / name).mkdir()
        (base / name / "f").write_text(name)
        (base / "r" / name).write_text(name)
    before = snapshot(base, fs.root)
    for verb, first, second in lines:
        one = verb.startswith(("mkdir", "rm", "touch", "chmod", "echo"))
        try:
            sh(fs, f"{verb} {first}" if one else f"{verb} {first} {second}")
        except Refused:
            continue
    assert snapshot(base, fs.root) == before
    assert fs.root.is_dir()


def context(
    tmp_path: Path, files: dict[str, str], ignore: str = "", modes: dict[str, int] | None = None
) -> Context:
    folder = tmp_path / "context"
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return load_context(folder, modes or {}, ignore)


def built(fs: RootFs, body: str, files: Context) -> dict[str, str]:
    plan = compile_plan(parse(f"FROM python\n{body}"))
    execute(plan, files, fs.root, lambda command, fs: None, lambda line: None)
    return {
        p.relative_to(fs.root).as_posix(): p.read_text() for p in sorted(fs.root.rglob("*")) if p.is_file()
    }


FILES = {"train": "t", "src/a.py": "a", "src/deep/b.py": "b", "c.txt": "c", "d.txt": "d"}


@pytest.mark.parametrize(
    ("body", "paths"),
    [
        ("COPY . /app", ["app/c.txt", "app/d.txt", "app/src/a.py", "app/src/deep/b.py", "app/train"]),
        ("COPY src /app", ["app/a.py", "app/deep/b.py"]),
        ("COPY src/ /app/", ["app/a.py", "app/deep/b.py"]),
        ("COPY *.txt /x/", ["x/c.txt", "x/d.txt"]),
        ("COPY s*c /x/", ["x/a.py", "x/deep/b.py"]),
        ("COPY ./src/../c.txt /y", ["y"]),
        ("WORKDIR /w\nCOPY c.txt .\nCOPY c.txt e", ["w/c.txt", "w/e"]),
        ("WORKDIR /w\nCOPY c.txt ..", ["c.txt"]),
        ("COPY c.txt d.txt src /z/", ["z/a.py", "z/c.txt", "z/d.txt", "z/deep/b.py"]),
        ("COPY c.? /q/", None),
        ("COPY [cd].txt /q/", ["q/c.txt", "q/d.txt"]),
        ("COPY ../../etc/passwd /x", None),
        ("COPY /etc/passwd /x", None),
        ("COPY nothing /x", None),
        ("COPY *.txt /x", None),
        ("RUN mkdir /x\nCOPY src/a.py /x", ["x/a.py"]),
        ("COPY c.txt /x\nCOPY src /x/sub", None),
    ],
)
def test_copy(fs: RootFs, tmp_path: Path, body: str, paths: list[str] | None) -> None:
    files = context(tmp_path, FILES)
    if paths is None:
        with pytest.raises(BuildError) as caught:
            built(fs, body, files)
        assert caught.value.line is not None
    else:
        assert list(built(fs, body, files)) == paths


def test_copy_follows_links_inside_the_image_only(fs: RootFs, tmp_path: Path) -> None:
    before = snapshot(tmp_path, fs.root)
    files = context(tmp_path, FILES)
    before = snapshot(tmp_path, fs.root)
    built(
        fs,
        f"RUN ln -s {tmp_path} evil && ln -s / root\nRUN mkdir -p {tmp_path}\nCOPY . /evil/\nCOPY . /root/up",
        files,
    )
    assert snapshot(tmp_path, fs.root) == before
    assert (fs.root / "up" / "train").is_file()


def test_modes(fs: RootFs, tmp_path: Path) -> None:
    files = context(tmp_path, FILES, modes={"train": 0o755})
    built(fs, "COPY train c.txt /app/\nCOPY --chmod=600 d.txt /app/", files)
    modes = {p.name: p.stat().st_mode & 0o777 for p in (fs.root / "app").iterdir()}
    assert modes == {"train": 0o755, "c.txt": 0o644, "d.txt": 0o600}


def test_train_must_be_there_and_executable(fs: RootFs) -> None:
    plan = compile_plan(parse("FROM python\nWORKDIR /app"))
    with pytest.raises(BuildError, match="has no /app/train"):
        check_train(plan, fs.root)
    sh(fs, "mkdir app && touch app/train")
    with pytest.raises(BuildError, match="not executable"):
        check_train(plan, fs.root)
    sh(fs, "chmod +x app/train")
    check_train(plan, fs.root)


@pytest.mark.parametrize(
    ("rules", "ignored", "kept"),
    [
        ("*.txt", ["c.txt"], ["a/c.txt", "train"]),
        ("**/*.txt", ["c.txt", "a/b/c.txt"], ["c.txtx"]),
        ("# c\n\n/src/\n", ["src/a", "src/b/c"], ["a/src/x", "srcx"]),
        ("*\n!train\n!src/*.py", ["x", "src/x.txt"], ["train", "src/a.py"]),
        ("a/**", ["a/b", "a/b/c"], ["b/a"]),
        ("**/node", ["node/x", "a/b/node/x"], ["nodes"]),
        ("[ab]?.txt", ["a1.txt"], ["c1.txt", "a.txt"]),
        ("./a/../b", ["b", "b/c"], ["a"]),
    ],
)
def test_dockerignore(rules: str, ignored: list[str], kept: list[str]) -> None:
    rule = Ignore(rules)
    assert [p for p in ignored if not rule.matches(p)] == []
    assert [p for p in kept if rule.matches(p)] == []


def test_ignored_files_cannot_be_copied(fs: RootFs, tmp_path: Path) -> None:
    files = context(tmp_path, FILES, ignore="*.txt")
    assert "app/c.txt" not in built(fs, "COPY . /app", files)
    with pytest.raises(BuildError, match="dockerignore"):
        built(RootFs(tmp_path / "other"), "COPY c.txt /app", files) if (
            tmp_path / "other"
        ).mkdir() is None else None


def test_context_with_links(tmp_path: Path) -> None:
    folder = tmp_path / "context"
    folder.mkdir()
    (folder / "real").write_text("r")
    (folder / "link").symlink_to("real")
    assert sorted(load_context(folder, {}, "").files) == ["link", "real"]
    (folder / "out").symlink_to("/etc/passwd")
    with pytest.raises(BuildError, match="out of the build context"):
        load_context(folder, {}, "")


def test_modes_of_a_tree(tmp_path: Path) -> None:
    tree = tmp_path / "x.tree"
    tree.write_bytes(
        format_tree([TreeEntry("m/train", 1, "755", "0" * 64), TreeEntry("z", 1, "644", "0" * 64)])
    )
    assert read_modes(tree, "m") == {"train": 0o755}
    assert read_modes(tree, "") == {"m/train": 0o755, "z": 0o644}
    assert read_modes(tmp_path / "none", "") == {}
    tree.write_text("nonsense\n")
    with pytest.raises(BuildError):
        read_modes(tree, "")


def test_selecting_keeps_sources_apart() -> None:
    file = ContextFile("a*b", Path("/x"), 0o644)
    other = ContextFile("aXb", Path("/x"), 0o644)
    words = compile_plan(parse(f"FROM python\nCOPY {shlex.quote('a*b')} /x")).steps[1].actions[0]
    assert isinstance(words, Copy)
    assert [f.path for _, f in Context([file, other]).select(words.sources[0])] == ["a*b"]
