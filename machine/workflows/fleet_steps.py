"""The steps of a fleet's plan, done, side by side where their order allows."""

from __future__ import annotations

import graphlib
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor
from concurrent.futures import wait as wait_for
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from machine import swarm as swarms
from machine import wait
from machine.errors import HostError, MachineError, TimedOut, gathered
from machine.events import Emit, Reporter, ignore
from machine.fleet import FleetMachine
from machine.host import Host
from machine.model import Source
from machine.planner import Action, Step, StepId, Touch
from machine.store import Store
from machine.workflows import (
    create,
    departure,
    entries,
    fleet_images,
    managers,
    power,
    provision,
    remove,
    room,
    swarm,
)
from machine.workflows.create import CreateRequest
from machine.workflows.fleet import Draft, apart_from_host

SWARM_ANSWERS: Final = 60
"""Seconds for the managers of a Swarm to agree again after one of them has restarted."""


@dataclass(slots=True)
class Outcome:
    done: list[Step] = field(default_factory=list)
    errors: dict[str, MachineError] = field(default_factory=dict)  # by machine
    skipped: list[Step] = field(default_factory=list)  # they rest on a step that failed


def check_room(store: Store, draft: Draft) -> None:
    """Before anything is made: whether what is to be made has room. Raises PreflightError."""
    made = [
        create.planned(store, draft.requests[step.name])
        for step in draft.plan.steps
        if step.action is Action.CREATE
    ]
    for driver in {host.record.driver_name for host in made}:
        hosts = [host for host in made if host.record.driver_name == driver]
        if hosts[0].driver.source is Source.IMAGE:
            room.check_memory(hosts)


def apply(
    store: Store,
    draft: Draft,
    emit: Emit = ignore,
    *,
    parallel: int | None = None,
    undo: bool = False,
) -> Outcome:
    """Carry a plan out; ``undo`` puts hosts that were there before back as they were. What fails
    holds up what rests on it, and nothing else; then the error is raised, or Several. The next plan
    goes on from there."""
    work: Mapping[Action, Callable[[Step], object]] = {
        Action.CREATE: lambda step: create.create(store, draft.requests[step.name], emit),
        Action.RESUME: lambda step: create.resume(store, step.name, emit),
        Action.START: lambda step: power.start(store, step.name, emit),
        Action.CHANGE: lambda step: change(store, draft.requests[step.name], emit),
        Action.REMOVE: lambda step: _remove(store, step, emit, undo=undo),
        Action.PUSH: lambda step: fleet_images.send(store, _machine(draft, step), emit),
        Action.INIT: lambda step: swarm.init(store, step.name, emit),
        Action.JOIN: lambda step: _join(store, step, draft, emit),
        Action.PROMOTE: lambda step: swarm.promote(store, step.name, emit),
        Action.DEMOTE: lambda step: swarm.demote(store, step.name, emit),
        Action.LEAVE: lambda step: departure.leave(store, step.name, emit, force=step.force),
        Action.LABEL: lambda step: _label(store, step, draft, emit),
    }
    outcome = carry_out(draft.plan.steps, lambda step: work[step.action](step), parallel)
    report = Reporter(emit)
    for step in outcome.skipped:
        report.warn(f"Not done, because of what failed before it: {step.action} of {step.name}")
    if outcome.errors:
        raise gathered(outcome.errors)
    return outcome


