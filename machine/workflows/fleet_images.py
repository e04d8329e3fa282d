"""The container images that a fleet's machines are to have, and which of them they have."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from machine.container_image import choose
from machine.errors import EngineError, GuestError
from machine.events import Emit, Reporter, ignore
from machine.fleet import FleetMachine
from machine.host import Host
from machine.store import Store
from machine.workflows import push
from machine.workflows.push import Offer

MOST: Final = 16
"""Engines that are asked at a time."""


def had(store: Store, machines: Collection[FleetMachine]) -> dict[str, frozenset[str]]:
    """Of the archives that each of these machines is to have, those whose image is on its engine.
    One that cannot be asked is taken to have them. Raises ArchiveError for one that cannot be read."""
    asked = [each for each in machines if each.push]
    with ExitStack() as stack:
        offers = {
            path: stack.enter_context(push.from_archive(Path(path)))
            for path in sorted({path for each in asked for path in each.push})
        }
        with ThreadPoolExecutor(max_workers=MOST) as pool:
            found = pool.map(lambda each: _had(store, each, offers), asked)
            return {each.name: there for each, there in zip(asked, found, strict=True)}


def _had(store: Store, machine: FleetMachine, offers: Mapping[str, Offer]) -> frozenset[str]:
    there = set()
    try:
        with Host.load(store, machine.name).images() as images:
            for path in machine.push:
                image = choose(offers[path].images(Reporter()), images.platform())
                found = images.find(image.id)
                if found and set(image.names) <= set(found.names):
                    there.add(path)
    except (EngineError, GuestError):
        return frozenset(machine.push)
    return frozenset(there)


def send(store: Store, machine: FleetMachine, emit: Emit = ignore) -> None:
    """Bring all of its images onto a machine; what it has is not sent again."""
    for path in machine.push:
        with push.from_archive(Path(path)) as offer:
            push.push(store, machine.name, offer, push.Wanted(), emit)
