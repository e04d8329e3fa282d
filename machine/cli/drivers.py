"""`machine drivers`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Final

import typer

from machine import registry
from machine.cli import complete, context, output
from machine.errors import MachineError
from machine.model import Can, Source

MADE: Final = {
    Source.IMAGE: "made from an image",
    Source.PROVIDER: "made by its provider",
    Source.HOST: "there before: SSH",
    Source.ENGINE: "there before: an engine",
}
WORDS: Final = {
    Can.POWER: "start, stop",
    Can.KILL: "kill",
    Can.PAUSE: "pause",
    Can.CONSOLE: "console",
    Can.IDENTITY: "built images",
    Can.CLOUD_INIT: "cloud images",
    Can.MEDIA: "bundle as a disk",
    Can.WARM: "create --warm",
    Can.SNAPSHOT: "snapshot",
}


@dataclass(frozen=True, slots=True)
class Shown:
    """One driver as it is listed; of one that cannot be loaded, ``problem`` says why."""

    name: str
    package: str  # distribution and version
    source: str = ""
    can: tuple[str, ...] = ()
    experimental: str = ""
    problem: str = ""

    @property
    def status(self) -> str:
        if self.problem:
            return "broken"
        return "experimental" if self.experimental else "-"


def drivers(
    name: Annotated[
        str, typer.Argument(metavar="[NAME]", show_default=False, autocompletion=complete.drivers)
    ] = "",
    output_format: context.Output = "text",
) -> None:
    """List what machines can be made with, or show one driver."""
    as_json = context.is_json(output_format)
    if name:
        registry.driver(name)  # one that is not there, or is broken, is an error here
        names = [name]
    else:
        names = registry.names("machine.drivers", registry.DRIVERS)
    found = [_shown(each) for each in names]
    if as_json:
        output.envelope("drivers", [output.plain(each) for each in found])
    elif name:
        _print(found[0])
    else:
        rows = [
            (
                each.name,
                each.status,
                each.package,
                _made(each),
                each.problem or _abilities(each) or "-",
            )
            for each in found
        ]
        output.table(("NAME", "STATUS", "FROM", "HOSTS", "CAN"), rows)


def _shown(name: str) -> Shown:
    package = registry.origin("machine.drivers", registry.DRIVERS, name)
    try:
        cls = registry.driver(name)
    except MachineError as exc:
        return Shown(name, package, problem=exc.details or exc.brief)
    can = tuple(str(flag.name).lower().replace("_", "-") for flag in cls.can)
    return Shown(name, package, cls.source, can, cls.experimental)


def _print(shown: Shown) -> None:
    lines = {
        "Name": shown.name,
        "From": shown.package,
        "Hosts": _made(shown),
        "Can": _abilities(shown) or "-",
        "Experimental": shown.experimental or "no",
        "Options": f"machine create -d {shown.name} --help",
    }
    for head, text in lines.items():
        output.value(f"{head + ':':<15}{text}")


def _made(shown: Shown) -> str:
    return MADE[Source(shown.source)] if shown.source else "-"


def _abilities(shown: Shown) -> str:
    flags = (Can[word.upper().replace("-", "_")] for word in shown.can)
    return ", ".join(WORDS.get(flag, str(flag.name).lower()) for flag in flags)
