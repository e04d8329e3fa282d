"""`machine doctor`: what is wrong with this computer or the store, and what to type."""

from __future__ import annotations

import dataclasses
from typing import Annotated

import typer

from machine import registry
from machine.cli import complete, context, output


def doctor(
    fix: Annotated[bool, typer.Option("--fix", help="mend what is safe to mend")] = False,
    driver: Annotated[
        str, typer.Option(help="look at this driver only", autocompletion=complete.drivers)
    ] = "",
    output_format: context.Output = "text",
) -> None:
    """Check this computer and the store; exit with 1 if something is in the way."""
    from machine.workflows.doctor import examine

    as_json = context.is_json(output_format)
    found = examine(context.store(), [driver] if driver else list(registry.DRIVERS), fix=fix)
    if as_json:
        output.envelope("findings", [dataclasses.asdict(each) for each in found])
    else:
        for each in found:
            output.value(f"{each.level:<8} {each.subject}: {each.text}")
            if each.remedy:
                output.value(f"         type: {each.remedy}")
    if any(each.level == "error" for each in found):
        raise typer.Exit(1)
