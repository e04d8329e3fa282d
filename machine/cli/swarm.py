"""`machine swarm`: engines that act as one."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from machine.cli import complete, context, output, progress
from machine.cli import upgrade as choices
from machine.cli.remove import confirmed
from machine.errors import UsageError
from machine.swarm import Cluster, Role, reasons
from machine.workflows.swarm import Way

if TYPE_CHECKING:
    from machine.workflows.swarm_status import Known, Status

app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, add_completion=False)

Name = Annotated[str, typer.Argument(metavar="NAME", autocompletion=complete.machine)]
Members = Annotated[list[str], typer.Argument(metavar="NAME...", autocompletion=complete.machines)]
Address = Annotated[
    str, typer.Option("--advertise-addr", help="where other members reach it; default: by driver")
]
DataPath = Annotated[
    str, typer.Option("--data-path-addr", help="where containers' traffic goes; default: the same")
]
Labels = Annotated[
    list[str] | None, typer.Option("--label", help="of its node, KEY=VALUE; repeatable")
]
Passphrase = Annotated[
    str,
    typer.Option(
        "--passphrase",
        metavar="SECRET",
        help="of the encrypted file: env:NAME, file:PATH, command:WORDS or keyring:SERVICE/USER",
    ),
]
Force = Annotated[bool, typer.Option("--force", "-f", help="even if the Swarm breaks by it")]


@app.command()
def init(
    name: Name,
    address: Address = "",
    data_path: DataPath = "",
    labels: Labels = None,
    pool: Annotated[
        list[str] | None,
        typer.Option("--default-addr-pool", help="for overlay networks, 10.20.0.0/16; repeatable"),
    ] = None,
    subnet_bits: Annotated[
        int, typer.Option("--default-addr-pool-mask-length", min=1, max=30, help="of each network")
    ] = 24,
    data_path_port: Annotated[
        int, typer.Option("--data-path-port", min=0, max=49151, help="UDP; default: 4789")
    ] = 0,
    autolock: Annotated[
        bool, typer.Option("--autolock", help="managers that restart wait for the unlock key")
    ] = False,
    output_format: context.Output = "text",
) -> None:
    """Begin a Swarm on a machine, which is its first manager."""
    from machine.workflows import swarm

    cluster = Cluster(tuple(pool or ()), subnet_bits, data_path_port, autolock)
    _run(
        [name],
        output_format,
        partial(swarm.init, way=_way(address, data_path, labels), cluster=cluster),
    )
    output.say(f"{name} is a manager. To bring others in: machine swarm join NAME... --to {name}")


@app.command()
def join(
    names: Members,
    to: Annotated[
        str,
        typer.Option("--to", metavar="NAME", help="a machine of the Swarm"),
    ],
    manager: Annotated[bool, typer.Option("--manager", help="as a manager")] = False,
    address: Address = "",
    data_path: DataPath = "",
    labels: Labels = None,
    parallel: context.ParallelWaits = context.WAITS,
    output_format: context.Output = "text",
) -> None:
    """Bring machines into the Swarm of another one."""
    from machine.workflows import swarm

    wanted = context.several(names)
    if (address or data_path) and len(wanted) > 1:
        raise UsageError("An address is of one machine: join them one by one")
    role = Role.MANAGER if manager else Role.WORKER
    work = partial(swarm.join, to=to, role=role, way=_way(address, data_path, labels))
    _run(wanted, output_format, work, f"is a {role} now", parallel)


@app.command()
def leave(
    names: Members,
    force: Force = False,
    yes: Annotated[bool, typer.Option("-y", "--yes", help="do not ask")] = False,
    output_format: context.Output = "text",
) -> None:
    """Take machines out of their Swarm.

    Each is drained, demoted, leaves, and is taken off the list.
    """
    from machine.workflows import departure

    wanted = context.several(names)
    owing = departure.check(context.store(), wanted, stays=False) if not force else frozenset()
    ended = [name for name in wanted if name not in owing]
    question = (
        f"{', '.join(ended)}: nobody is left in the Swarm, and its services end. Are you sure?"
    )
    if ended and not (force or yes) and not confirmed(question, "-y"):
        return
    # One after the other: each is counted in the quorum of the next.
    _run(wanted, output_format, partial(departure.leave, force=force), "is in no Swarm now", 1)


@app.command()
def promote(names: Members, output_format: context.Output = "text") -> None:
    """Make workers managers."""
    from machine.workflows import swarm

    _run(context.several(names), output_format, swarm.promote, "is a manager", 1)


@app.command()
def demote(names: Members, force: Force = False, output_format: context.Output = "text") -> None:
    """Make managers workers."""
    from machine.workflows import swarm

    _run(
        context.several(names),
        output_format,
        partial(swarm.demote, force=force),
        "is a worker",
        1,
    )


@app.command()
def drain(names: Members, output_format: context.Output = "text") -> None:
    """Take nodes' tasks away until they are activated."""
    from machine.workflows import departure

    _run(context.several(names), output_format, departure.set_aside, "has no tasks now", 1)


