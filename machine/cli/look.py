"""Commands that look and change nothing: ip, url, status, config, inspect, active, version, console."""

from __future__ import annotations

import json
import os
from typing import Annotated

import typer

from machine import __version__
from machine.cli import context, output
from machine.errors import MachineError
from machine.host import Host
from machine.model import State


def _host(names: list[str] | None) -> Host:
    return context.host(context.one(names))


def ip(names: context.Names = None) -> None:
    """Print the addresses of machines, in the order they were named."""
    for name in context.several(names):
        output.value(_host([name]).address().host)


def url(names: context.Name = None) -> None:
    """Print the URL of a machine's engine."""
    host = _host(names)
    host.require_running()
    output.value(host.url())


def status(names: context.Name = None) -> None:
    """Print a machine's state; exit with 4 if its provider does not know it any more."""
    state = _host(names).state()
    output.value(state)
    if state is State.MISSING:
        raise typer.Exit(4)


def config(names: context.Name = None, swarm: context.Swarm = False) -> None:
    """Print the docker client's options for a machine, once its engine has answered."""
    if swarm:
        context.refuse_swarm(names)
    host = _host(names)
    host.require_running()
    host.ask()
    output.value("--tlsverify")
    for flag, path in (
        ("tlscacert", host.tls.ca),
        ("tlscert", host.tls.cert),
        ("tlskey", host.tls.key),
    ):
        output.value(f"--{flag}={json.dumps(str(path), ensure_ascii=False)}")
    output.value(f"-H={host.url()}")


def inspect(
    names: context.Name = None,
    template: Annotated[
        str, typer.Option("--format", "-f", help="Go template such as {{.Driver.IPAddress}}")
    ] = "",
) -> None:
    """Print a machine's record as JSON, or what a Go template makes of it."""
    record = context.store().load(context.one(names)).as_json()
    if not template:
        output.value(json.dumps(record, indent=4))
        return
    from machine.compat.gotemplate import Template

    output.value(Template(template).render(record))


def active(
    timeout: Annotated[float, typer.Option("--timeout", "-t", min=0.1, help="seconds")] = 10,
) -> None:
    """Print which machine the environment points at."""
    from machine.workflows.survey import survey

    target = os.environ.get("DOCKER_HOST", "")
    for row in survey(context.store(), timeout=timeout, engines=False) if target else ():
        if row.url == target:
            output.value(row.name)
            return
    raise MachineError("No active host found", hint='eval "$(machine env NAME)"')


def version(names: context.Name = None) -> None:
    """Print the version of this tool, or with a name that of the machine's engine."""
    if not names:
        output.value(f"machine version {__version__}")
        return
    host = _host(names)
    host.require_running()
    output.value(host.ask().version)


def console(
    names: context.Name = None,
    lines: Annotated[int, typer.Option("--lines", "-n", min=0, help="how many")] = 40,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="go on as it grows")] = False,
) -> None:
    """Print the last lines of a machine's serial log."""
    from machine.workflows import console as consoles

    host = _host(names)
    text, offset = consoles.tail(host, lines)
    if text:
        output.value(text)
    if follow:
        for more in consoles.follow(host, offset):
            output.raw(more)
