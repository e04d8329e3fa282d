"""`machine check`: what containers are made of, with the evidence."""

from __future__ import annotations

import dataclasses
from contextlib import closing
from typing import TYPE_CHECKING, Annotated

import typer

from machine.cli import context, output
from machine.events import Event, Note

if TYPE_CHECKING:
    from machine.model import Verdict


def check(
    name: context.Name = None,
    explain: Annotated[
        bool, typer.Option("--explain", help="say what each means, and how to look oneself")
    ] = False,
    output_format: context.Output = "text",
) -> None:
    """Start small containers on a machine and show that what they are made of holds: namespaces,
    limits, layers, network. Exit with 1 if something does not. Nothing stays on the machine."""
    from machine.model import Outcome
    from machine.workflows import check as workflow

    as_json = context.is_json(output_format)
    found: list[Verdict] = []
    machine = context.one(name)
    with closing(workflow.check(context.store(), machine, _tell)) as verdicts:
        for verdict in verdicts:
            found.append(verdict)
            if not as_json:
                _show(verdict, explain=explain)
    if as_json:
        output.envelope("check", [dataclasses.asdict(each) for each in found])
    failed = [each.name for each in found if each.outcome is Outcome.FAILED]
    if failed:
        output.say(f"Does not hold on {machine}: {', '.join(failed)}")
        raise typer.Exit(1)


def _tell(event: Event) -> None:
    if isinstance(event, Note) and not event.warning:
        output.say(event.text)
    else:
        output.questions(event)


def _show(verdict: Verdict, *, explain: bool) -> None:
    output.value(f"{verdict.outcome:<14}  {verdict.name}: {verdict.text}")
    for line in verdict.evidence:
        output.value(f"{'':14}    {line}")
    if explain:
        output.value(_indented(verdict.explanation))
        for command in verdict.look:
            output.value(f"{'':14}  $ {command}")
        output.value("")


def _indented(text: str) -> str:
    import textwrap

    margin = " " * 16
    return textwrap.fill(text, 96, initial_indent=margin, subsequent_indent=margin)
