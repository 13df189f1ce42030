"""What a pip command line asks for, as far as a virtual environment can give it. Pure."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from kaos_pipelines.build.errors import Refused

FILES = {
    "-r": "requirement",
    "--requirement": "requirement",
    "-c": "constraint",
    "--constraint": "constraint",
}
# Options with a value that stay as they are.
VALUED = frozenset(
    [
        "-i",
        "--index-url",
        "--pypi-url",
        "--extra-index-url",
        "--trusted-host",
        "--no-binary",
        "--only-binary",
        "--upgrade-strategy",
        "--timeout",
        "--default-timeout",
        "--retries",
        "--proxy",
        "--cert",
        "--client-cert",
        "--progress-bar",
        "--exists-action",
        "--use-feature",
        "--use-deprecated",
        "--global-option",
        "--config-settings",
        "--config-setting",
        "-C",
        "--root-user-action",
        "--platform",
        "--python-version",
        "--implementation",
        "--abi",
        "--resume-retries",
        "--keyring-provider",
    ]
)
SWITCHES = frozenset(
    [
        "-U",
        "--upgrade",
        "--force-reinstall",
        "--no-deps",
        "--no-index",
        "--pre",
        "--prefer-binary",
        "--require-hashes",
        "--ignore-installed",
        "-I",
        "--ignore-requires-python",
        "--no-build-isolation",
        "--use-pep517",
        "--no-use-pep517",
        "--check-build-dependencies",
        "--no-compile",
        "--compile",
        "--no-warn-script-location",
        "--no-warn-conflicts",
        "--no-clean",
        "--quiet",
        "-q",
        "-qq",
        "-qqq",
        "--verbose",
        "-v",
        "-vv",
        "-vvv",
        "--no-input",
        "--isolated",
        "--no-color",
        "--disable-pip-version-check",
        "--require-virtualenv",
        "-y",
        "--yes",
        "--no-python-version-warning",
        "--debug",
    ]
)
# Options that mean something in an image only; the environment is the same without them.
DROPPED = frozenset(["--no-cache-dir", "--user", "--break-system-packages", "--system"])
ARCHIVES = (".whl", ".tar.gz", ".zip", ".tar.bz2")


@dataclass(frozen=True, slots=True)
class Argument:
    """One word for pip. `path` is the image path it names, None for what pip takes literally; `prefix` is
    what comes before the path in the same word (an option), `suffix` what comes after (extras)."""

    text: str
    path: str | None = None
    kind: str = ""  # "requirement" | "constraint" | "links" | "local", and those of `installers`
    prefix: str = ""
    suffix: str = ""

    def words(self, path: str | None) -> list[str]:
        """What pip is given, with the file at `path`."""
        if path is None:
            return [self.text]
        if not self.text:
            return []  # of the tool's own knowledge
        if self.kind == "links":
            return [f"{self.prefix}={path}"]
        if self.prefix == "-e":
            return ["-e", path + self.suffix]
        return [self.prefix, path] if self.prefix else [path + self.suffix]


@dataclass(frozen=True, slots=True)
class PipCommand:
    """`pip install` or `pip uninstall`; `cwd` is the image path that relative paths start from."""

    verb: str
    arguments: tuple[Argument, ...]
    cwd: str
    env: Mapping[str, str]

    @property
    def program(self) -> str:
        return self.verb.split()[0] if " " in self.verb else "pip"

    @property
    def text(self) -> str:
        command = f"pip {self.verb}" if self.program == "pip" else self.verb
        return " ".join([command, *(argument.text for argument in self.arguments if argument.text)])


def parse(
    words: Sequence[str], cwd: str, env: Mapping[str, str], *, strict: bool = True
) -> PipCommand | None:
    """The command of `words` (all after `pip`); None for one that changes no environment.

    Raises Refused; if `strict` also for what changes something else.
    """
    rest = list(words)
    leading = []
    while rest and rest[0].startswith("-"):
        if rest[0] in ("-V", "--version", "-h", "--help"):
            return None
        leading.append(rest.pop(0))
    verb = rest.pop(0) if rest else "help"
    if verb in ("list", "freeze", "check", "show", "cache", "help", "debug", "inspect"):
        return None
    if verb == "uninstall":
        return PipCommand(verb, tuple(arguments([*leading, "-y", *rest])), cwd, dict(env))
    if verb != "install":
        if not strict:
            return None
        raise Refused(f"pip {verb} has no meaning for a virtual environment; pip install and uninstall have")
    found = tuple(arguments([*leading, *rest], strict=strict))
    if not any(a.kind in ("requirement", "local", "project") or not a.text.startswith("-") for a in found):
        raise Refused("pip install names nothing to install")
    return PipCommand(verb, found, cwd, dict(env))


def arguments(
    words: Sequence[str],
    *,
    strict: bool = True,
    valued: Collection[str] = (),
    switches: Collection[str] = (),
) -> Iterator[Argument]:
    """The words of an installation. `strict`: without editable ones; `valued` and `switches`: more options of
    both kinds. Raises Refused.
    """
    queue = list(words)
    while queue:
        word = queue.pop(0)
        option, equals, value = word.partition("=") if word.startswith("--") else (word, "", "")
        if not word.startswith("-") or word == "-":
            yield _target(word)
        elif word in DROPPED:
            continue
        elif option in FILES or word[:2] in ("-r", "-c"):
            option, value = (option, value) if option in FILES else (word[:2], word[2:])
            file = value or _next(queue, option)
            if "://" in file:
                raise Refused(f"{option} {file} is not a file of the image; put it into the bundle")
            yield Argument(f"{option} {file}", file, FILES[option], option)
        elif option in ("-f", "--find-links"):
            place = value or _next(queue, option)
            if "://" in place:
                _no_file_url(place)
                yield Argument(f"--find-links={place}")
            else:
                yield Argument(f"--find-links={place}", place, "links", "--find-links")
        elif option in ("-e", "--editable"):
            target = value or _next(queue, option)
            if re.match(r"[a-z]+\+", target):
                raise Refused(
                    f"an image's environment keeps no editable installs; install {target} without -e"
                )
            if not strict:
                bare, bracket, extras = target.partition("[")
                yield Argument(f"-e {target}", bare, "project", "-e", bracket + extras)
                continue
            raise Refused(
                f"-e {target} would tie the environment to a folder that every worker has its own copy of; "
                "use pip install without -e, or set PYTHONPATH to it"
            )
        elif word in SWITCHES or word in switches:
            yield Argument(word)
        elif option in VALUED or option in valued:
            yield Argument(f"{option}={value}" if option.startswith("--") and equals else option)
            if not equals:
                yield Argument(_next(queue, option))
        else:
            raise Refused(f"the pip option {option} is unknown here or would write outside the environment")


def _next(queue: list[str], option: str) -> str:
    if not queue:
        raise Refused(f"pip's {option} needs a value")
    return queue.pop(0)


def _target(word: str) -> Argument:
    _no_file_url(word)
    if "://" in word or re.match(r"[A-Za-z0-9._-]+\s*(\[[^]]*\])?\s*@", word):
        return Argument(word)
    bare, bracket, extras = word.partition("[")
    if bare.startswith((".", "/")) or "/" in bare or bare.lower().endswith(ARCHIVES):
        return Argument(word, bare, "local", "", bracket + extras)
    return Argument(word)


def _no_file_url(word: str) -> None:
    if re.search(r"(^|[\s@+])file:", word):
        raise Refused(f"{word} is a file of this machine; put it into the bundle and name it by image path")


def references(text: str) -> Iterator[tuple[str, str]]:
    """(kind, path) for every file that the text of a requirements file refers to. Raises Refused."""
    for raw in text.replace("\\\n", " ").splitlines():
        line = re.sub(r"(^|\s)#.*$", "", raw).strip()
        if not line:
            continue
        yield from _line_references(line)


def _line_references(line: str) -> Iterator[tuple[str, str]]:
    if line.startswith("-"):
        words = line.replace("=", " ", 1).split() if line.startswith("--") else line.split()
        if words[0][:2] in ("-r", "-c") and len(words[0]) > 2 and not words[0].startswith("--"):
            words = [words[0][:2], words[0][2:]]
        for argument in arguments([f"{words[0]}", *words[1:2]] if len(words) > 1 else words):
            if argument.path is not None:
                yield argument.kind, argument.path
        return
    argument = _target(line.split(";")[0].split(" --")[0].strip())
    if argument.path is not None:
        yield argument.kind, argument.path
