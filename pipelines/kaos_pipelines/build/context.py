"""The build context: which files a COPY can see, with the modes that the bundle's tree records."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from kaos_formats.errors import InvalidBundle
from kaos_formats.stored import read_map, restore
from kaos_formats.tree import parse_tree
from kaos_pipelines.build.errors import BuildError, Refused
from kaos_pipelines.build.words import Word


@dataclass(frozen=True, slots=True)
class ContextFile:
    """`path` relative to the context; `source` the real file; `mode` its permission bits."""

    path: str
    source: Path
    mode: int


class Context:
    """The files of a build context, less what `.dockerignore` names."""

    def __init__(self, files: Iterable[ContextFile], ignored: Iterable[str] = ()) -> None:
        self.files = {file.path: file for file in files}
        self.ignored = frozenset(ignored)

    def select(self, source: Word) -> list[tuple[str, ContextFile]]:
        """(path below the destination, file) for what one source of a COPY names; "" stands for the file
        itself.

        Raises Refused when the source is no pattern, leaves the context or matches nothing.
        """
        pattern = _clean(source.text, source.glob)
        found: list[tuple[str, ContextFile]] = []
        depth = len(pattern)
        try:
            matcher = re.compile("/".join(_element(part) for part in pattern))
        except re.error as error:
            raise Refused(f"{source.text} is no pattern: {error}") from error
        for path, file in self.files.items():
            parts = path.split("/")
            if len(parts) >= depth and matcher.fullmatch("/".join(parts[:depth])):
                found.append(("/".join(parts[depth:]), file))
        if not found:
            hidden = any(matcher.fullmatch("/".join(p.split("/")[:depth])) for p in self.ignored)
            why = "it is left out by .dockerignore" if hidden else "the build context has no such file"
            raise Refused(f"{source.text}: {why}")
        return found


def load_context(root: Path, modes: Mapping[str, int], ignore: str) -> Context:
    """The context in folder `root`. `modes`: path relative to `root` → mode; the file's own where it has
    none.

    Raises BuildError for anything but regular files and links to such that stay inside.
    """
    matcher = Ignore(ignore)
    files, ignored = [], []
    for path, real in _walk(root):
        if matcher.matches(path):
            ignored.append(path)
        else:
            mode = modes.get(path, 0o755 if real.stat().st_mode & 0o111 else 0o644)
            files.append(ContextFile(path, real, mode))
    return Context(files, ignored)


@contextmanager
def true_names(source: Path) -> Iterator[Path]:
    """The bundle in folder `source` under its true names: itself, or a copy where PFS holds escaped ones."""
    names = read_map(source)
    if names is None:
        yield source
        return
    with tempfile.TemporaryDirectory(prefix="kaos-source-") as folder:
        bundle = Path(folder) / source.name
        shutil.copytree(source, bundle)
        for at, _, _ in os.walk(bundle):
            Path(at).chmod(0o755)  # as inputs they may be read-only
        tree = source.with_name(f"{source.name}.tree")
        if tree.is_file():
            shutil.copyfile(tree, bundle.with_name(tree.name))
        restore(bundle, names)
        yield bundle


def read_modes(tree: Path, prefix: str) -> dict[str, int]:
    """Modes of the files below `prefix` ("" or "a/b") from a bundle's tree text; {} without one."""
    if not tree.is_file():
        return {}
    start = f"{prefix}/" if prefix else ""
    try:
        entries = parse_tree(tree.read_bytes()).entries
    except InvalidBundle as error:
        raise BuildError(f"{tree.name} is no list of a bundle's files: {error}") from error
    return {e.path.removeprefix(start): int(e.mode, 8) for e in entries if e.path.startswith(start)}


def _walk(root: Path) -> Iterator[tuple[str, Path]]:
    real_root = Path(os.path.realpath(root))
    for folder, folders, names in os.walk(real_root):
        folders.sort()
        for name in sorted([*names, *(f for f in folders if (Path(folder) / f).is_symlink())]):
            path = Path(folder) / name
            relative = path.relative_to(real_root).as_posix()
            real = Path(os.path.realpath(path))
            if not real.is_relative_to(real_root):
                raise BuildError(f"{relative} is a link out of the build context; put the file itself there")
            if real.is_file():
                yield relative, real
            elif not real.is_dir():
                raise BuildError(f"{relative} is neither a file nor a folder")


