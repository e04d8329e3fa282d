"""The check as a whole: what is made, asked and judged, in this order, and removed."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from machine.guest import Guest
from machine.model import Address, Verdict
from machine.runtime.docker.check import (
    interfaces,
    layers,
    limits,
    namespaces,
    network,
    scene,
    swarm,
)
from machine.runtime.docker.check.scene import Scene

if TYPE_CHECKING:
    from docker import APIClient


def through(guest: Guest, client: APIClient, address: Address) -> Iterator[Verdict]:
    """See ``Engine.check``."""
    scene.clear(client)
    try:
        made = scene.build(guest, client)
        yield from _one_host(guest, made)
        yield from swarm.verdicts(guest, made, address)
    finally:
        scene.clear(client)


def _one_host(guest: Guest, made: Scene) -> Iterator[Verdict]:
    pid = made.subject["State"]["Pid"]
    security = made.client.info()["SecurityOptions"] or []
    yield from namespaces.judge(scene.ask(guest, pid, namespaces.ASK), security)
    yield limits.judge_memory(scene.ask(guest, pid, limits.ASK_MEMORY), made.warnings)
    warnings = scene.limit_processor(made)
    yield limits.judge_cpu(scene.ask(guest, pid, limits.ASK_CPU), warnings)
    mounts = scene.ask(guest, pid, layers.ASK_MOUNT)
    yield layers.judge_mount(mounts)
    if union := layers.union(mounts):
        yield layers.judge_files(scene.ask(guest, pid, layers.ask_files(union)), union)
    promise = network.promised(made.subject["NetworkSettings"]["Networks"][scene.NAME])
    yield from network.judge(scene.ask(guest, pid, interfaces.ASK), made.subnet, promise)
    answer = scene.ask(guest, made.peer["State"]["Pid"], network.ask_name(scene.NAME))
    yield network.judge_name(answer, scene.NAME, promise.address)
