"""What the commands share: the store, the rule for names, the options that many have."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from machine.cli import complete
from machine.errors import MachineError, UsageError, gathered
from machine.store import Store

if TYPE_CHECKING:
    from machine.host import Host

DEFAULT_NAME = "default"
MOST: Final = 1000
"""Names that one word may stand for."""
_SPAN: Final = re.compile(r"\{([0-9]{1,9})\.\.([0-9]{1,9})\}")

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

Parallel = Annotated[
    int | None,
    typer.Option(
        "--parallel",
        min=1,
        metavar="N",
        envvar="MACHINE_PARALLEL",
        show_default=False,
        help="machines worked on at a time; default: the processors",
    ),
]
ParallelWaits = Annotated[
    int,
    typer.Option(
        "--parallel",
        min=1,
        metavar="N",
        envvar="MACHINE_PARALLEL",
        help="machines worked on at a time",
    ),
]
WAITS: Final = 16
"""Of machines that are only waited for: work that costs this computer little."""

_storage: list[Path] = []


def use_storage(path: str | None) -> None:
    """The global option --storage-path; called once, before any command."""
    _storage[:] = [Path(path).expanduser()] if path else []


def store() -> Store:
    return Store(_storage[0] if _storage else None)


def host(name: str) -> Host:
    """A machine of the store, for a command that shows no progress; its user may be asked."""
    from machine.cli import output
    from machine.events import Reporter
    from machine.host import Host

    return Host.load(store(), name, Reporter(output.questions, name))


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
    wanted = list(dict.fromkeys(expanded(names or [one(None)])))
    errors: dict[str, MachineError] = {}
    for name in wanted:
        try:
            store().load(name)
        except MachineError as exc:
            errors[name] = exc
    if errors:
        raise gathered(errors)
    return wanted


def expanded(names: Sequence[str]) -> list[str]:
    """worker{1..3} as bash has it, for a shell that leaves it as it is. Raises UsageError for more
    than MOST names."""
    found: list[str] = []
    for name in names:
        span = _SPAN.search(name)
        if span is None:
            found.append(name)
            continue
        first, last = int(span[1]), int(span[2])
        if abs(last - first) >= MOST:
            raise UsageError(f"{span[0]} in {name!r} is more than {MOST} names")
        padded = any(len(end) > 1 and end[0] == "0" for end in span.groups())
        width = max(map(len, span.groups())) if padded else 0
        numbers = range(first, last + 1) if first <= last else range(first, last - 1, -1)
        found += expanded(
            [f"{name[: span.start()]}{each:0{width}}{name[span.end() :]}" for each in numbers]
        )
    return found


def pairs(flag: str, words: Sequence[str] | None) -> dict[str, str]:
    """Of an option that is repeated, KEY=VALUE each. Raises UsageError."""
    found: dict[str, str] = {}
    for word in words or ():
        key, sign, value = word.partition("=")
        if not key or not sign:
            raise UsageError(f"{flag} is {word!r}, and must be KEY=VALUE")
        found[key] = value
    return found


def refuse_swarm(names: list[str] | None) -> None:
    """docker-machine's --swarm: the standalone Swarm that it made is gone."""
    raise MachineError(
        f'"{one(names)}" is not a swarm master',
        hint="Standalone Swarm is gone; Swarm mode is part of the engine: machine swarm init",
    )


def is_json(word: str) -> bool:
    if word not in ("text", "json"):
        raise UsageError(f"--output is {word!r}, and must be text or json")
    return word == "json"
