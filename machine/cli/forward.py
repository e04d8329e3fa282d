"""`machine forward`: ports of this computer that lead to a machine's."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Annotated, Final

import typer

from machine.cli import complete, context, output
from machine.errors import UsageError

if TYPE_CHECKING:
    from machine.forward import Rule
    from machine.host import Host

EXAMPLE: Final = "For example: machine forward NAME 8080:80"


def forward(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NAME [PORT[:PORT]]...]", show_default=False, autocompletion=complete.machine
        ),
    ] = None,
    bind: Annotated[
        str, typer.Option("--bind", metavar="ADDRESS", help="of this computer, to listen on")
    ] = "127.0.0.1",
    stop: Annotated[
        bool, typer.Option("--stop", help="end those with these ports here, or all")
    ] = False,
    output_format: context.Output = "text",
) -> None:
    """Open ports of this computer that lead to a machine's, until they are stopped; without ports,
    list those that are there."""
    as_json = context.is_json(output_format)
    name, *ports = words or [""]
    if stop:
        _stop(name, ports)
    elif ports:
        rules = [parsed(each, bind) for each in ports]
        _open(context.host(name), rules)
    else:
        _list([name] if name else context.store().names(), as_json=as_json)


def parsed(text: str, bind: str = "127.0.0.1") -> Rule:
    """PORT, HERE:THERE, or HERE:HOST:THERE with a host that the machine reaches. Raises
    UsageError."""
    from machine.forward import LOOPBACK, Rule

    first, colon, rest = text.partition(":")
    host, _, last = rest.rpartition(":") if colon else ("", "", first)
    local = _port(first, text, least=0 if colon else 1)
    return Rule(local, _port(last, text), host.strip("[]") or LOOPBACK, bind)


def _port(word: str, text: str, *, least: int = 1) -> int:
    if not (word.isascii() and word.isdigit() and least <= int(word) <= 65535):
        raise UsageError(f"{text!r} names no port", hint=EXAMPLE)
    return int(word)


def _open(host: Host, rules: list[Rule]) -> None:
    from machine.workflows import forwards

    for rule in rules:
        opened = forwards.open_(host, rule).rule
        output.value(opened.here)
        output.say(
            f"  leads to {host.name}: {_there(opened)}. "
            f"To end it: machine forward --stop {host.name} {opened.local}"
        )


def _stop(name: str, ports: list[str]) -> None:
    from machine.workflows import forwards

    host = context.host(context.one([name] if name else None))
    for each in forwards.stop(host, [_port(port.partition(":")[0], port) for port in ports]):
        output.say(f"{each.rule.here} does not lead to {host.name} any more")


def _list(names: list[str], *, as_json: bool) -> None:
    from machine.workflows import forwards

    rows = []
    for name in names:
        for each in forwards.of(context.store().load(name).ours.id):
            rows.append((name, each.rule, "open" if each.is_open else "dead"))
    if as_json:
        shown = [
            {"machine": name, **dataclasses.asdict(rule), "state": state}
            for name, rule, state in rows
        ]
        output.envelope("forwards", shown)
        return
    heads = ("MACHINE", "HERE", "THERE", "STATE")
    output.table(heads, [(name, rule.here, _there(rule), state) for name, rule, state in rows])
    if any(state == "dead" for _, _, state in rows):
        output.say("A dead one has lost its machine: open it again, or --stop it")


def _there(rule: Rule) -> str:
    from machine.forward import LOOPBACK

    return f"port {rule.remote}" if rule.host == LOOPBACK else f"{rule.host} port {rule.remote}"