def carry_out(
    steps: Sequence[Step], work: Callable[[Step], object], parallel: int | None = None
) -> Outcome:
    """Call ``work`` for every step behind those that it waits for, ``parallel`` at a time or as many
    as there are processors. What waits for one that failed is skipped, even if it only waits its
    turn: a manager may be down."""
    waiting: list[Step] = []
    sorter = graphlib.TopologicalSorter({step.id: step.after | step.turn for step in steps})
    sorter.prepare()
    by_id = {step.id: step for step in steps}
    outcome = Outcome()
    failed: set[StepId] = set()
    running: dict[Future[object], Step] = {}
    with ThreadPoolExecutor(max_workers=parallel or max(2, os.cpu_count() or 2)) as pool:
        while sorter.is_active():
            for each in sorter.get_ready():
                step = by_id[each]
                if (step.after | step.turn) & failed:
                    failed.add(each)
                    outcome.skipped.append(step)
                    sorter.done(each)
                else:
                    waiting.append(step)
            for step in list(waiting):
                if _goes_beside(step, running.values()):
                    waiting.remove(step)
                    running[pool.submit(partial(work, step))] = step
            ended, _ = wait_for(running, return_when=FIRST_COMPLETED) if running else (set(), None)
            for future in ended:
                step = running.pop(future)
                try:
                    future.result()
                except MachineError as exc:
                    failed.add(step.id)
                    outcome.errors[step.name] = exc
                else:
                    outcome.done.append(step)
                sorter.done(step.id)
    return outcome


def _goes_beside(step: Step, running: Iterable[Step]) -> bool:
    touches = {each.touch for each in running}
    if step.touch is Touch.DISTURBS:
        return touches <= {Touch.NOTHING}
    return step.touch is Touch.NOTHING or Touch.DISTURBS not in touches


def change(store: Store, wanted: CreateRequest, emit: Emit = ignore) -> None:
    """Bring a machine in place to what its fleet's file says. The record says so once it is so:
    after a kill in between, the next plan has the same change again."""
    drafted = create.planned(store, wanted)
    with store.lock(wanted.name, wait=5):
        host = Host.load(store, wanted.name, Reporter(emit, wanted.name))
        block, new = host.block, drafted.block
        apart = {key: new.config.get(key) for key in apart_from_host(drafted)}
        block.config = {**block.config, **apart}
        block.boot_timeout, block.template = new.boot_timeout, new.template
        if host.record.engine_options != drafted.record.engine_options:
            provision.bring_back(host, drafted.record.engine_options)
            if block.swarm:
                _wait_for_swarm(host)
        if block.context and not new.context:
            entries.remove(host)
        if block.ssh_config and not new.ssh_config:
            host.folder.ssh_config.unlink(missing_ok=True)
        block.context, block.ssh_config = new.context, new.ssh_config
        entries.check(host)
        entries.renew(host)
        block.fleet = new.fleet
        host.save()


def _remove(store: Store, step: Step, emit: Emit, *, undo: bool) -> None:
    there_before = undo and Host.load(store, step.name).driver.source is Source.HOST
    remove.remove(store, step.name, emit, undo=there_before)


def _machine(draft: Draft, step: Step) -> FleetMachine:
    return next(each for each in draft.fleet.machines if each.name == step.name)


def _wait_for_swarm(host: Host) -> None:
    """A manager's engine that has restarted looks for the others, or is elected, first."""

    def answers() -> bool:
        try:
            with managers.managed(host.store, host.name):
                return True
        except MachineError:
            return False

    try:
        wait.until("its Swarm to answer", answers, timeout=SWARM_ANSWERS)
    except TimedOut as exc:
        host.report.warn(exc.brief)


def _join(store: Store, step: Step, draft: Draft, emit: Emit) -> None:
    """By any machine of the fleet that is in its Swarm already."""
    names = [name for name in draft.requests if name != step.name and store.exists(name)]
    inside = next((name for name in names if store.load(name).ours.swarm), "")
    if not inside:
        raise HostError(f'There is no Swarm that "{step.name}" could join')
    swarm.join(store, step.name, emit, to=inside, role=swarms.Role(step.role))


def _label(store: Store, step: Step, draft: Draft, emit: Emit) -> None:
    labels = _machine(draft, step).node_labels
    host = managers.seated(store, step.name, emit)
    with (
        host.report.step("labels", "Labelling its node"),
        managers.managed(store, step.name) as lead,
    ):
        lead.swarm.change(host.block.node, labels=labels)
