"""Secrets that a create is given: the record keeps where they are, never what they are."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from machine import flags
from machine.events import Reporter
from machine.paths import MachineFolder
from machine.redaction import remember
from machine.store import write

_BETTER: Final = (
    "better is to say where it is: env:NAME, file:PATH, command:WORDS or keyring:SERVICE/USER"
)


def references(
    options: list[flags.Option], given: Mapping[str, Any], table: Mapping[str, Any]
) -> dict[str, Any]:
    """``given`` with a reference in place of each secret: what was given itself will be in a file of
    the machine's folder (``keep``). Those that are in variables are left to ``flags.build``."""
    found = dict(given)
    for option in options:
        value = _value(option, given, table)
        if flags.is_reference(value):
            found[option.key] = flags.within(value, Path.cwd())
        elif value and not _variable(option, given):
            found[option.key] = f"file:{MachineFolder(Path()).secret(option.key)}"
    return found


def keep(
    options: list[flags.Option],
    given: Mapping[str, Any],
    table: Mapping[str, Any],
    folder: MachineFolder,
    report: Reporter,
) -> None:
    """Write what was given itself where ``references`` says that it is. Raises StoreError."""
    for option in options:
        value = _value(option, given, table)
        if value and not flags.is_reference(value) and not _variable(option, given):
            path = folder.secret(option.key)
            write(path, remember(value).encode())
            report.warn(f"The value of {option.flag} is kept in {path}; {_BETTER}")


def notice(options: list[flags.Option], given: Mapping[str, Any]) -> None:
    """Redact what was given itself from now on, whatever comes of it."""
    for option in options:
        value = _value(option, given, {})
        if value and not flags.is_reference(value):
            remember(value)


def _value(option: flags.Option, given: Mapping[str, Any], table: Mapping[str, Any]) -> str:
    """As ``flags.build`` finds it; "" for one that is not there, or no secret."""
    if not option.secret:
        return ""
    if variable := _variable(option, given):
        return os.environ[variable]
    value = given.get(option.key, table.get(option.key))
    return value if isinstance(value, str) else ""


def _variable(option: flags.Option, given: Mapping[str, Any]) -> str:
    return "" if option.key in given else option.variable
