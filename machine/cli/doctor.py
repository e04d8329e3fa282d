"""`machine doctor`: what is wrong with this computer or the store, and what to type."""

from __future__ import annotations

import dataclasses
from typing import Annotated

import typer

from machine import registry
from machine.cli import complete, context, output
from machine.driver import Finding
from machine.errors import MachineError


def doctor(
    fix: Annotated[bool, typer.Option("--fix", help="mend what is safe to mend")] = False,
    driver: Annotated[
        str, typer.Option(help="look at this driver only", autocompletion=complete.drivers)
    ] = "",
    output_format: context.Output = "text",
) -> None:
    """Check this computer and the store; exit with 1 if something is in the way."""
    found = [*_store(), *_drivers([driver] if driver else list(registry.DRIVERS), fix=fix)]
    if context.is_json(output_format):
        output.envelope("findings", [dataclasses.asdict(each) for each in found])
    else:
        for each in found:
            output.value(f"{each.level:<8} {each.subject}: {each.text}")
            if each.remedy:
                output.value(f"         type: {each.remedy}")
    if any(each.level == "error" for each in found):
        raise typer.Exit(1)


def _store() -> list[Finding]:
    store = context.store()
    found = []
    for name in store.names():
        try:
            record = store.load(name)
        except MachineError as exc:
            found.append(Finding("error", f"machine {name}", exc.brief, exc.hint))
            continue
        if record.block is not None and not record.block.journal.finished:
            found.append(
                Finding(
                    "warning",
                    f"machine {name}",
                    f'its create has not ended (step "{record.block.journal.step}")',
                    f"machine create --resume {name}   or   machine rm {name}",
                )
            )
    return found or [Finding("ok", "store", f"{store.root}: {len(store.names())} machines")]


def _drivers(names: list[str], *, fix: bool) -> list[Finding]:
    store = context.store()
    ids = set()
    for name in store.names():
        try:
            record = store.load(name)
        except MachineError:
            continue
        if record.block is not None:
            ids.add(record.block.id)
    return [
        finding
        for name in names
        for finding in registry.driver(name).findings(frozenset(ids), fix=fix)
    ]
