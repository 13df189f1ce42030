"""The script of a RUN → commands and what they depend on. Pure; nothing is handed to a shell.

The part of the shell's grammar that needs no processes: lists with `;`, `&&` and `||`, `if` with its
branches, and tests of files and texts, which look at the image's files when their turn comes.
"""

from __future__ import annotations

import posixpath
from collections import ChainMap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from kaos_pipelines.build.commands import Command, FileCommand, Note, Redirection, assignment, command
from kaos_pipelines.build.errors import USE_DOCKER, Refused
from kaos_pipelines.build.words import Operator, Word, shell

FILE_TESTS = frozenset(("-f", "-e", "-d", "-s", "-x", "-r", "-w", "-L", "-h"))
TEXT_TESTS = frozenset(("-z", "-n"))
COMPARISONS = frozenset(("=", "==", "!="))
_SEPARATORS = (";", "\n")
_BRANCHES = frozenset(("elif", "else", "fi"))


@dataclass(frozen=True, slots=True)
class Test:
    """`[ -f path ]`, `[ -n text ]`, `[ a = b ]`: `operator` on `operands`; `holds`: what is asked for."""

    operator: str
    operands: tuple[str, ...]
    cwd: str
    holds: bool = True

    @property
    def text(self) -> str:
        words = [self.operator, *self.operands]
        if self.operator in COMPARISONS:
            words = [self.operands[0], self.operator, self.operands[1]]
        return f"{'' if self.holds else '! '}[ {' '.join(words)} ]"


@dataclass(frozen=True, slots=True)
class Fail:
    """A RUN whose last test does not hold fails, as it does in a shell."""

    reason: str


@dataclass(frozen=True, slots=True)
class If:
    """`then` if every one of `tests` holds, else `otherwise`."""

    tests: tuple[Test, ...]
    then: tuple[Part, ...]
    otherwise: tuple[Part, ...] = ()


@dataclass(frozen=True, slots=True)
class Attempt:
    """`commands || true`: their failure is noted, and no more."""

    commands: tuple[Command, ...]


Part = Command | If | Attempt | Fail


def parse_run(
    value: str, exec_form: Sequence[str] | None, cwd: str, env: Mapping[str, str], builtin: Mapping[str, str]
) -> tuple[Part, ...]:
    """The parts of one RUN. `env` is ENV and ARG; `builtin` what the base image sets, for expansion only.

    Raises Refused naming the command and the reason.
    """
    if exec_form is not None:
        return command([Word(word) for word in exec_form], None, cwd, env)
    script = _Script(value, cwd, env, builtin)
    parts = script.read()
    if parts and isinstance(parts[-1], If) and script.unmet:
        last = parts[-1]
        reason = f"{' && '.join(test.text for test in last.tests)} does not hold"
        parts[-1] = replace(last, otherwise=(Fail(reason),))
    return tuple(parts)


