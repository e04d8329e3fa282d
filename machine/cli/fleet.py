"""`machine plan`, `apply`, `destroy` and `drift`: one file for many machines."""

from __future__ import annotations

import dataclasses
import sys
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from machine import registry
from machine.cli import complete, context, output, progress
from machine.errors import FleetError
from machine.model import Source

if TYPE_CHECKING:
    from machine.fleet import Fleet
    from machine.workflows.drift import Drift
    from machine.workflows.fleet import Draft

DEFAULT: Final = "machines.toml"
CHANGES: Final = 2
"""The exit code of --exit-code where there are any."""
ROUNDS: Final = 3
"""Plans of one apply: what is off now may have to be changed once it is up and can be asked."""

File = Annotated[
    Path,
    typer.Option("--file", "-f", help="the fleet's file", autocompletion=complete.files),
]
Set = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="a value for one of the file's variables"),
]
Only = Annotated[
    list[str] | None,
    typer.Option("--only", metavar="NAME", help="this machine, or all of this table; repeat it"),
]
Yes = Annotated[bool, typer.Option("--yes", "-y", help="do not ask")]
ExitCode = Annotated[
    bool, typer.Option("--exit-code", help=f"exit with {CHANGES} if there is a difference")
]
Adopt = Annotated[
    bool, typer.Option("--adopt", help="take machines of these names in that were made by hand")
]


def plan(
    file: File = Path(DEFAULT),
    sets: Set = None,
    only: Only = None,
    adopt: Adopt = False,
    exit_code: ExitCode = False,
    schema: Annotated[
        bool, typer.Option("--schema", help="print the JSON Schema of the file, for editors")
    ] = False,
    output_format: context.Output = "text",
) -> None:
    """Print what `machine apply` would do; nothing is changed."""
    if schema:
        return _schema()
    from machine.workflows import fleet as workflow

    as_json = context.is_json(output_format)
    draft = workflow.plan(context.store(), _read(file, sets), only=only or (), adopt=adopt)
    _notes(draft)
    if as_json:
        output.envelope("plan", _as_json(draft))
    else:
        output.value(_text(draft, colour=_has_colour(sys.stdout)))
    if exit_code and draft.plan.steps:
        raise typer.Exit(CHANGES)
    return None


def apply(
    file: File = Path(DEFAULT),
    sets: Set = None,
    only: Only = None,
    adopt: Adopt = False,
    yes: Yes = False,
    overcommit: Annotated[
        bool, typer.Option("--overcommit", help="make them even if memory is short for all of them")
    ] = False,
    parallel: context.Parallel = None,
    output_format: context.Output = "text",
) -> None:
    """Make, change and remove machines until they are as the file says; run again, it goes on."""
    from machine.workflows import fleet as workflow
    from machine.workflows import fleet_steps

    as_json = context.is_json(output_format)
    store, fleet = context.store(), _read(file, sets)
    with workflow.held(store, fleet):
        for _ in range(ROUNDS):
            draft = workflow.plan(store, fleet, only=only or (), adopt=adopt)
            _notes(draft)
            if not draft.plan.steps:
                break
            if not _agreed(draft, yes=yes, as_json=as_json):
                return
            if not overcommit:
                fleet_steps.check_room(store, draft)
            _carry_out(draft, f"machine apply -f {file}", parallel, as_json=as_json)
            if not draft.unsure:
                break
    of_what = f"{', '.join(only)} of {fleet.name}" if only else fleet.name
    sure = ", as far as could be asked" if draft.notes else ""
    output.say(f"{of_what}: as {file} says{sure}")


def destroy(
    file: File = Path(DEFAULT),
    sets: Set = None,
    only: Only = None,
    undo: Annotated[
        bool, typer.Option("--undo", help="put hosts that were there before back as they were")
    ] = False,
    yes: Yes = False,
    parallel: context.ParallelWaits = context.WAITS,
    output_format: context.Output = "text",
) -> None:
    """Remove every machine of the fleet, also those that its file has no more."""
    from machine.workflows import fleet as workflow

    as_json = context.is_json(output_format)
    store, fleet = context.store(), _read(file, sets)
    with workflow.held(store, fleet):
        draft = workflow.removal(store, fleet, only=only or ())
        if not draft.plan.steps:
            output.say(f"There are no machines of {fleet.name}")
            return
        if _agreed(draft, yes=yes, as_json=as_json):
            again = f"machine destroy -f {file}"
            _carry_out(draft, again, parallel, as_json=as_json, undo=undo)
            output.say(f"{fleet.name}: {len(draft.plan.verdicts)} removed")


def drift(
    file: File = Path(DEFAULT),
    sets: Set = None,
    exit_code: ExitCode = False,
    parallel: context.Parallel = None,
    output_format: context.Output = "text",
) -> None:
    """Print what differs from the file: in the store, and on the live hosts."""
    from machine.workflows import drift as workflow
    from machine.workflows import fleet as fleets

    as_json = context.is_json(output_format)
    store, fleet = context.store(), _read(file, sets)
    draft = fleets.plan(store, fleet)
    _notes(draft)
    emit = output.questions if as_json else progress.sink(as_json=False, prefix=True)
    found = progress.run(
        {name: partial(workflow.look, store, draft.requests[name], emit) for name in draft.running},
        parallel=parallel,
    )
    if as_json:
        output.envelope("drift", _drift_as_json(draft, found))
    else:
        output.value(_drift_text(draft, found))
    if exit_code and (draft.plan.steps or not all(each.is_empty for each in found.values())):
        raise typer.Exit(CHANGES)


