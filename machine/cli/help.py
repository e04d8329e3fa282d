"""`machine help`: docker-machine's other way to ask for --help."""

from __future__ import annotations

from typing import Annotated

import typer

from machine.cli import app


def help_(
    words: Annotated[
        list[str] | None,
        typer.Argument(metavar="[COMMAND]...", autocompletion=lambda: list(app.COMMANDS)),
    ] = None,
) -> None:
    """Print the help of a command."""
    command = typer.main.get_command(app.app)
    command.main([*(words or []), "--help"], prog_name="machine", standalone_mode=False)
