"""The keys of a fleet's file, declared once: what checks it and what describes it goes by them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from machine.model import Setup
from machine.tomlfile import unknown

NAME: Final = re.compile(r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?")
"""A fleet's: it is written into records and names a lock."""
VARIABLE: Final = r"[A-Za-z_][A-Za-z0-9_]*"
REFERENCE: Final = re.compile(rf"\$\$|\$\{{({VARIABLE})\}}")
"""``${variable}``, or ``$$`` for a dollar."""
MOST: Final = 1000
"""Machines that one table may stand for."""


class Kind(StrEnum):
    """What a key's value is, in the words of an error."""

    TEXT = "text"
    NUMBER = "a whole number"
    YES = "true or false"
    TEXTS = "a list of texts"
    PAIRS = "a table of texts"
    TABLE = "a table"


@dataclass(frozen=True, slots=True)
class Key:
    kind: Kind
    help: str
    low: int = 0
    high: int = 0
    choices: tuple[str, ...] = ()

    def problem(self, value: object) -> str:
        """What is wrong with a value of it, or nothing."""
        if not _fits(self.kind, value):
            return f"is {value!r}, and must be {self.kind}"
        if self.choices and value not in self.choices:
            return f"is {value!r}, and must be {' or '.join(self.choices)}"
        if self.kind is Kind.NUMBER and not self.low <= int(str(value)) <= self.high:
            return f"is {value}, and must be between {self.low} and {self.high}"
        return ""


ENGINE: Final[Mapping[str, Key]] = {
    "options": Key(Kind.TEXTS, "dockerd's options, KEY=VALUE"),
    "env": Key(Kind.TEXTS, "variables of the daemon, KEY=VALUE"),
    "insecure_registries": Key(Kind.TEXTS, "registries to use without TLS"),
    "registry_mirrors": Key(Kind.TEXTS, "registry mirrors"),
    "storage_driver": Key(Kind.TEXT, "storage driver"),
    "tls_sans": Key(Kind.TEXTS, "further names or addresses in the engine's certificate"),
}
MACHINE: Final[Mapping[str, Key]] = {
    "driver": Key(Kind.TEXT, "what makes it (machine drivers)"),
    "template": Key(Kind.TEXT, "host template, by name or file (machine template ls)"),
    "count": Key(Kind.NUMBER, "how many of them; their names get numbers", 0, MOST),
    "needs": Key(Kind.TEXTS, "machines, or tables of them, that have to be there before it"),
    "cpus": Key(Kind.NUMBER, "processors, instead of the template's", 1, 255),
    "memory_mib": Key(Kind.NUMBER, "memory, instead of the template's", 256, 4 << 20),
    "disk_gib": Key(Kind.NUMBER, "disk, instead of the template's", 4, 64 << 10),
    "labels": Key(Kind.PAIRS, "labels of the engine"),
    "engine": Key(Kind.TABLE, "options of the engine"),
    "swarm": Key(
        Kind.TEXT,
        "what it is in the fleet's Swarm; without it, membership is left alone",
        choices=("manager", "worker", "none"),
    ),
    "node_labels": Key(Kind.PAIRS, "labels of its node in the Swarm"),
    "push": Key(Kind.TEXTS, "archives of container images that its engine is to have"),
    "setup": Key(
        Kind.TEXT, "what is done to a host that is there already", choices=tuple(map(str, Setup))
    ),
    "open_firewall": Key(Kind.YES, "let the engine's port through such a host's firewall"),
    "context": Key(Kind.YES, "make a docker context of its name"),
    "ssh_config": Key(Kind.YES, "write an entry for your own ssh"),
    "layers": Key(Kind.YES, "begin with what earlier creates have kept"),
    "warm": Key(Kind.YES, "start from saved memory"),
}
DEFAULTS: Final = {key: each for key, each in MACHINE.items() if key not in ("count", "needs")}
TOP: Final[Mapping[str, Key]] = {
    "name": Key(Kind.TEXT, "the fleet's name, which its machines' records keep"),
    "variables": Key(Kind.TABLE, "values for ${name}: --set, MACHINE_VAR_NAME, or the one here"),
    "defaults": Key(Kind.TABLE, "what every machine has that does not say otherwise"),
    "machines": Key(Kind.TABLE, "the machines, a table for each kind"),
}


def problem(key: str, value: object, keys: Mapping[str, Key]) -> str:
    """What is wrong with one key of a table, or nothing."""
    return keys[key].problem(value) if key in keys else unknown(key, keys)


def _fits(kind: Kind, value: object) -> bool:
    match kind:
        case Kind.NUMBER:
            return isinstance(value, int) and not isinstance(value, bool)
        case Kind.YES:
            return isinstance(value, bool)
        case Kind.TEXTS:
            return isinstance(value, list) and all(isinstance(each, str) for each in value)
        case Kind.PAIRS:
            return isinstance(value, dict) and all(isinstance(v, str) for v in value.values())
        case Kind.TABLE:
            return isinstance(value, dict)
        case Kind.TEXT:
            return isinstance(value, str)
