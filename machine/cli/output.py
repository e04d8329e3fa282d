"""The only place that prints: values on standard output, everything else on standard error."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from machine.errors import DriverNotFound, HostExists, HostNotFound, MachineError, Several
from machine.events import Event, Note, Question
from machine.redaction import redact

SCHEMA = 1
"""Of the JSON envelope; raised when a key changes its meaning."""
BARE: Final = (HostNotFound, HostExists, DriverNotFound)
"""docker-machine puts no "Error:" before these, and scripts compare the line."""


def value(text: str) -> None:
    """What was asked for, alone on its line."""
    print(text, flush=True)


def raw(text: str) -> None:
    print(text, end="", flush=True)


def say(text: str) -> None:
    print(redact(text), file=sys.stderr, flush=True)


def ask(question: str) -> None:
    """A prompt; the answer is typed on the same line."""
    print(f"{question} (y/n): ", end="", file=sys.stderr, flush=True)


def question(asked: Question, label: str = "") -> None:
    """Put it to the user, if there is one at a terminal. Ctrl-D is no answer."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return
    try:
        if asked.hidden:
            from getpass import getpass

            asked.answer = getpass(f"{label}{asked.text}: ", stream=sys.stderr)
        else:
            print(f"{label}{asked.text}: ", end="", file=sys.stderr, flush=True)
            asked.answer = input()
    except EOFError:
        say("")


def questions(event: Event) -> None:
    """The sink of commands that show no progress: what the user has to be asked, and warnings."""
    match event:
        case Question():
            question(event)
        case Note(_, text, True):
            say(f"Warning: {text}")


def plain(thing: Any) -> dict[str, Any]:
    """A dataclass's fields as JSON takes them."""
    data = dataclasses.asdict(thing)
    return {key: str(value) if isinstance(value, Path) else value for key, value in data.items()}


def envelope(kind: str, data: Any) -> None:
    print(json.dumps({"schema": SCHEMA, "kind": kind, "data": data}, indent=2), flush=True)


def json_line(kind: str, data: Any) -> None:
    """With its end in one piece: machines that are worked on together have threads."""
    line = redact(json.dumps({"schema": SCHEMA, "kind": kind, "data": data}))
    print(f"{line}\n", end="", flush=True)


def error(exc: MachineError, *, as_json: bool = False, machines: Sequence[str] = ()) -> None:
    """``machines`` are those that have the error, where several were worked on; one that the line
    names already is not put before it."""
    if isinstance(exc, Several):
        for names, each in exc.by_machines():
            error(each, as_json=as_json, machines=names)
        return
    if as_json:
        shown = {"kind": exc.kind, "brief": exc.brief, "details": exc.details, "hint": exc.hint}
        named = {"machines": machines} if machines else {}
        json_line("error", {**shown, "exit_code": exc.exit_code, **named})
        return
    bare = isinstance(exc, BARE) or exc.brief.startswith("Error")
    told = all(f'"{name}"' in exc.brief for name in machines)
    before = "" if told else f"{', '.join(machines)}: "
    say(before + (exc.brief if bare else f"Error: {exc.brief}"))
    for part in (exc.details, exc.hint):
        for line in part.strip().splitlines():
            say(f"  {line}")


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Columns as docker-machine sets them: three blanks apart, and with those at least five wide;
    the last cell of a line is not filled up."""
    lines = [heads, *rows]
    widths = [5] * max(map(len, lines))
    for line in lines:
        for at, cell in enumerate(line[:-1]):
            widths[at] = max(widths[at], len(cell) + 3)
    value("\n".join("".join([*map(str.ljust, line[:-1], widths), *line[-1:]]) for line in lines))
