"""The way to an engine behind a jump host: a port of this computer that leads there."""

from __future__ import annotations

from machine import forward
from machine.errors import DriverError, GuestUnreachable, PortTaken
from machine.model import Address, Login
from machine.paths import control_socket


def is_open(identifier: str) -> bool:
    return forward.is_open(control_socket(identifier))


def open_(identifier: str, address: Address, login: Login, port: int, engine_port: int) -> bool:
    """Start one that outlives this process; False where another program has the port. Raises
    DriverError with ssh's own words."""
    rule = forward.Rule(port, engine_port)
    try:
        forward.open_(control_socket(identifier), address, login, rule)
    except PortTaken:
        return False
    except GuestUnreachable as exc:
        brief = f"The tunnel to the engine at {address.host} does not open"
        raise DriverError(brief, details=exc.details, hint=exc.hint) from exc
    return True


def close(identifier: str) -> None:
    """Twice is fine."""
    forward.close(control_socket(identifier))
