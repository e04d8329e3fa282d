"""What keys of `top` do to a machine: as the commands of the same names, without their ``--force``."""

from __future__ import annotations

from machine.events import Emit
from machine.store import Store


def start(store: Store, name: str, emit: Emit) -> None:
    from machine.workflows import power

    power.start(store, name, emit)


def stop(store: Store, name: str, emit: Emit) -> None:
    from machine.workflows import departure, power

    owing = departure.check(store, [name], stays=True)
    power.stop(store, name, emit, aside=name in owing)


def kill(store: Store, name: str, emit: Emit) -> None:
    from machine.workflows import departure, power

    departure.check(store, [name], stays=True)
    power.kill(store, name, emit)


def remove(store: Store, name: str, emit: Emit) -> None:
    from machine.workflows import departure, remove

    owing = departure.check(store, [name], stays=False)
    remove.remove(store, name, emit, depart=name in owing)
