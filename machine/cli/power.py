"""Commands that change a machine that exists; several names are worked on side by side."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from functools import partial
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from machine.cli import context, output, progress

if TYPE_CHECKING:
    from machine.events import Emit
    from machine.store import Store

T = TypeVar("T")
Force = Annotated[bool, typer.Option("--force", "-f", help="power off what does not shut down")]
Timeout = Annotated[float, typer.Option("--timeout", min=1, help="seconds to shut down")]


def start(
    names: context.Names = None,
    parallel: context.Parallel = None,
    output_format: context.Output = "text",
) -> None:
    """Start machines, and wait for their engines."""
    from machine.workflows import power

    _each(names, output_format, parallel, power.start)


def stop(
    names: context.Names = None,
    force: Force = False,
    timeout: Timeout = 90,
    parallel: context.ParallelWaits = context.WAITS,
    output_format: context.Output = "text",
) -> None:
    """Shut machines down, and wait until they are."""
    from machine.workflows import power

    wanted = context.several(names)
    work = partial(power.stop, timeout=timeout, force=force)
    _each(wanted, output_format, parallel, work, aside=_owing(wanted, force=force))


def restart(
    names: context.Names = None,
    force: Force = False,
    timeout: Timeout = 90,
    parallel: context.Parallel = None,
    output_format: context.Output = "text",
) -> None:
    """Restart machines, and wait for their engines."""
    from machine.workflows import power

    wanted = context.several(names)
    work = partial(power.restart, timeout=timeout, force=force)
    _each(wanted, output_format, parallel, work, aside=_owing(wanted, force=force))


def kill(
    names: context.Names = None,
    force: Annotated[
        bool, typer.Option("--force", "-f", help="even if their Swarm loses its quorum")
    ] = False,
    parallel: context.ParallelWaits = context.WAITS,
    output_format: context.Output = "text",
) -> None:
    """Power machines off at once."""
    from machine.workflows import power

    wanted = context.several(names)
    _owing(wanted, force=force)
    _each(wanted, output_format, parallel, power.kill)


def provision(
    names: context.Names = None,
    parallel: context.Parallel = None,
    output_format: context.Output = "text",
) -> None:
    """Bring machines back to what was configured; one that is so already is left alone."""
    from machine.workflows import provision as workflow

    def done(name: str, changed: bool) -> None:
        output.say(f"{name}: {'changed' if changed else 'nothing had to change'}")

    _each(names, output_format, parallel, workflow.provision, done)


def regenerate_certs(
    names: context.Names = None,
    force: Annotated[bool, typer.Option("--force", "-f", help="do not ask")] = False,
    client_certs: Annotated[
        bool, typer.Option("--client-certs", help="renew the store's client certificate too")
    ] = False,
    parallel: context.Parallel = None,
    output_format: context.Output = "text",
) -> None:
    """Renew the TLS certificates; the engine restarts."""
    from machine.cli.remove import confirmed
    from machine.workflows import provision as workflow

    wanted = context.several(names)
    output.say(f"The engine of {', '.join(wanted)} gets a new certificate and restarts")
    question = "Regenerate TLS machine certs?  Warning: this is irreversible."
    if not force and not confirmed(question, "--force"):
        return
    if client_certs:
        workflow.renew_client_certificate(context.store())
    _each(wanted, output_format, parallel, workflow.regenerate_certs)


def _owing(names: Sequence[str], *, force: bool) -> Collection[str]:
    """Those that have others of their Swarm to hand their tasks to. Raises HostError where it would
    lose its quorum."""
    from machine.workflows import departure

    return () if force else departure.check(context.store(), names, stays=True)


def _each(
    names: list[str] | None,
    output_format: str,
    parallel: int | None,
    work: Callable[..., T],
    done: Callable[[str, T], None] = lambda name, result: None,
    aside: Collection[str] = (),
) -> None:
    """``aside``: those that hand their tasks to others of their Swarm first."""

    def job(store: Store, name: str, emit: Emit) -> T:
        return work(store, name, emit, **({"aside": True} if name in aside else {}))

    progress.each(
        context.store(),
        context.several(names),
        job,
        as_json=context.is_json(output_format),
        parallel=parallel,
        done=done,
        left=lambda name: f"Look at it with: machine status {name}",
    )
