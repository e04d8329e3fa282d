"""What the commands share: the store, the rule for names, the options that many have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from machine.cli import complete
from machine.errors import MachineError, UsageError
from machine.store import Store

DEFAULT_NAME = "default"

Names = Annotated[
    list[str] | None,
    typer.Argument(metavar="[NAME]...", show_default=False, autocompletion=complete.machines),
]
Name = Annotated[
    list[str] | None,
    typer.Argument(metavar="[NAME]", show_default=False, autocompletion=complete.machine),
]
Swarm = Annotated[bool, typer.Option("--swarm", hidden=True, help="of a swarm master")]
Output = Annotated[
    str, typer.Option("--output", help="text or json", autocompletion=complete.outputs)
]

_storage: list[Path] = []


def use_storage(path: str | None) -> None:
    """The global option --storage-path; called once, before any command."""
    _storage[:] = [Path(path).expanduser()] if path else []


def store() -> Store:
    return Store(_storage[0] if _storage else None)


def one(names: list[str] | None) -> str:
    """The named machine, or the one called "default" if it exists (docker-machine's rule)."""
    if names and len(names) > 1:
        raise MachineError("Error: Expected one machine name as an argument")
    if names:
        return names[0]
    if not store().exists(DEFAULT_NAME):
        raise MachineError(
            'Error: No machine name(s) specified and no "default" machine exists',
            hint="machine ls shows the machines there are",
        )
    return DEFAULT_NAME


def several(names: list[str] | None) -> list[str]:
    """Every name once, each of an existing machine: if one is not there, nothing is done."""
    wanted = list(dict.fromkeys(names or [one(None)]))
    for name in wanted:
        store().load(name)
    return wanted


def refuse_swarm(names: list[str] | None) -> None:
    """docker-machine's --swarm: the standalone Swarm that it made is gone."""
    raise MachineError(
        f'"{one(names)}" is not a swarm master',
        hint="Standalone Swarm is gone; Swarm mode is part of the engine: docker swarm init",
    )


def is_json(word: str) -> bool:
    if word not in ("text", "json"):
        raise UsageError(f"--output is {word!r}, and must be text or json")
    return word == "json"