class _Script:
    def __init__(self, value: str, cwd: str, env: Mapping[str, str], builtin: Mapping[str, str]) -> None:
        self._cwd = cwd
        # Variables are put in as the words are read, so that a command sees what the one before it exported.
        self._env = dict(env)
        self._tokens = shell(value, ChainMap(self._env, dict(builtin)))
        self._next: list[Word | Operator] = []
        self._depth = 0
        self.unmet = False
        """The last list that was read ends in tests of which something depends that was left out."""

    def read(self, until: frozenset[str] = frozenset()) -> list[Part]:
        """Everything up to one of the words `until`, which is left where it is; without any, all."""
        parts: list[Part] = []
        while (token := self._peek()) is not None:
            if isinstance(token, Operator) and token.text in _SEPARATORS:
                self._take()
            elif isinstance(token, Word) and token.text in until:
                return parts
            else:
                parts += self._chain()
        if until:
            raise Refused(f"an if goes on without {' or '.join(sorted(until))}")
        return parts

    def _chain(self) -> list[Part]:
        """Commands and tests with && and || between them."""
        parts: list[Part] = []
        tests: list[Test] = []
        gated: list[Part] = []
        self.unmet = False
        operator, decides = "&&", True
        while True:
            test = self._test()
            item = () if test is not None else self._item()
            if operator == "||":
                parts, tests, gated = _otherwise(parts, tests, gated, test, item)
                decides = False
            elif test is not None:
                if gated:
                    raise Refused(f"{test.text} after what depends on another test: {USE_DOCKER}")
                tests.append(test)
            elif tests:
                gated += item
            else:
                parts += item
            token = self._peek()
            if not isinstance(token, Operator) or token.text not in ("&&", "||"):
                break
            operator = token.text
            self._take()
        if tests:
            self.unmet = decides
            parts.append(If(tuple(tests), tuple(gated)))
        return parts

    def _item(self) -> tuple[Part, ...]:
        token = self._peek()
        if isinstance(token, Word) and token.text == "if":
            return (self._if(),)
        words, redirection = self._simple_command()
        name = words[0].text
        if name == "cd" or name == "export" or all(assignment(word.text) for word in words):
            if self._depth:
                raise Refused(f"{name} in a branch of an if: {USE_DOCKER}")
            if name == "cd":
                self._cwd = _cd(words, self._cwd)
            else:
                pairs = (word.text.partition("=") for word in words if assignment(word.text))
                self._env |= {key: value for key, _, value in pairs}
            return ()
        return command(words, redirection, self._cwd, self._env)

    def _if(self) -> If:
        self._take()
        tests = self._condition()
        self._depth += 1
        then = self.read(_BRANCHES)
        word = self._word()
        if word == "elif":
            otherwise: list[Part] = [self._elif()]
        elif word == "else":
            otherwise = self.read(frozenset(("fi",)))
            self._word()
        else:
            otherwise = []
        self._depth -= 1
        self.unmet = False
        return If(tests, tuple(then), tuple(otherwise))

    def _elif(self) -> If:
        # What `fi` ends is the whole chain of them.
        self._next.insert(0, Word("if"))
        return self._if()

    def _condition(self) -> tuple[Test, ...]:
        tests: list[Test] = []
        while True:
            test = self._test()
            if test is None:
                raise Refused(f"an if takes tests such as [ -f file ] here: {USE_DOCKER}")
            tests.append(test)
            token = self._take()
            while isinstance(token, Operator) and token.text in _SEPARATORS:
                token = self._take()
            if isinstance(token, Word) and token.text == "then":
                return tuple(tests)
            if not isinstance(token, Operator) or token.text != "&&":
                raise Refused(f"an if takes tests with && between them, and then, here: {USE_DOCKER}")

    def _test(self) -> Test | None:
        """A test if one comes now."""
        holds = True
        while isinstance(token := self._peek(), Word) and token.text == "!":
            self._take()
            holds = not holds
        if not isinstance(token, Word) or token.text not in ("[", "[[", "test"):
            if not holds:
                raise Refused(f"! takes a test here: {USE_DOCKER}")
            return None
        words, redirection = self._simple_command()
        close = {"[": "]", "[[": "]]"}.get(words[0].text)
        operands = [word.text for word in words[1:]]
        if (close is not None and operands[-1:] != [close]) or redirection:
            raise Refused(f"{words[0].text} is never closed")
        operands = operands[:-1] if close is not None else operands
        while operands[:1] == ["!"]:
            operands, holds = operands[1:], not holds
        match operands:
            case [text]:
                return Test("-n", (text,), self._cwd, holds)
            case [operator, operand] if operator in FILE_TESTS | TEXT_TESTS:
                return Test(operator, (operand,), self._cwd, holds)
            case [left, operator, right] if operator in COMPARISONS:
                return Test(operator, (left, right), self._cwd, holds)
        raise Refused(f"the test {' '.join(operands)} takes a real shell: {USE_DOCKER}")

    def _simple_command(self) -> tuple[list[Word], Redirection]:
        words: list[Word] = []
        redirection: Redirection = None
        while (token := self._peek()) is not None:
            if isinstance(token, Operator) and token.text in ("&&", "||", *_SEPARATORS):
                break
            self._take()
            if isinstance(token, Word):
                words.append(token)
            elif token.text.endswith((">", ">>", ">&")):
                target = self._take()
                if not isinstance(target, Word):
                    raise Refused(f"{token.text} leads nowhere")
                if not token.text.startswith("2") and token.text != ">&" and target.text != "/dev/null":
                    redirection = (target, token.text == ">>")
            else:
                raise Refused(f"the shell's {token.text} takes a real shell: {USE_DOCKER}")
        if not words:
            raise Refused("a command is missing")
        return words, redirection

    def _peek(self) -> Word | Operator | None:
        if not self._next:
            self._next.extend(_one(self._tokens))
        return self._next[0] if self._next else None

    def _take(self) -> Word | Operator | None:
        token = self._peek()
        if token is not None:
            self._next.pop(0)
        return token

    def _word(self) -> str:
        token = self._take()
        return token.text if token is not None else ""


def _otherwise(
    parts: list[Part], tests: list[Test], gated: list[Part], test: Test | None, item: tuple[Part, ...]
) -> tuple[list[Part], list[Test], list[Part]]:
    """What `… || test` or `… || item` makes of what came before."""
    if test is not None:
        raise Refused(f"|| {test.text} takes a real shell: {USE_DOCKER}")
    if len(tests) == 1 and not gated:
        return parts, [replace(tests[0], holds=not tests[0].holds)], list(item)
    if tests:
        return [*parts, If(tuple(tests), tuple(gated), item)], [], []
    # That pip may fail would be remembered with the environment, though the next time it might not.
    commands = tuple(part for part in parts if isinstance(part, FileCommand | Note))
    if item or len(commands) != len(parts):
        raise Refused(f"|| after a command takes a real shell, but for file commands and true: {USE_DOCKER}")
    return [Attempt(commands)], [], []


def _one(tokens: Iterator[Word | Operator]) -> list[Word | Operator]:
    token = next(tokens, None)
    return [] if token is None else [token]


def _cd(words: Sequence[Word], cwd: str) -> str:
    if len(words) != 2:
        raise Refused("cd takes one folder here")
    return posixpath.normpath(posixpath.join(cwd, words[1].text))