@app.command()
def activate(names: Members, output_format: context.Output = "text") -> None:
    """Let nodes take tasks again."""
    from machine.workflows import departure

    _run(context.several(names), output_format, departure.activate, "takes tasks again", 1)


@app.command()
def upgrade(
    name: Name,
    bundle: choices.Bundle = "",
    options: choices.Options = None,
    labels: choices.Labels = None,
    yes: choices.Yes = False,
    output_format: context.Output = "text",
) -> None:
    """Upgrade the engines of a Swarm, one node after the other: workers, managers, their leader."""
    from machine.workflows import rolling

    wish = choices.wished(bundle, options or (), labels or ())
    emit = progress.sink(as_json=context.is_json(output_format), prefix=True)
    progress.run(
        {name: partial(rolling.upgrade, context.store(), name, emit, wish=wish, yes=yes)},
        left=lambda name: "Go on with the same command",
    )


@app.command()
def ls(output_format: context.Output = "text") -> None:
    """List the Swarms that machines are in."""
    from machine.workflows import swarm_status

    as_json = context.is_json(output_format)
    found = swarm_status.known(context.store())
    if as_json:
        output.envelope("swarms", [dataclasses.asdict(each) for each in found])
        return
    heads = ("SWARM", "MANAGERS", "NODES", "MACHINES", "ERRORS")
    output.table(heads, [_listed(each) for each in found])


@app.command()
def status(
    name: Name,
    certificates: Annotated[
        bool,
        typer.Option("--certificates", help="log in to its machines: when each one's own ends"),
    ] = False,
    output_format: context.Output = "text",
) -> None:
    """Show a Swarm: quorum, leader, and every node of it."""
    from machine.workflows import swarm_status

    as_json = context.is_json(output_format)
    found = swarm_status.status(context.store(), name, certificates=certificates)
    if as_json:
        output.envelope("swarm", {**dataclasses.asdict(found), "leader": found.leader})
        return
    _show(found, certificates=certificates)


@app.command()
def token(
    name: Name,
    manager: Annotated[bool, typer.Option("--manager", help="for managers")] = False,
    rotate: Annotated[
        bool, typer.Option("--rotate", help="make a new one; the old one lets nobody in any more")
    ] = False,
) -> None:
    """Print what lets hosts of others join; a secret."""
    from machine.workflows import swarm

    role = Role.MANAGER if manager else Role.WORKER
    output.value(swarm.token(context.store(), name, role, rotate=rotate))


@app.command()
def unlock_key(
    name: Name,
    rotate: Annotated[bool, typer.Option("--rotate", help="make a new one")] = False,
) -> None:
    """Print what lets restarted managers go on; a secret."""
    from machine.workflows import swarm

    output.value(swarm.unlock_key(context.store(), name, rotate=rotate))


@app.command()
def unlock(names: Members, output_format: context.Output = "text") -> None:
    """Let managers go on that have restarted.

    The key comes from another manager, or you are asked for it.
    """
    from machine.workflows import swarm

    _run(context.several(names), output_format, swarm.unlock, "is unlocked", 1)


@app.command()
def backup(
    name: Name,
    file: Annotated[Path, typer.Argument(metavar="FILE", autocompletion=complete.files)],
    passphrase: Passphrase = "",
    output_format: context.Output = "text",
) -> None:
    """Write what a manager knows into a file.

    Its engine is off for that moment.
    """
    from machine.workflows import recovery

    secret = _resolved(passphrase)
    _run(
        [name],
        output_format,
        lambda store, name, emit: recovery.backup(store, name, file, emit, passphrase=secret),
    )
    output.say(f"{file} holds the Swarm's secrets and its authority: keep it as you keep keys")


