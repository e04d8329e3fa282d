"""What is done beside a create on hosts that were there before: a list of what they were like, the
way through their firewall, and the way back."""

from __future__ import annotations

from typing import TYPE_CHECKING

from machine import firewall, ledger
from machine.errors import MachineError
from machine.host import Host
from machine.model import Setup, Source
from machine.workflows import bootstrap

if TYPE_CHECKING:
    from machine.workflows.bootstrap import Session


def keep(session: Session) -> bool:
    """Called before the first change of a host that was there before; True if what it was like was
    not kept yet. Twice is fine."""
    host = session.host
    if host.driver.source is not Source.HOST or host.setup is Setup.REGISTER:
        return False
    return ledger.keep(session.guest, session.provisioner, session.engine)


def pass_firewall(session: Session) -> None:
    """See that the engine's port is let through: a host that we made is opened, another's user is
    asked first. Twice is fine. A firewall that stays as it is is named, with what would open it."""
    host = session.host
    for obstacle in firewall.look(session.guest, host.engine_port):
        if not obstacle.opening:
            host.report.warn(f"{obstacle.text}; that has to be changed by hand")
        elif _may_open(host, obstacle):
            ledger.open_port(session.guest, obstacle)
            lasting = "" if obstacle.lasting else ", until it is loaded anew"
            host.report.note(
                f"{obstacle.firewall} lets TCP port {host.engine_port} through{lasting}"
            )
        else:
            commands = "; ".join(obstacle.opening)
            host.report.warn(f"{obstacle.text}, and stays as it is. To open it: {commands}")


def _may_open(host: Host, obstacle: firewall.Obstacle) -> bool:
    if host.driver.source is not Source.HOST:
        return True
    if host.block.open_firewall != "ask":
        return host.block.open_firewall == "yes"
    return bool(host.report.confirm(f"{obstacle.text}. Open it?"))


def undo(host: Host) -> None:
    """Put it back as it was before its create. Raises HostError for a machine that was made, and
    what a login raises."""
    if host.driver.source is not Source.HOST:
        raise MachineError(
            f'"{host.name}" was made by machine: there is nothing to put back',
            hint=f"machine rm {host.name}",
        )
    if host.setup is Setup.REGISTER:
        return
    with host.report.step("undo", "Putting the host back as it was"):
        session = bootstrap.Session.open(host)
        try:
            lines = ledger.undo(session.guest, session.provisioner, session.engine)
        finally:
            session.close()
    for line in lines:
        host.report.note(line)
