"""What all machines are doing now: each provider asked once, engines side by side."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, replace
from typing import Any

from machine.driver import Driver
from machine.errors import MachineError
from machine.host import Host
from machine.model import Sighting, State
from machine.store import Store
from machine.wait import Deadline

WORKERS = 16
"""Engines asked at once; a thread waits on a socket, so this is not about cores."""


@dataclass(frozen=True, slots=True)
class Row:
    """One machine as a listing shows it."""

    name: str
    driver: str = ""
    state: State = State.UNKNOWN
    url: str = ""
    engine_version: str = ""
    error: str = ""
    labels: tuple[str, ...] = ()
    creating: bool = False  # its create has not ended (or was cut off)
    response_seconds: float = 0.0
    raw: Mapping[str, Any] | None = None  # the record, for templates


def survey(
    store: Store, names: Iterable[str] | None = None, *, timeout: float = 10, engines: bool = True
) -> list[Row]:
    """A row for every name, in the given order, whatever is wrong with it. ``timeout`` is seconds
    for everything together. ``engines`` asks running engines for their version too."""
    deadline = Deadline(timeout)
    rows: dict[str, Row] = {}
    hosts: dict[str, Host] = {}
    for name in store.names() if names is None else names:
        rows[name] = _known(store, name, hosts)
    for name, sighting in _sightings(list(hosts.values()), deadline).items():
        rows[name] = _seen(rows[name], hosts[name], sighting)
    if engines:
        running = [name for name in hosts if rows[name].url]
        rows.update(_engines([(rows[name], hosts[name]) for name in running], deadline))
    return list(rows.values())


def _known(store: Store, name: str, hosts: dict[str, Host]) -> Row:
    """The row as the record alone gives it; a host that can be asked goes into ``hosts``."""
    try:
        record = store.load(name)
    except MachineError as exc:
        return Row(name, state=State.ERROR, error=exc.brief)
    row = Row(
        name,
        driver=record.driver_name,
        labels=record.engine_options.labels,
        creating=record.block is not None and not record.block.journal.finished,
        raw=record.raw,
    )
    host = Host(store, record)
    try:
        _ = host.driver
    except MachineError as exc:
        return replace(row, state=State.ERROR, error=exc.brief)
    hosts[name] = host
    return row


def _sightings(hosts: Sequence[Host], deadline: Deadline) -> dict[str, Sighting]:
    """One survey per driver class, side by side; a provider that hangs costs only its own rows."""
    groups: dict[type[Driver[Any, Any]], list[Driver[Any, Any]]] = defaultdict(list)
    for host in hosts:
        groups[type(host.driver)].append(host.driver)
    seen = {h.name: Sighting(State.TIMEOUT, problem="its provider did not answer") for h in hosts}
    if not groups:
        return {}
    pool = ThreadPoolExecutor(max_workers=len(groups))
    asked = {pool.submit(cls.survey, drivers): drivers for cls, drivers in groups.items()}
    done, _ = wait(asked, timeout=deadline.left)
    pool.shutdown(wait=False, cancel_futures=True)
    for future in done:
        problem = future.exception()
        if problem is None:
            seen.update(future.result())
        else:
            bad = {d.host.name: Sighting(State.ERROR, problem=str(problem)) for d in asked[future]}
            seen.update(bad)
    return seen


def _seen(row: Row, host: Host, sighting: Sighting) -> Row:
    url = ""
    if sighting.state is State.RUNNING and sighting.address:
        url = host.engine.url(sighting.address)
    error = sighting.problem
    if not error and row.creating:
        error = f"its create has not ended (machine create --resume {row.name})"
    return replace(row, state=sighting.state, url=url, error=error)


def _engines(running: Sequence[tuple[Row, Host]], deadline: Deadline) -> dict[str, Row]:
    if not running:
        return {}
    pool = ThreadPoolExecutor(max_workers=min(WORKERS, len(running)))
    asked = {pool.submit(_version, row, host, deadline): row for row, host in running}
    done, late = wait(asked, timeout=deadline.left)
    pool.shutdown(wait=False, cancel_futures=True)
    rows = {asked[future].name: future.result() for future in done}
    rows.update(
        {asked[f].name: replace(asked[f], error="its engine did not answer in time") for f in late}
    )
    return rows


def _version(row: Row, host: Host, deadline: Deadline) -> Row:
    started = deadline.left
    try:
        address = host.driver.address()
        info = host.engine.probe(address, host.tls, timeout=max(0.1, deadline.left))
    except MachineError as exc:
        return replace(row, error=row.error or exc.brief)
    return replace(row, engine_version=info.version, response_seconds=started - deadline.left)