def _clean(text: str, glob: str | None) -> list[str]:
    parts: list[str] = []
    for part in (glob if glob is not None else re.sub(r"([*?[])", r"[\1]", text)).split("/"):
        if part in ("", "."):
            continue
        if part == "..":
            if not parts:
                raise Refused(f"{text} is outside the build context; only files of the bundle can be copied")
            parts.pop()
        else:
            parts.append(part)
    return parts


def _element(pattern: str) -> str:
    """Go's filepath.Match for one path element, as a regular expression that never goes back over a star:
    what stands between two stars is found at the first place where it fits, and kept.
    """
    first, *rest = _between_stars(pattern)
    if not rest:
        return first
    *middle, last = rest
    return first + "".join(f"(?>[^/]*?{part})" for part in middle if part) + "[^/]*" + last


def _between_stars(pattern: str) -> list[str]:
    """The pieces of a pattern that its stars are between, as regular expressions."""
    out, at = [""], 0
    while at < len(pattern):
        char = pattern[at]
        close = pattern.find("]", at + 2) if char == "[" else -1
        if char == "*":
            out.append("")
        elif char == "?":
            out[-1] += "[^/]"
        elif char == "\\" and at + 1 < len(pattern):
            at += 1
            out[-1] += re.escape(pattern[at])
        elif close > 0:
            body = pattern[at + 1 : close]
            negated = body[0] in "^!"
            body = re.sub(r"([\\\[\]^&~|])", r"\\\1", body[negated:])
            body = body.replace("--", r"-\-")  # a range that ends in a dash, not a difference of sets
            out[-1] += f"(?!/)[{'^' if negated else ''}{body}]"
            at = close
        else:
            out[-1] += re.escape(char)
        at += 1
    return out


class Ignore:
    """`.dockerignore`: patterns from the root, `**`, exceptions with `!`; the last match decides."""

    def __init__(self, text: str) -> None:
        self._rules: list[tuple[bool, _Rule]] = []
        for line in text.removeprefix("\ufeff").splitlines():
            rule = line.strip()
            if not rule or rule.startswith("#"):
                continue
            exception = rule.startswith("!")
            parts = _ignore_parts(rule[exception:].strip())
            if parts:
                try:
                    compiled = [None if part == "**" else re.compile(_element(part)) for part in parts]
                except re.error as error:
                    raise BuildError(f"{rule!r} is no pattern: {error}", file=".dockerignore") from error
                self._rules.append((not exception, compiled))

    def matches(self, path: str) -> bool:
        """Whether the file, or a folder above it, is left out."""
        parts = path.split("/")
        ignored = False
        for leaves_out, rule in self._rules:
            if leaves_out != ignored and _matches(rule, parts):
                ignored = leaves_out
        return ignored


_Rule = Sequence[re.Pattern[str] | None]
"""A pattern's elements; None stands for `**`."""


def _matches(rule: _Rule, parts: Sequence[str]) -> bool:
    """Whether a rule names the path or a folder above it. Each `**` takes as little as will do."""
    at = element = 0
    retry: tuple[int, int] | None = None  # where the last `**` ends if what follows it fails: path, rule
    while element < len(rule):
        pattern = rule[element]
        if pattern is None:
            element += 1
            retry = at, element
        elif at < len(parts) and pattern.fullmatch(parts[at]):
            at += 1
            element += 1
        elif retry is not None and retry[0] < len(parts):
            at, element = retry[0] + 1, retry[1]
            retry = at, element
        else:
            return False
    return at < len(parts) or rule[-1] is not None


def _ignore_parts(rule: str) -> Sequence[str]:
    parts: list[str] = []
    for part in rule.split("/"):
        if part == ".." and parts:
            parts.pop()
        elif part not in ("", ".", ".."):
            parts.append(part)
    return parts
