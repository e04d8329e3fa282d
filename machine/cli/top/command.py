"""`machine top`: the command, and the table of `--once`; the screen is imported when it is wanted."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Annotated, Final

import typer

from machine.cli import context, output
from machine.errors import PreflightError, UsageError

if TYPE_CHECKING:
    from machine.workflows.watch import Watch

ONCE: Final = 10.0
"""Seconds for the answers of engines and hosts, as with `ls`."""


def top(
    once: Annotated[bool, typer.Option("--once", help="print a table, and end")] = False,
    interval: Annotated[
        float, typer.Option("--interval", "-i", min=0.5, help="seconds between two looks")
    ] = 3,
    inside: Annotated[
        bool,
        typer.Option(
            "--inside", help="log in to every machine, and show what it says itself is in use"
        ),
    ] = False,
    words: Annotated[
        str, typer.Option("--filter", metavar="WORDS", help="only machines with these words")
    ] = "",
    output_format: context.Output = "text",
) -> None:
    """Watch all machines on one screen. Nothing is changed unless a key asks for it."""
    from machine.workflows.watch import Watch

    as_json = context.is_json(output_format)
    watch = Watch(context.store(), everywhere=inside)
    if once or as_json:
        watch.patience = ONCE
        _print(watch, words, as_json=as_json)
        return
    _check_terminal()
    try:
        from machine.cli.top.screen import Top
    except ModuleNotFoundError as exc:
        if (exc.name or "").split(".")[0] != "textual":
            raise
        raise PreflightError(
            "machine top needs the Python package textual",
            hint="pip install 'machine-vm[tui]'\n"
            "machine top --once prints the same as a table, without it",
        ) from exc
    screen = Top(watch, interval=interval, words=words)
    screen.run()
    if screen.failure:
        raise screen.failure


def _print(watch: Watch, words: str, *, as_json: bool) -> None:
    """The share of a processor is that of one second, where anybody tells it."""
    from machine import wait
    from machine.cli.top import table
    from machine.workflows.survey import natural

    names = natural(watch.store.names())
    seen = watch.look(names)
    if watch.has_samples:
        wait.pause(1)
        seen = watch.look(names)
    shown = [each for each in seen if table.matches(each, words)]
    if as_json:
        output.envelope("watched", [table.data(each) for each in shown])
        return
    output.table(table.FULL, table.rows(shown))


def _check_terminal() -> None:
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise UsageError("machine top needs a terminal", hint="machine top --once prints a table")
    if os.environ.get("TERM", "dumb") in ("dumb", "unknown"):
        raise UsageError(
            "machine top cannot move on this terminal (TERM is dumb or not set)",
            hint="machine top --once prints a table",
        )
