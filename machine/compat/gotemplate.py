"""The part of Go's text/template that docker-machine's ``--format`` is used with.

Field paths, variables, pipelines, parentheses, ``if``, ``with``, ``range``, trimmed blanks, and the
functions below; values print as Go's fmt prints them (https://pkg.go.dev/text/template). Left out
are ``define``, ``template``, ``block``, ``break``, ``continue`` and assignment to an outer variable.
"""

from __future__ import annotations

import inspect
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final

from machine.compat.govalues import FUNCTIONS, text
from machine.errors import UsageError

_TOKEN: Final = re.compile(
    r"""(?P<space>\s+)
    |(?P<close>(?:(?<=\s)-)?\}\})
    |(?P<text>"(?:\\.|[^"\\\n])*"|`[^`]*`)
    |(?P<number>-?\d+(?:\.\d+)?)
    |(?P<path>(?:\$\w*)?(?:\.\w+)+|\$\w*|\.)
    |(?P<word>[A-Za-z_]\w*)
    |(?P<sign>:=|[|(),])""",
    re.VERBOSE,
)
_OPEN: Final = re.compile(r"\{\{(?:-(?=\s))?")
_COMMENT: Final = re.compile(r"\s*/\*.*?\*/\s*?(?P<trim>(?:(?<=\s)-)?)\}\}", re.DOTALL)


class Struct(dict[str, Any]):
    """Data whose unknown field is an error, as it is in a Go struct; a plain mapping's is not."""


class Template:
    """A template that was read once and is filled in often."""

    def __init__(self, text: str) -> None:
        """Raises UsageError with the position of what cannot be read."""
        self._nodes = _Parser(text).all()

    def render(self, data: Any) -> str:
        """Raises UsageError for what the data does not allow."""
        out: list[str] = []
        _run(self._nodes, _Scope(data, {"$": data}), out)
        return "".join(out)


@dataclass(frozen=True, slots=True)
class _Scope:
    dot: Any
    variables: dict[str, Any]


@dataclass(frozen=True, slots=True)
class _Token:
    kind: str
    text: str
    at: int


_Value = Callable[[_Scope], Any]
_Node = Callable[[_Scope, list[str]], None]


def _run(nodes: Sequence[_Node], scope: _Scope, out: list[str]) -> None:
    for node in nodes:
        node(scope, out)


def _write(literal: str, scope: _Scope, out: list[str]) -> None:
    out.append(literal)


def _print(value: _Value, scope: _Scope, out: list[str]) -> None:
    out.append(text(value(scope)))


def _declare(name: str, value: _Value, scope: _Scope, out: list[str]) -> None:
    scope.variables[name] = value(scope)


@dataclass(frozen=True, slots=True)
class _Branch:
    """An if, with or range: its body is run for every turn, and the rest if there is none."""

    kind: _Token
    names: Sequence[str]
    value: _Value
    body: Sequence[_Node]
    otherwise: Sequence[_Node]

    def __call__(self, scope: _Scope, out: list[str]) -> None:
        turns = self._turns(self.value(scope))
        for key, each in turns:
            values = (key, each) if len(self.names) == 2 else (each,)
            bound = dict(zip(self.names, values, strict=False))
            dot = scope.dot if self.kind.text == "if" else each
            _run(self.body, _Scope(dot, {**scope.variables, **bound}), out)
        if not turns:
            _run(self.otherwise, _Scope(scope.dot, dict(scope.variables)), out)

    def _turns(self, found: Any) -> list[tuple[Any, Any]]:
        if self.kind.text != "range":
            return [(found, found)] if found else []
        if isinstance(found, Mapping):
            return sorted(found.items())
        if isinstance(found, list | tuple | None):
            return list(enumerate(found or ()))
        raise _wrong(self.kind.at, f"range is not possible over {text(found)}")


def _wrong(at: int, what: str) -> UsageError:
    return UsageError(
        f"--format, at character {at + 1}: {what}", hint="For example: {{.Driver.IPAddress}}"
    )


def _pieces(text: str) -> Iterator[str | list[_Token]]:
    """Literal text, and the tokens of each action; blanks are trimmed where a dash asks for it."""
    at, trim = 0, False
    while opened := _OPEN.search(text, at):
        literal = text[at : opened.start()]
        literal = literal.lstrip() if trim else literal
        yield literal.rstrip() if opened[0].endswith("-") else literal
        if comment := _COMMENT.match(text, opened.end()):
            at, trim = comment.end(), bool(comment["trim"])
            continue
        tokens = []
        at = opened.end()
        while (token := _TOKEN.match(text, at)) and token.lastgroup != "close":
            if token.lastgroup != "space":
                tokens.append(_Token(str(token.lastgroup), token[0], at))
            at = token.end()
        if token is None:
            raise _wrong(at, "the action is not closed" if at == len(text) else "not understood")
        at, trim = token.end(), token[0].startswith("-")
        yield tokens or [_Token("close", "", opened.start())]
    yield text[at:].lstrip() if trim else text[at:]


