"""Start, stop, restart and kill, each waiting until it is true."""

from __future__ import annotations

from typing import Final

from machine import wait
from machine.errors import (
    DriverError,
    GuestUnreachable,
    HostError,
    HostGone,
    MachineError,
    TimedOut,
)
from machine.events import Emit, Reporter, ignore
from machine.host import Host
from machine.model import Can, State
from machine.store import Store
from machine.workflows import bootstrap, console, departure, entries, forwards

BOOT_ID: Final = "/proc/sys/kernel/random/boot_id"
STOP_TIMEOUT = 90
"""Seconds for a guest to shut down; 20 s were seen under emulation on a busy computer."""


def start(store: Store, name: str, emit: Emit = ignore) -> None:
    """Raises HostError when it runs already (docker-machine's answer)."""
    report = Reporter(emit, name)
    with store.lock(name, wait=5):
        host = Host.load(store, name, report)
        if known_state(host) is State.RUNNING:
            raise HostError(f'Host "{name}" is already running')
        bring_up(host)
        departure.stand_in(store, host)


def stop(
    store: Store,
    name: str,
    emit: Emit = ignore,
    *,
    timeout: float = STOP_TIMEOUT,
    force: bool = False,
    aside: bool = False,
) -> None:
    """Ask the guest to shut down and wait ``timeout`` seconds; power off after that only with
    ``force``. ``aside``: others of its Swarm take its tasks first. Raises TimedOut, and HostError
    when it is stopped already."""
    report = Reporter(emit, name)
    with store.lock(name, wait=5):
        host = Host.load(store, name, report)
        if known_state(host) in (State.STOPPED, State.SAVED):
            raise HostError(f'Host "{name}" is already stopped')
        if aside or (not force and departure.found_out(store, host, stays=True)):
            departure.stand_aside(store, host)
        shut_down(host, timeout, force=force)
        forwards.end(host.block.id)


def restart(
    store: Store,
    name: str,
    emit: Emit = ignore,
    *,
    timeout: float = STOP_TIMEOUT,
    force: bool = False,
    aside: bool = False,
) -> None:
    """A running host goes down and up again; a stopped one is started. ``aside`` as for ``stop``."""
    report = Reporter(emit, name)
    with store.lock(name, wait=5):
        host = Host.load(store, name, report)
        state = known_state(host)
        if aside or (not force and departure.found_out(store, host, stays=True)):
            departure.stand_aside(store, host)
        if Can.POWER not in host.driver.can:
            _reboot(host, timeout)
        else:
            if state not in (State.STOPPED, State.SAVED):
                shut_down(host, timeout, force=force)
            bring_up(host)
        departure.stand_in(store, host)


def kill(store: Store, name: str, emit: Emit = ignore) -> None:
    report = Reporter(emit, name)
    with store.lock(name, wait=5):
        host = Host.load(store, name, report)
        if known_state(host) is State.STOPPED:
            raise HostError(f'Host "{name}" is already stopped')
        with report.step("kill", "Powering off"):
            host.driver.kill()
        forwards.end(host.block.id)


def known_state(host: Host) -> State:
    """Raises HostGone, and DriverError where its provider cannot be asked."""
    state = host.state()
    if state is State.MISSING:
        raise HostGone(
            f'"{host.name}" does not exist any more at its provider ({host.record.driver_name})',
            hint=f"Forget it with: machine rm {host.name}",
        )
    if state is State.UNKNOWN:
        raise DriverError(
            f'The {host.record.driver_name} provider of "{host.name}" cannot be asked',
            details=host.driver.explain(),
            hint="machine doctor",
        )
    return state


def bring_up(host: Host) -> None:
    """Start it and wait for its engine. The caller holds its lock."""
    with host.report.step("start", "Starting the VM"):
        host.driver.start()
    with host.report.step("boot", "Waiting for SSH"):
        try:
            bootstrap.wait_for_ssh(host).close()
        except (TimedOut, DriverError) as exc:
            exc.details = console.explain(host, exc.details)
            raise
    host.record.note_address(host.address())
    host.save()
    entries.renew(host)
    fits = bootstrap.certificate_fits(host)
    if host.block.restored:
        with host.report.step("configure", "Comparing the engine with the record"):
            _compare(host, renew=not fits)
        host.block.restored = False
        host.save()
    elif not fits:
        with host.report.step("certificate", "Renewing the certificate for the new address"):
            renew_certificate(host)
    with host.report.step("engine", "Waiting for the engine"):
        bootstrap.verify(host)


def renew_certificate(host: Host) -> None:
    """A new server certificate onto the host; restarts the engine."""
    session = bootstrap.Session.open(host)
    try:
        session.configure_engine(fresh_certificate=True)
        session.engine.restart()
    finally:
        session.close()


def _reboot(host: Host, timeout: float) -> None:
    """A host that nobody but itself can start is told to: what runs is told apart by the kernel's
    boot_id (random(4))."""
    host.require_ours()
    host.require_running()
    with host.report.step("reboot", "Rebooting"):
        with host.guest() as guest:
            before = guest.get(BOOT_ID)
            guest.script("(sleep 1; reboot) >/dev/null 2>&1 </dev/null &\n", sudo=True)

        def booted() -> bool:
            try:
                with host.guest(timeout=10) as guest:
                    return guest.get(BOOT_ID) != before
            except GuestUnreachable:
                return False

        wait.until(
            f'"{host.name}" to be back',
            booted,
            timeout=max(timeout, host.block.boot_timeout),
            most=3,
            hint="Only its own console can tell more",
        )
    with host.report.step("engine", "Waiting for the engine"):
        bootstrap.verify(host)


def _compare(host: Host, *, renew: bool) -> None:
    """What the guest has may be older than the record; the engine restarts only if it is."""
    session = bootstrap.Session.open(host)
    try:
        if session.configure_engine(fresh_certificate=renew):
            session.engine.restart()
    finally:
        session.close()


def shut_down(host: Host, timeout: float = STOP_TIMEOUT, *, force: bool = False) -> None:
    """As ``stop``, for a caller that holds the lock."""
    try:
        with host.report.step("stop", "Shutting down"):
            host.driver.stop()
            wait.until(
                f'"{host.name}" to shut down',
                lambda: host.state() in (State.STOPPED, State.MISSING),
                timeout=timeout,
                hint=f"Wait longer with --timeout, or power it off: machine stop --force {host.name}",
            )
    except MachineError:
        if not force:
            raise
        host.report.warn("It did not shut down by itself; powering off")
        with host.report.step("kill", "Powering off"):
            host.driver.kill()
