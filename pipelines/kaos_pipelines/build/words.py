"""Splits Dockerfile and shell text into words: quotes, escapes and variables, but nothing that runs. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from kaos_pipelines.build.errors import Refused

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
BRACED = re.compile(r"\{([A-Za-z_][A-Za-z0-9_]*)(?:(:?[-+])((?:[^{}]|\$\{[^{}]*\})*))?\}")
OPERATORS = ("&&", "||", ">>", ">&", ";", "|", "&", "(", ")", "<", ">", "\n")
GLOB = "*?["


@dataclass(frozen=True, slots=True)
class Word:
    """`glob` is the word as a pattern (quoted wildcards made literal), None when it has no wildcards."""

    text: str
    glob: str | None = None


@dataclass(frozen=True, slots=True)
class Operator:
    text: str


def expand(text: str, env: Mapping[str, str]) -> str:
    """Dockerfile substitution in text that is not split into words (WORKDIR, FROM); quotes are removed."""
    return " ".join(word.text for word in split(text, env))


def split(text: str, env: Mapping[str, str]) -> list[Word]:
    """Words of a Dockerfile instruction: variables are substituted and stay one word. Raises Refused."""
    return [token for token in _Lexer(text, env, split_variables=False).tokens() if isinstance(token, Word)]


def shell(text: str, env: Mapping[str, str]) -> Iterator[Word | Operator]:
    """Tokens of a shell command line; unquoted variables are split at blanks. Raises Refused for what would
    run other commands (`$(…)`, backticks) and for unbalanced quotes.

    Lazy: `env` may change between tokens, so that a command sees what the one before it exported.
    """
    return _Lexer(text, env, split_variables=True).tokens()


class _Lexer:
    def __init__(self, text: str, env: Mapping[str, str], *, split_variables: bool) -> None:
        self._text, self._env, self._shell = text, env, split_variables
        self._at = 0
        self._tokens: list[Word | Operator] = []
        self._word: list[tuple[str, bool]] | None = None  # (characters, quoted)

    def tokens(self) -> Iterator[Word | Operator]:
        text = self._text
        while self._at < len(text):
            char = text[self._at]
            if char in " \t" or (char == "\n" and not self._shell):
                self._end()
                self._at += 1
            elif char == "'":
                close = text.find("'", self._at + 1)
                if close < 0:
                    raise Refused("a ' is never closed")
                self._add(text[self._at + 1 : close], True)
                self._at = close + 1
            elif char == '"':
                self._double_quoted()
            elif char == "\\":
                self._add(text[self._at + 1 : self._at + 2] or "\\", True)
                self._at += 2
            elif char in "$`":
                self._substitution(quoted=False)
            elif self._shell and char == "#" and self._word is None:
                newline = text.find("\n", self._at)
                self._at = len(text) if newline < 0 else newline
            elif self._shell and (operator := self._operator()):
                stream = self._stream(operator)
                self._end()
                self._tokens.append(Operator(stream + operator))
                self._at += len(operator)
            elif self._shell and self._word is None and re.match(r"~(/|\s|$)", text[self._at :]):
                self._add(self._env.get("HOME", "/root"), True)
                self._at += 1
            else:
                self._add(char, False)
                self._at += 1
            yield from self._tokens
            self._tokens.clear()
        self._end()
        yield from self._tokens

    def _operator(self) -> str:
        return next((op for op in OPERATORS if self._text.startswith(op, self._at)), "")

    def _stream(self, operator: str) -> str:
        """The "2" of `2>file` and `2>&1`, which belongs to the operator; "1" is the default anyway."""
        if operator[0] == ">" and self._word in ([("1", False)], [("2", False)]):
            number, self._word = self._word[0][0], None
            return number.replace("1", "")
        return ""

    def _double_quoted(self) -> None:
        self._add("", True)
        self._at += 1
        while self._at < len(self._text):
            char = self._text[self._at]
            if char == '"':
                self._at += 1
                return
            if char == "\\" and self._text[self._at + 1 : self._at + 2] in ('"', "\\", "$", "`"):
                self._add(self._text[self._at + 1], True)
                self._at += 2
            elif char in "$`":
                self._substitution(quoted=True)
            else:
                self._add(char, True)
                self._at += 1
        raise Refused('a " is never closed')

    def _substitution(self, *, quoted: bool) -> None:
        rest = self._text[self._at :]
        if self._shell and (rest.startswith(("$(", "`"))):
            raise Refused("it runs other commands inside, with $(…) or backticks")
        if rest.startswith("`"):
            self._add("`", quoted)
            self._at += 1
            return
        braced = BRACED.match(rest, 1)
        plain = NAME.match(rest, 1)
        if braced:
            value = self._value(braced)
            self._at += braced.end()
        elif plain:
            value = self._env.get(plain.group(), "")
            self._at += plain.end()
        elif rest.startswith("${"):
            what = rest.split("}")[0] + "}"
            raise Refused(f"{what} is more than ${{name}}, ${{name:-default}} or ${{name:+other}}")
        else:
            self._add("$", quoted)
            self._at += 1
            return
        if quoted or not self._shell:
            self._add(value, quoted)
            return
        if value[:1].isspace():
            self._end()
        for number, piece in enumerate(value.split()):
            if number:
                self._end()
            self._add(piece, False)
        if value[-1:].isspace():
            self._end()

    def _value(self, match: re.Match[str]) -> str:
        name, operator, word = match.groups()
        value = self._env.get(name)
        present = bool(value) if operator and operator[0] == ":" else value is not None
        if operator is None:
            return value or ""
        other = expand(word, self._env)
        if operator[-1] == "-":
            return (value or "") if present else other
        return other if present else ""

    def _add(self, text: str, quoted: bool) -> None:
        if self._word is None:
            self._word = []
        if text or quoted:
            self._word.append((text, quoted))

    def _end(self) -> None:
        if self._word is None:
            return
        text = "".join(part for part, _ in self._word)
        wild = any(not quoted and any(c in GLOB for c in part) for part, quoted in self._word)
        glob = "".join(re.sub(r"([*?[])", r"[\1]", part) if quoted else part for part, quoted in self._word)
        if self._word:
            self._tokens.append(Word(text, glob if wild else None))
        self._word = None