class _Parser:
    """Turns the pieces into functions that write into a list."""

    def __init__(self, text: str) -> None:
        self._pieces = _pieces(text)
        self._end = len(text)
        self._tokens: list[_Token] = []  # what is left of the action at work

    def all(self) -> list[_Node]:
        nodes, stop = self._block()
        if stop is not None:
            raise _wrong(stop.at, f"{stop.text} belongs to no if, with or range")
        return nodes

    def _block(self) -> tuple[list[_Node], _Token | None]:
        """Up to the next else or end of this block, or to the end of the template."""
        nodes: list[_Node] = []
        for piece in self._pieces:
            if isinstance(piece, str):
                nodes.append(partial(_write, piece))
                continue
            self._tokens = piece[::-1]
            first = piece[0]
            if first.text in ("else", "end"):
                self._tokens.pop()
                return nodes, first
            if first.text in ("if", "with", "range"):
                nodes.append(self._branch(self._tokens.pop()))
            else:
                nodes.append(self._output())
        return nodes, None

    def _branch(self, kind: _Token) -> _Node:
        names = self._declared()
        value = self._pipeline()
        self._finished()
        body, stop = self._block()
        otherwise: list[_Node] = []
        if stop is not None and stop.text == "else":
            if self._tokens:  # {{else if}}: its end is ours, too
                return _Branch(kind, names, value, body, [self._else()])
            otherwise, stop = self._block()
        if stop is None or stop.text != "end":
            raise _wrong(kind.at, f"{kind.text} has no end")
        self._finished()
        return _Branch(kind, names, value, body, otherwise)

    def _else(self) -> _Node:
        kind = self._tokens.pop()
        if kind.text not in ("if", "with"):
            raise _wrong(kind.at, f"{kind.text} cannot follow else")
        return self._branch(kind)

    def _output(self) -> _Node:
        names = self._declared()
        value = self._pipeline()
        self._finished()
        if len(names) > 1:
            raise _wrong(self._end, "only range declares two variables")
        return partial(_declare, names[0], value) if names else partial(_print, value)

    def _declared(self) -> list[str]:
        """``$key, $value :=`` in front of a pipeline."""
        words = [token.text for token in self._tokens[::-1]]
        names = words[: words.index(":=") : 2] if ":=" in words[:4] else []
        if not all(name.startswith("$") for name in names):
            raise _wrong(self._tokens[-1].at, f"{names[0]} is no variable")
        del self._tokens[len(self._tokens) - 2 * len(names) :]
        return names

    def _pipeline(self) -> _Value:
        value = self._command(None)
        while self._tokens and self._tokens[-1].text == "|":
            self._tokens.pop()
            value = self._command(value)
        return value

    def _command(self, piped: _Value | None) -> _Value:
        """A value, or a function with its arguments; what comes through a pipe is the last one."""
        if not self._tokens:
            raise _wrong(self._end, "a value is missing")
        head = self._tokens[-1]
        arguments: list[_Value] = []
        if head.kind == "word" and head.text not in _LITERALS:
            self._tokens.pop()
            if head.text not in FUNCTIONS:
                raise _wrong(head.at, f"there is no function {head.text}")
            while self._tokens and self._tokens[-1].text not in ("|", ")", ","):
                arguments.append(self._operand())
            given = [*arguments, *([piped] if piped else [])]
            try:
                inspect.signature(FUNCTIONS[head.text]).bind(*given)
            except TypeError:
                raise _wrong(head.at, f"{head.text} is given {len(given)} values") from None
            return partial(_call, head, given)
        value = self._operand()
        if piped or (self._tokens and self._tokens[-1].text not in ("|", ")")):
            raise _wrong(head.at, f"{head.text} is no function")
        return value

    def _operand(self) -> _Value:
        token = self._tokens.pop()
        if token.text == "(":
            value = self._pipeline()
            if not self._tokens:
                raise _wrong(token.at, "the parenthesis is not closed")
            close = self._tokens.pop()
            if self._tokens and self._tokens[-1].at == close.at + 1:
                path = self._tokens.pop()
                return partial(_follow, value, path.text.split(".")[1:], path.at)
            return value
        if token.kind == "path":
            start, *names = token.text.split(".")
            names = [name for name in names if name]
            return partial(_follow, partial(_start, start, token.at), names, token.at)
        return _literal(token)

    def _finished(self) -> None:
        if self._tokens:
            token = self._tokens[-1]
            raise _wrong(token.at, f"{token.text} is not expected here")


_LITERALS: Final = {"true": True, "false": False, "nil": None}


def _literal(token: _Token) -> _Value:
    value: Any
    if token.kind == "number":
        value = float(token.text) if "." in token.text else int(token.text)
    elif token.text.startswith("`"):
        value = token.text[1:-1]
    elif token.text.startswith('"'):
        try:
            value = json.loads(token.text)
        except ValueError:
            raise _wrong(token.at, f"{token.text} cannot be read") from None
    elif token.text in _LITERALS:
        value = _LITERALS[token.text]
    else:
        raise _wrong(token.at, f"{token.text or 'nothing'} is no value")
    return lambda scope: value


def _start(name: str, at: int, scope: _Scope) -> Any:
    if not name:
        return scope.dot
    if name not in scope.variables:
        raise _wrong(at, f"there is no variable {name}")
    return scope.variables[name]


def _follow(start: _Value, names: Sequence[str], at: int, scope: _Scope) -> Any:
    value = start(scope)
    for name in names:
        if isinstance(value, Struct) and name not in value:
            raise _wrong(at, f"there is no field {name}; there are {', '.join(value)}")
        if value is None:
            return None
        if not isinstance(value, Mapping):
            raise _wrong(at, f"{text(value)} has no field {name}")
        value = value.get(name)
    return value


def _call(function: _Token, arguments: Sequence[_Value], scope: _Scope) -> Any:
    try:
        return FUNCTIONS[function.text](*(argument(scope) for argument in arguments))
    except UsageError:
        raise
    except (TypeError, ValueError, LookupError) as exc:
        raise _wrong(function.at, f"{function.text} is not possible: {exc}") from None