def _read(file: Path, sets: list[str] | None) -> Fleet:
    from machine import fleet

    given = context.pairs("--set", sets)
    if not file.exists():
        raise FleetError(
            f"There is no {file}",
            hint="-f FILE names another one; docs/fleet.md and docs/examples show what one looks like",
        )
    return fleet.read(file, given)


def _schema() -> None:
    import json

    from machine.fleet_schema import schema

    output.value(json.dumps(schema(), indent=2))


def _agreed(draft: Draft, *, yes: bool, as_json: bool) -> bool:
    """Says what is going to be done, and asks where that cannot be undone."""
    from machine.cli.remove import confirmed

    if not as_json:
        output.say(_text(draft, colour=_has_colour(sys.stderr)))
    return yes or not draft.asks or confirmed("Do that?", "--yes")


def _carry_out(
    draft: Draft, again: str, parallel: int | None, *, as_json: bool, undo: bool = False
) -> None:
    from machine.workflows import fleet_steps

    emit = progress.sink(as_json=as_json, prefix=True)
    work = partial(fleet_steps.apply, context.store(), draft, emit, parallel=parallel, undo=undo)
    progress.run(
        {draft.fleet.name: work},
        left=lambda _: f"Go on with: {again}",
    )


def _notes(draft: Draft) -> None:
    for note in draft.notes:
        output.say(f"Warning: {note}")


def _has_colour(stream: Any) -> bool:
    import os

    plain = os.environ.get("NO_COLOR") or os.environ.get("TERM", "dumb") == "dumb"
    return bool(stream.isatty() and not plain)


_SIGNS: Final = {
    "create": ("+", "green"),
    "resume": (">", "green"),
    "change": ("~", "yellow"),
    "replace": ("!", "red"),
    "remove": ("-", "red"),
}
_ENDS: Final = "The Swarm ends: its services, secrets and configs are lost"


def _text(draft: Draft, *, colour: bool) -> str:
    """A line for each machine, and what is different below it."""
    verdicts = draft.plan.verdicts
    if not verdicts:
        return f"{draft.fleet.name}: nothing to do"
    lines = []
    for each in verdicts:
        sign, shade = _SIGNS[each.kind]
        line = f"{sign} {each.kind:<8} {each.name}"
        lines.append(typer.style(line, fg=shade) if colour else line)
        lines += [f"    {text}" for text in _why(draft, each)]
    if draft.plan.swarm_ends:
        lines.append(typer.style(_ENDS, fg="red") if colour else _ENDS)
    counts = {kind: sum(1 for each in verdicts if each.kind == kind) for kind in _SIGNS}
    summary = ", ".join(f"{count} to {kind}" for kind, count in counts.items() if count)
    return "\n".join([*lines, "", f"{draft.fleet.name}: {summary}"])


_MADE: Final = (Source.IMAGE, Source.PROVIDER)


def _why(draft: Draft, verdict: Any) -> list[str]:
    lines = [_difference(change) for change in verdict.changes]
    if verdict.kind == "create":
        wanted = next(each for each in draft.fleet.machines if each.name == verdict.name)
        source = registry.driver(wanted.driver).source
        made = f", template {wanted.template.name}" if source in _MADE else ""
        lines.append(f"driver {wanted.driver}{made}")
        if wanted.swarm:
            lines.append(f"swarm {wanted.swarm}")
    if verdict.loses:
        lines.append("its disk, and everything on it, is destroyed")
    elif verdict.kind in ("remove", "replace") and not any(
        change.key == "state" for change in verdict.changes
    ):
        lines.append("the host itself stays as it is")
    return lines


def _difference(change: Any) -> str:
    def shown(value: str) -> str:
        return value if value and len(value) < 60 else "(none)" if not value else f"{value[:57]}..."

    return f"{change.key}: {shown(change.before)} -> {shown(change.after)}"


def _as_json(draft: Draft) -> dict[str, Any]:
    return {
        "fleet": draft.fleet.name,
        "machines": [dataclasses.asdict(each) for each in draft.plan.verdicts],
        "steps": [
            {
                "machine": step.name,
                "action": step.action,
                "after": [f"{name}:{action}" for name, action in sorted(step.after | step.turn)],
            }
            for step in draft.plan.steps
        ],
        "loses_data": draft.plan.loses,
        "swarm_ends": draft.plan.swarm_ends,
    }


def _drift_text(draft: Draft, found: dict[str, Drift]) -> str:
    from machine.workflows.plan import diff

    lines, verdicts = [], {each.name: each for each in draft.plan.verdicts}
    for name in dict.fromkeys([*draft.requests, *verdicts]):
        own: list[str] = []
        if verdict := verdicts.get(name):
            own += [f"machine apply would {verdict.kind} it", *_why(draft, verdict)]
        if name in found:
            own += found[name].notes
            own += [line for change in found[name].files for line in diff(change)]
            own += [] if found[name].is_empty else [f"Put it back: machine provision {name}"]
        lines.append(f"{name}: {'differs' if own else 'as the file says'}")
        lines += [f"    {line}" for line in own]
    return "\n".join(lines)


def _drift_as_json(draft: Draft, found: dict[str, Drift]) -> dict[str, Any]:
    from machine.workflows.plan import diff

    return {
        "fleet": draft.fleet.name,
        "machines": [dataclasses.asdict(each) for each in draft.plan.verdicts],
        "hosts": {
            name: {
                "notes": each.notes,
                "files": {change.path: diff(change) for change in each.files},
            }
            for name, each in found.items()
        },
    }
