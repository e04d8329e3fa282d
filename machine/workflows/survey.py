"""What all machines are doing now: each provider asked once, and engines as soon as it answers."""

from __future__ import annotations

import ipaddress
import re
import threading
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from machine.errors import MachineError
from machine.host import Host
from machine.model import Address, EngineInfo, Sighting, State, TlsFiles
from machine.store import Store
from machine.wait import Deadline

if TYPE_CHECKING:
    from machine.driver import Driver
    from machine.engine import Engine

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Row:
    """One machine as a listing shows it."""

    name: str
    driver: str = ""
    state: State = State.UNKNOWN
    url: str = ""
    engine_version: str = ""
    swarm: str = ""  # "manager" or "worker", or what keeps it from being one; "" outside of any
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
    answers: Answers[Mapping[str, Sighting] | tuple[str, EngineInfo | str]] = Answers(deadline)
    for cls, drivers in _by_provider(hosts.values()).items():
        answers.add(_sightings(cls, drivers))
    asked_at: dict[str, float] = {}
    for answer in answers:
        if isinstance(answer, tuple):
            name, info = answer
            rows[name] = _answered(rows[name], info, asked_at.pop(name) - deadline.left)
            continue
        running: dict[str, Address] = {}
        for name, sighting in answer.items():
            rows[name] = _seen(rows[name], hosts[name], sighting)
            if rows[name].url and sighting.address and hosts[name].is_asked:
                running[name] = sighting.address
        if engines:
            asked_at.update(dict.fromkeys(running, deadline.left))
            for (engine, _), asked in _by_engine(running, hosts).items():
                answers.add(_versions(engine, asked, deadline))
    for name in asked_at:
        rows[name] = _answered(rows[name], "its engine did not answer in time", 0)
    return list(rows.values())


class Answers(Generic[T]):
    """What many sources give, as it comes, until the deadline. Each source has a thread, which
    holds up neither the others nor the end of the program when the source hangs."""

    def __init__(self, deadline: Deadline) -> None:
        self._deadline = deadline
        self._queue: SimpleQueue[T | None] = SimpleQueue()
        self._sources = 0

    def add(self, source: Iterable[T]) -> None:
        def drain() -> None:
            for answer in source:
                self._queue.put(answer)
            self._queue.put(None)

        self._sources += 1
        threading.Thread(target=drain, daemon=True).start()

    def __iter__(self) -> Iterator[T]:
        while self._sources:
            try:
                answer = self._queue.get(timeout=self._deadline.left)
            except Empty:
                return
            if answer is None:
                self._sources -= 1
            else:
                yield answer


def _known(store: Store, name: str, hosts: dict[str, Host]) -> Row:
    """The row as the record alone gives it; a host that can be asked goes into ``hosts``."""
    try:
        record = store.load(name)
    except MachineError as exc:
        return Row(name, state=State.ERROR, error=exc.brief)
    row = Row(
        name,
        driver=record.driver_name,
        state=State.TIMEOUT,
        error="its provider did not answer",
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


def _by_provider(
    hosts: Iterable[Host],
) -> Mapping[type[Driver[Any, Any]], list[Driver[Any, Any]]]:
    groups = defaultdict(list)
    for host in hosts:
        groups[type(host.driver)].append(host.driver)
    return groups


def _sightings(
    cls: type[Driver[Any, Any]], drivers: Sequence[Driver[Any, Any]]
) -> Iterator[Mapping[str, Sighting]]:
    try:
        yield cls.survey(drivers)
    except Exception as exc:  # noqa: BLE001 - what is wrong with a driver costs its own rows
        problem = Sighting(State.ERROR, problem=str(exc))
        yield {driver.host.name: problem for driver in drivers}


def _seen(row: Row, host: Host, sighting: Sighting) -> Row:
    url = ""
    if sighting.state is State.RUNNING and sighting.address:
        url = host.engine.url(sighting.address)
    error = sighting.problem
    if not error and row.creating:
        error = f"its create has not ended (machine create --resume {row.name})"
    return replace(row, state=sighting.state, url=url, error=error)


def _by_engine(
    running: Mapping[str, Address], hosts: Mapping[str, Host]
) -> Mapping[tuple[type[Engine], str], dict[str, tuple[Address, TlsFiles]]]:
    """Groups that are asked side by side: an address that is a name has to be looked up first,
    which may hang."""
    groups: dict[tuple[type[Engine], str], dict[str, tuple[Address, TlsFiles]]] = defaultdict(dict)
    for name, address in running.items():
        host = hosts[name]
        groups[host.engine, _name(address.engine_at)][name] = (address, host.tls)
    return groups


def _name(place: str) -> str:
    """The name of a computer; "" for an address in figures."""
    try:
        ipaddress.ip_address(place)
    except ValueError:
        return place
    return ""


def _versions(
    cls: type[Engine], asked: Mapping[str, tuple[Address, TlsFiles]], deadline: Deadline
) -> Iterator[tuple[str, EngineInfo | str]]:
    left = set(asked)
    try:
        for name, answer in cls.survey(asked, timeout=deadline.left):
            left.discard(name)
            yield name, answer if isinstance(answer, EngineInfo) else answer.brief
    except Exception as exc:  # noqa: BLE001 - what is wrong with an engine costs its own rows
        for name in left:
            yield name, str(exc)


def _answered(row: Row, answer: EngineInfo | str, seconds: float) -> Row:
    if isinstance(answer, str):
        return replace(row, error=row.error or answer)
    state, _, role = answer.swarm.partition("/")
    swarm = "" if state == "inactive" else role or state
    return replace(row, engine_version=answer.version, swarm=swarm, response_seconds=seconds)


def natural(names: list[str]) -> list[str]:
    """Natural order: worker2 before worker10."""
    return sorted(
        names,
        key=lambda name: [
            (1, int(part), "") if part.isdigit() else (0, 0, part)
            for part in re.split(r"(\d+)", name.lower())
        ],
    )
