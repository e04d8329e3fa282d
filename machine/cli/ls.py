"""`machine ls`: docker-machine's columns and filters."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Callable, Sequence
from typing import Annotated, Any, Final

import typer

from machine.cli import context, output
from machine.errors import UsageError
from machine.model import State
from machine.workflows.survey import Row, natural, survey

HEADS: Final = {
    "Name": "NAME",
    "Active": "ACTIVE",
    "ActiveHost": "ACTIVE_HOST",
    "ActiveSwarm": "ACTIVE_SWARM",
    "DriverName": "DRIVER",
    "State": "STATE",
    "URL": "URL",
    "SwarmOptions": "SWARM_OPTIONS",
    "Swarm": "SWARM",
    "EngineOptions": "ENGINE_OPTIONS",
    "Error": "ERRORS",
    "DockerVersion": "DOCKER",
    "ResponseTime": "RESPONSE",
}
"""The fields of docker-machine's template (commands/ls.go), with their headings."""
DEFAULT: Final = (
    r"table {{.Name}}\t{{.Active}}\t{{.DriverName}}\t{{.State}}\t{{.URL}}\t{{.Swarm}}"
    r"\t{{.DockerVersion}}\t{{.Error}}"
)


def ls(
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="names only")] = False,
    filters: Annotated[
        list[str] | None,
        typer.Option("--filter", help="driver=, state=, name= (a pattern), label=; repeatable"),
    ] = None,
    timeout: Annotated[
        float, typer.Option("--timeout", "-t", min=0.1, help="seconds for everything together")
    ] = 10,
    form: Annotated[
        str,
        typer.Option("--format", "-f", help="Go template, such as: table {{.Name}}\\t{{.URL}}"),
    ] = "",
    output_format: context.Output = "text",
) -> None:
    """List the machines."""
    as_json = context.is_json(output_format)
    wanted = _parsed(filters or [])
    store = context.store()
    if quiet and not set(wanted) - {"name"}:
        names = [name for name in natural(store.names()) if _matches(Row(name), wanted)]
        for name in names:
            output.value(name)
        return
    asked = not quiet or "swarm" in wanted
    rows = [
        row
        for row in survey(store, natural(store.names()), timeout=timeout, engines=asked)
        if _matches(row, wanted)
    ]
    if as_json:
        output.envelope("machines", [_data(row) for row in rows])
    elif quiet:
        for row in rows:
            output.value(row.name)
    else:
        _print(form or DEFAULT, rows)


def is_active(row: Row) -> bool:
    """docker-machine's meaning: it runs, and DOCKER_HOST points at it."""
    return row.state is State.RUNNING and row.url == os.environ.get("DOCKER_HOST", "-")


def _print(form: str, rows: Sequence[Row]) -> None:
    """A line a machine; a leading word "table" asks for columns with headings."""
    from machine.compat.gotemplate import Struct, Template

    plain = form.removeprefix("table").strip(" ").replace(r"\t", "\t").replace(r"\n", "\n")
    template = Template(plain)
    lines = [template.render(_fields(row)) for row in rows]
    if form.startswith("table"):
        heads = template.render(Struct(HEADS))
        output.table(heads.split("\t"), [line.split("\t") for line in lines])
        return
    for line in lines:
        output.value(line)


def _fields(row: Row) -> dict[str, Any]:
    """What docker-machine's template is given; a machine that did not answer in time has no mark
    and no version there."""
    from machine.compat.gotemplate import Struct

    silent = row.state is State.TIMEOUT
    version = f"v{row.engine_version}" if row.engine_version else "Unknown"
    options = (row.raw or {}).get("HostOptions") or {}
    return Struct(
        {
            "Name": row.name,
            "Active": "" if silent else "*" if is_active(row) else "-",
            "ActiveHost": is_active(row),
            "ActiveSwarm": False,
            "DriverName": row.driver,
            "State": row.state,
            "URL": row.url,
            "SwarmOptions": options.get("SwarmOptions"),
            "Swarm": row.swarm,
            "EngineOptions": options.get("EngineOptions"),
            "Error": row.error,
            "DockerVersion": "" if silent else version,
            "ResponseTime": _duration(row.response_seconds),
        }
    )


def _duration(seconds: float) -> str:
    """As Go prints a time.Duration of less than a minute."""
    return f"{1000 * seconds:.4g}ms" if 0 < seconds < 1 else f"{seconds:.4g}s"


def _data(row: Row) -> dict[str, Any]:
    data = {each.name: getattr(row, each.name) for each in dataclasses.fields(row)}
    data.pop("raw")
    return {**data, "active": is_active(row)}


def _parsed(filters: list[str]) -> dict[str, list[str]]:
    """The same key again means or; different keys mean and."""
    wanted: dict[str, list[str]] = {}
    for text in filters:
        key, sign, value = text.partition("=")
        if not sign or key not in ("driver", "state", "name", "label", "swarm"):
            raise UsageError(
                f"Unsupported filter: {text}", hint="driver=, state=, name=, label= or swarm="
            )
        if key == "name":
            try:
                re.compile(value)
            except re.error as exc:
                raise UsageError(f"--filter name={value} is no pattern: {exc}") from None
        wanted.setdefault(key, []).append(value)
    return wanted


def _matches(row: Row, wanted: dict[str, list[str]]) -> bool:
    checks: dict[str, Callable[[str], bool]] = {
        "driver": lambda value: row.driver.lower() == value.lower(),
        "state": lambda value: row.state.lower() == value.lower(),
        "name": lambda value: re.search(value, row.name) is not None,
        "label": lambda value: value.lower() in (label.lower() for label in row.labels),
        "swarm": lambda value: row.swarm == value.lower(),
    }
    return all(any(checks[key](value) for value in values) for key, values in wanted.items())
