"""The image's files in the making: every path is looked up below the image's root and cannot leave it.

Symbolic links are followed the way a process in a container would follow them, with the image's root as "/".
"""

from __future__ import annotations

import fnmatch
import os
import re
import shutil
import stat
from collections.abc import Callable
from pathlib import Path

from kaos_formats.folders import remove_tree
from kaos_pipelines.build.commands import FileCommand
from kaos_pipelines.build.errors import Refused
from kaos_pipelines.build.words import Word

MAX_LINKS = 40
MAX_DEPTH = 200
CLAUSE = re.compile(r"([ugoa]*)([+=-])([rwxXst]*)")


class RootFs:
    """An image's file tree below `root` (a real folder without links in its own path)."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def resolve(self, path: str, cwd: str = "/", *, follow: bool = True) -> Path:
        """The host path of an image path, free of links but perhaps the last (`follow=False`). Need not
        exist.
        """
        queue = [*(cwd.split("/") if not path.startswith("/") else ()), *path.split("/")]
        at, links, depth = self.root, 0, len(self.root.parts)
        while queue:
            name = queue.pop(0)
            if name in ("", "."):
                continue
            if name == "..":
                at = at.parent if at != self.root else at
                continue
            at = at / name
            if len(at.parts) - depth > MAX_DEPTH:
                raise Refused(f"{path[:100]} is nested more than {MAX_DEPTH} folders deep")
            if at.is_symlink() and (follow or any(part not in ("", ".") for part in queue)):
                links += 1
                if links > MAX_LINKS:
                    raise Refused(f"{path} is a loop of symbolic links")
                target = str(at.readlink())
                at = self.root if target.startswith("/") else at.parent
                queue = [*target.split("/"), *queue]
        return at

    def image_path(self, host: Path) -> str:
        return "/" + "/".join(host.relative_to(self.root).parts)

    def mkdir(self, path: str, cwd: str = "/") -> Path:
        """Make a folder and those above it."""
        host = self.resolve(path, cwd)
        parts = [host, *host.parents]
        for folder in reversed(parts[: parts.index(self.root)]):
            if not folder.exists():
                folder.mkdir(mode=0o755)
            elif not folder.is_dir():
                raise Refused(f"{self.image_path(folder)} is a file, not a folder")
        return host

    def expand(self, word: Word, cwd: str) -> list[str]:
        """Image paths that a word stands for; a pattern without matches stands for itself, as in sh."""
        if word.glob is None:
            return [word.text]
        found = ["/" if word.glob.startswith("/") else ""]
        for part in (part for part in word.glob.split("/") if part):
            grown: list[str] = []
            for base in found:
                folder = self.resolve(base or ".", cwd)
                plain = re.sub(r"\[([*?[])\]", r"\1", part)
                if not any(c in part for c in "*?["):
                    names = [plain]
                elif folder.is_dir():
                    names = [
                        name for name in (e.name for e in folder.iterdir()) if fnmatch.fnmatchcase(name, part)
                    ]
                    names = [name for name in names if part.startswith(".") or not name.startswith(".")]
                else:
                    names = []
                grown += [f"{base}{'' if base in ('', '/') else '/'}{name}" for name in sorted(names)]
            found = grown
        found = [path for path in found if os.path.lexists(self.resolve(path, cwd, follow=False))]
        return found or [word.text]

    def copy_file(self, source: Path, path: str, mode: int) -> None:
        """Copy a host file to an image path (an existing folder above it), replacing what is there."""
        goal = self.resolve(path)
        if goal.is_dir():
            raise Refused(f"{path} is a folder already")
        shutil.copyfile(source, goal)
        goal.chmod(mode | 0o400)

    def copy_tree(self, source: Path, path: str) -> None:
        """Copy a folder of the image into another; links are copied as links, and followed inside the image
        only.
        """
        self.mkdir(path)
        for entry in sorted(source.iterdir()):
            target = f"{path.rstrip('/')}/{entry.name}"
            if entry.is_symlink():
                goal = self.resolve(target, follow=False)
                if os.path.lexists(goal):
                    if goal.is_dir() and not goal.is_symlink():
                        raise Refused(f"{target} is a folder already")
                    goal.unlink()
                goal.symlink_to(entry.readlink())
            elif entry.is_dir():
                self.copy_tree(entry, target)
            else:
                self.copy_file(entry, target, stat.S_IMODE(entry.stat().st_mode))

    def run(self, command: FileCommand) -> None:
        """Carry out one of the file commands. Raises Refused, in the words the command itself would use."""
        try:
            _COMMANDS[command.name](self, command)
        except OSError as error:
            raise Refused(f"{command.name}: {error.strerror or error}") from error


def _parse(fs: RootFs, command: FileCommand, flags: str, long: dict[str, str]) -> tuple[set[str], list[str]]:
    """(options as single letters, expanded operands)."""
    options: set[str] = set()
    operands: list[str] = []
    only_operands = False
    for word in command.words:
        text = word.text
        if only_operands or not text.startswith("-") or text == "-":
            operands += fs.expand(word, command.cwd)
        elif text == "--":
            only_operands = True
        elif text.startswith("--"):
            if text[2:] not in long:
                raise Refused(f"{command.name} {text} is not understood")
            options.add(long[text[2:]])
        else:
            for letter in text[1:]:
                if letter not in flags:
                    raise Refused(f"{command.name} -{letter} is not understood")
                options.add(letter)
    return options, operands


def _need(fs: RootFs, name: str, path: str, cwd: str, *, follow: bool = True) -> Path:
    host = fs.resolve(path, cwd, follow=follow)
    if not os.path.lexists(host):
        raise Refused(f"{name}: there is no {path} in the image (files of the base image cannot be reached)")
    return host


def _mkdir(fs: RootFs, command: FileCommand) -> None:
    words = list(command.words)
    mode = None
    for number, word in enumerate(words):
        if word.text == "-m" and number + 1 < len(words):
            mode = words[number + 1].text
            del words[number : number + 2]
            break
        if word.text.startswith("--mode="):
            mode = word.text.removeprefix("--mode=")
            del words[number]
            break
    trimmed = FileCommand("mkdir", tuple(words), command.cwd)
    options, paths = _parse(fs, trimmed, "pv", {"parents": "p", "verbose": "v"})
    if not paths:
        raise Refused("mkdir: names no folder")
    for path in paths:
        host = fs.resolve(path, command.cwd)
        if "p" not in options and (host.exists() or not host.parent.is_dir()):
            raise Refused(f"mkdir: {path} exists already, or the folder above it does not; add -p")
        made = fs.mkdir(path, command.cwd)
        if mode is not None:
            made.chmod(_changed_mode(mode, made) | 0o700)


def _rmdir(fs: RootFs, command: FileCommand) -> None:
    for path in _parse(fs, command, "", {})[1]:
        _inside(fs, _need(fs, "rmdir", path, command.cwd)).rmdir()


def _rm(fs: RootFs, command: FileCommand) -> None:
    options, paths = _parse(
        fs, command, "rRfvd", {"recursive": "r", "force": "f", "verbose": "v", "no-preserve-root": "v"}
    )
    for path in paths:
        host = fs.resolve(path, command.cwd, follow=False)
        if not os.path.lexists(host):
            if "f" in options:
                continue
            raise Refused(f"rm: there is no {path} in the image (files of the base image cannot be reached)")
        _inside(fs, host)
        if host.is_dir() and not host.is_symlink():
            if not options & {"r", "R"}:
                raise Refused(f"rm: {path} is a folder; add -r")
            if problem := remove_tree(host):
                raise Refused(f"rm: {path} cannot be removed: {problem}")
        else:
            host.unlink()


def _inside(fs: RootFs, host: Path) -> Path:
    if host == fs.root:
        raise Refused("the image's root cannot be removed or replaced")
    return host


def _chmod(fs: RootFs, command: FileCommand) -> None:
    words = list(command.words)
    recursive = False
    while words and words[0].text in ("-R", "--recursive", "-v", "-c", "-f"):
        recursive |= words.pop(0).text in ("-R", "--recursive")
    if len(words) < 2:
        raise Refused("chmod takes a mode and a file")
    mode = words[0].text
    for word in words[1:]:
        for path in fs.expand(word, command.cwd):
            host = _need(fs, "chmod", path, command.cwd)
            below = host.rglob("*") if recursive and host.is_dir() else ()
            for target in (host, *below):
                if not target.is_symlink():
                    # The builder must be able to go on working with it, whoever it runs as.
                    target.chmod(_changed_mode(mode, target) | (0o700 if target.is_dir() else 0o400))


def _changed_mode(text: str, path: Path) -> int:
    if re.fullmatch(r"[0-7]{1,4}", text):
        return int(text, 8) & 0o1777
    mode = stat.S_IMODE(path.stat().st_mode)
    for clause in text.split(","):
        match = CLAUSE.fullmatch(clause)
        if not match:
            raise Refused(f"chmod: {text} is no mode")
        who, operator, what = match.groups()
        bits = sum({"r": 4, "w": 2, "x": 1}.get(letter, 0) for letter in set(what))
        if "X" in what and (path.is_dir() or mode & 0o111):
            bits |= 1
        if not who:
            who, bits_mask = "a", ~0o022
        else:
            bits_mask = ~0
        shifts = [shift for letter, shift in (("u", 6), ("g", 3), ("o", 0)) if letter in who or "a" in who]
        change = sum(bits << shift for shift in shifts) & bits_mask
        if operator == "+":
            mode |= change
        elif operator == "-":
            mode &= ~change
        else:
            mode = (mode & ~sum(7 << shift for shift in shifts)) | change
    return mode & 0o1777


def _destination(fs: RootFs, command: FileCommand, paths: list[str]) -> tuple[list[str], Path, bool]:
    if len(paths) < 2:
        raise Refused(f"{command.name} takes a source and a destination")
    *sources, last = paths
    target = fs.resolve(last, command.cwd)
    into = target.is_dir()
    if not into and (len(sources) > 1 or last.endswith("/")):
        raise Refused(f"{command.name}: there is no folder {last} in the image")
    if not target.parent.is_dir():
        raise Refused(f"{command.name}: there is no folder above {last} in the image")
    return sources, target, into


def _cp(fs: RootFs, command: FileCommand) -> None:
    long = {"recursive": "r", "archive": "a", "force": "f", "verbose": "v", "preserve": "p"}
    options, paths = _parse(fs, command, "rRafpvTLdn", long)
    sources, target, into = _destination(fs, command, paths)
    for source in sources:
        host = _need(fs, "cp", source, command.cwd)
        # A link is copied as what it leads to, but under its own name.
        name = source.rstrip("/").rpartition("/")[2] or host.name
        contents = "T" in options or name in (".", "..")
        goal = target / name if into and not contents else target
        if host.is_dir():
            if not options & {"r", "R", "a"}:
                raise Refused(f"cp: {source} is a folder; add -r")
            if goal == host or host in goal.parents:
                raise Refused(f"cp: {source} cannot be copied into itself")
            fs.copy_tree(host, fs.image_path(goal))
        else:
            fs.copy_file(host, fs.image_path(goal), stat.S_IMODE(host.stat().st_mode))


def _mv(fs: RootFs, command: FileCommand) -> None:
    _, paths = _parse(fs, command, "fvnT", {"force": "f", "verbose": "v"})
    sources, target, into = _destination(fs, command, paths)
    for source in sources:
        host = _inside(fs, _need(fs, "mv", source, command.cwd, follow=False))
        goal = target / host.name if into else target
        if host == goal or host in goal.parents:
            raise Refused(f"mv: {source} cannot be moved into itself")
        host.rename(goal)


def _ln(fs: RootFs, command: FileCommand) -> None:
    options, paths = _parse(fs, command, "sfnvT", {"symbolic": "s", "force": "f", "no-dereference": "n"})
    if len(paths) == 1:
        paths.append(".")
    source, last = paths[0], paths[-1]
    if len(paths) > 2:
        raise Refused("ln takes one target here")
    goal = fs.resolve(last, command.cwd, follow=not options & {"n", "T"})
    if goal.is_dir() and not goal.is_symlink():
        goal = goal / source.rstrip("/").rpartition("/")[2]
    if os.path.lexists(goal):
        if "f" not in options or (goal.is_dir() and not goal.is_symlink()):
            raise Refused(f"ln: {fs.image_path(goal)} exists already")
        goal.unlink()
    if not goal.parent.is_dir():
        raise Refused(f"ln: there is no folder above {last} in the image")
    if "s" in options:
        goal.symlink_to(source)
    else:
        shutil.copy(_need(fs, "ln", source, command.cwd), goal)


def _touch(fs: RootFs, command: FileCommand) -> None:
    for path in _parse(fs, command, "cam", {})[1]:
        host = fs.resolve(path, command.cwd)
        if not host.parent.is_dir():
            raise Refused(f"touch: there is no folder above {path} in the image")
        host.touch(mode=0o644)


def _echo(fs: RootFs, command: FileCommand) -> None:
    words = [text for word in command.words for text in fs.expand(word, command.cwd)]
    end = "\n"
    while words and words[0] in ("-n", "-e", "-E"):
        end = "" if words.pop(0) == "-n" else end
    _write(fs, command, " ".join(words) + end)


def _printf(fs: RootFs, command: FileCommand) -> None:
    if not command.words:
        raise Refused("printf takes a format")
    layout, *values = [word.text for word in command.words]
    layout = re.sub(r"\\([nt\\])", lambda match: {"n": "\n", "t": "\t", "\\": "\\"}[match.group(1)], layout)
    pieces = re.split(r"(%[sd%])", layout)
    if any("%" in piece for piece in pieces[::2]):
        raise Refused("printf understands %s, %d and %% here")
    text = ""
    while True:
        for piece in pieces:
            is_value = piece in ("%s", "%d")
            text += (values.pop(0) if values else "") if is_value else piece.replace("%%", "%")
        if not values or not any(piece in ("%s", "%d") for piece in pieces):
            break
    _write(fs, command, text)


def _write(fs: RootFs, command: FileCommand, text: str) -> None:
    if command.target is None:
        return  # it would go to the build log only
    host = fs.resolve(command.target.text, command.cwd)
    if not host.parent.is_dir() or host.is_dir():
        raise Refused(f"there is no folder above {command.target.text} in the image")
    with host.open("a" if command.append else "w", encoding="utf-8") as file:
        file.write(text)


_COMMANDS: dict[str, Callable[[RootFs, FileCommand], None]] = {
    "mkdir": _mkdir,
    "rmdir": _rmdir,
    "rm": _rm,
    "chmod": _chmod,
    "cp": _cp,
    "mv": _mv,
    "ln": _ln,
    "touch": _touch,
    "echo": _echo,
    "printf": _printf,
}