@app.command()
def restore(
    name: Name,
    file: Annotated[Path, typer.Argument(metavar="FILE", autocompletion=complete.files)],
    passphrase: Passphrase = "",
    address: Address = "",
    data_path: DataPath = "",
    output_format: context.Output = "text",
) -> None:
    """Begin a Swarm again from a backup.

    The machine has to be in none.
    """
    from machine.workflows import recovery

    secret, way = _resolved(passphrase), _way(address, data_path, ())
    _run(
        [name],
        output_format,
        lambda store, name, emit: recovery.restore(
            store, name, file, emit, passphrase=secret, way=way
        ),
    )
    output.say(
        f"{name} is its only manager. Nodes that were members are down for it; each comes back by\n"
        f"  machine swarm leave --force NAME && machine swarm join NAME --to {name}"
    )


@app.command()
def recover(
    name: Name,
    yes: Annotated[bool, typer.Option("-y", "--yes", help="do not ask")] = False,
    address: Address = "",
    data_path: DataPath = "",
    output_format: context.Output = "text",
) -> None:
    """Let one manager go on when the quorum is lost.

    For managers that are lost for good: others only have to be started.
    """
    from machine.workflows import recovery

    context.several([name])
    question = (
        f"{name} goes on as the only manager. Managers that come back later have to leave and to join "
        "again. Are the others lost for good?"
    )
    if not yes and not confirmed(question, "-y"):
        return
    way = _way(address, data_path, ())
    found: list[str] = []
    _run(
        [name],
        output_format,
        lambda store, name, emit: found.extend(recovery.recover(store, name, emit, way=way)),
    )
    for each in found:
        output.say(
            f"When {each} is back: machine swarm leave --force {each} && "
            f"machine swarm join {each} --to {name} --manager"
        )
    output.say(f"Look at it with: machine swarm status {name}")


def _resolved(reference: str) -> str:
    from machine import secret

    return secret.resolve(reference) if reference else ""


def _way(address: str, data_path: str, labels: Sequence[str] | None) -> Way:
    return Way(address, data_path, context.pairs("--label", labels))


def _run(
    names: Sequence[str],
    output_format: str,
    work: Callable[..., Any],
    now: str = "",
    parallel: int | None = None,
) -> None:
    def done(name: str, result: object) -> None:
        if now:
            output.say(f"{name} {now}")

    progress.each(
        context.store(),
        names,
        work,
        as_json=context.is_json(output_format),
        parallel=parallel,
        done=done,
        left=lambda name: f"Look at it with: machine swarm status {name}",
    )


def _listed(swarm: Known) -> tuple[str, ...]:
    count = swarm.managers
    reachable = f"{count.reachable}/{count.total}" if count else "-"
    nodes = str(swarm.nodes) if count else "-"
    return (swarm.cluster, reachable, nodes, ",".join(swarm.machines), swarm.problem)


def _show(found: Status, *, certificates: bool) -> None:
    count = found.managers
    output.value(f"Swarm      {found.cluster}")
    output.value(f"Managers   {count.reachable} of {count.total} reachable, {count.needed} needed")
    output.value(f"Leader     {found.leader or '-'}")
    output.value(f"Authority  until {found.authority_ends}")
    output.value(
        f"Members    certificates of {found.certificate_days} days, renewed while they are on"
    )
    if found.waiting:
        output.value(f"Waiting    {len(found.waiting)} tasks do not run yet")
        for reason in reasons(found.waiting):
            output.value(f"           {reason}")
    rows = [
        (
            each.machine or "-",
            each.node.name,
            f"{each.node.role}{'*' if each.node.leader else ''}",
            each.node.state
            if each.node.role is Role.WORKER or each.node.reachable
            else f"{each.node.state}, unreachable",
            each.node.availability,
            str(each.tasks),
            each.node.address,
            each.node.version,
            *((each.certificate_ends or "-",) if certificates else ()),
            ",".join(f"{key}={value}" for key, value in sorted(each.node.labels.items())),
        )
        for each in found.seats
    ]
    output.value("")
    heads = ("MACHINE", "HOST", "ROLE", "STATE", "AVAILABILITY", "TASKS", "ADDRESS", "ENGINE")
    output.table((*heads, *(("CERTIFICATE",) if certificates else ()), "LABELS"), rows)
    if count.advice:
        output.say(count.advice)
    for machine, why in found.astray.items():
        output.say(
            f"Warning: {machine} is astray: {why}. Bring it out with: "
            f"machine swarm leave --force {machine}"
        )
