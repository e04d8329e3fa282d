"""Looking at all machines again and again, with little asked of each: what `top` shows."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, Final, Generic, TypeVar

from machine.driver import Driver
from machine.errors import EngineUnreachable, MachineError
from machine.host import Host
from machine.model import Amount, Source, Standing, State, Usage
from machine.store import Store
from machine.wait import Deadline
from machine.workflows import measure
from machine.workflows.survey import Answers, Row, survey

T = TypeVar("T")
PATIENCE: Final = 5.0
"""Seconds that a look waits for the answers of engines and hosts; later ones are there for the next."""
ANSWER: Final = 20.0
"""Seconds until a connection is given up whose answer does not come."""
SURVEY: Final = 8.0
"""Seconds for the providers' before that; a host that is dead takes the generic driver 5."""
STANDING_LASTS: Final = 30.0
"""Seconds until an engine is asked again for what seldom changes."""
PROVIDER_LASTS: Final = 10.0
"""Likewise whoever is not on this computer for a machine's state, as long as nothing else changes."""
LOGIN_PAUSE: Final = 30.0
"""Seconds after a login that failed: hosts shut those out who knock too often."""
_LOST: Final = (State.UNKNOWN, State.TIMEOUT, State.ERROR)
"""Who did not answer may well be silent again, and nobody else is to wait for that."""
SILENT: Final = "its engine did not answer in time"


@dataclass(frozen=True, slots=True)
class Watched:
    """One machine as it was seen last."""

    row: Row
    cpu: float | None = None  # share of all its processors since the look before; 1 is all of them
    cpus: int | None = None
    memory: Amount | None = None
    disk: Amount | None = None
    containers: Mapping[str, str] | None = None  # the state of each; None: not known
    no_login: str = ""  # why it cannot say itself what is in use, though it was asked
    step: str = ""  # where its create is, if that has not ended
    done: tuple[str, ...] = ()  # the steps before it
    at_work: bool = False  # somebody works on that create now

    @property
    def name(self) -> str:
        return self.row.name

    @property
    def running(self) -> int:
        """Of its containers."""
        return list((self.containers or {}).values()).count("running")


@dataclass(frozen=True, slots=True)
class Glance:
    """What an engine says at one look."""

    standing: Standing
    containers: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class NoLogin:
    why: str


Answer = Glance | Usage | NoLogin | str
"""A string is why an engine does not answer."""


class Line(Generic[T]):
    """A host that is asked again and again over one connection. ``answers`` opens it, gives an answer
    whenever the next is asked for, and closes it in its end; once it failed it is opened anew. One
    question at a time. ``pause`` is seconds after a failure in which it is not tried again."""

    def __init__(self, answers: Callable[[Host], Iterator[T]], *, pause: float = 0) -> None:
        self._open, self._pause = answers, pause
        self._failed: tuple[Deadline, BaseException] | None = None
        self._answers: Iterator[T] | None = None
        self._busy = threading.Lock()

    @property
    def is_open(self) -> bool:
        return self._answers is not None

    def ask(self, host: Host, *, wait: float = 0) -> T:
        """Raises what ``answers`` does, and EngineUnreachable where the question before has had no
        answer after ``wait`` further seconds."""
        if not self._busy.acquire(timeout=wait):
            raise EngineUnreachable(SILENT)
        try:
            if self._failed and not self._failed[0].over:
                raise self._failed[1].with_traceback(None)
            self._answers = self._answers or self._open(host)
            return next(self._answers)
        except BaseException as exc:
            self._answers = None
            if not self._failed or self._failed[1] is not exc:
                self._failed = (Deadline(self._pause), exc)
            raise
        finally:
            self._busy.release()


def glances(host: Host) -> Iterator[Glance]:
    with host.api(timeout=ANSWER) as client:
        while True:
            standing, deadline = host.engine.standing(client), Deadline(STANDING_LASTS)
            while not deadline.over:
                yield Glance(standing, host.engine.containers(client))


@dataclass
class Watch:
    """The machines of a store, and the connections to them that are kept between two looks."""

    store: Store
    patience: float = PATIENCE
    everywhere: bool = False
    inside: set[str] = field(default_factory=set)
    """Machines (``everywhere``: all) that are logged in to: they say themselves what is in use."""
    _rows: dict[str, tuple[Row, Deadline]] = field(default_factory=dict)
    _engines: dict[str, Line[Glance]] = field(default_factory=dict)
    _logins: dict[str, Line[Usage]] = field(default_factory=dict)
    _samples: dict[tuple[str, bool], tuple[float, float]] = field(default_factory=dict)
    _slow: set[str] = field(default_factory=set)  # that are being asked for, and not waited for

    @property
    def has_samples(self) -> bool:
        """Whether another look will know shares of processors."""
        return bool(self._samples)

    def is_inside(self, name: str) -> bool:
        return self.everywhere or name in self.inside

    def renew(self, name: str) -> None:
        """The next look asks for its state in any case: something was done to it."""
        if name in self._rows:
            self._rows[name] = (self._rows[name][0], Deadline(0))

    def look(self, names: Iterable[str]) -> list[Watched]:
        """In the given order. Whatever is wrong with a machine costs its own row only. One look at
        a time."""
        hosts = {name: self._host(name) for name in names}
        seen = self._states(hosts)
        up = {
            name: host
            for name, host in hosts.items()
            if host and seen[name].row.state is State.RUNNING and seen[name].row.url
        }
        self._forget(up)
        asked = {name for name, host in up.items() if host.is_asked}
        answers: Answers[tuple[str, Answer]] = Answers(Deadline(self.patience))
        for source in (*self._engine_answers(up, asked), *self._usages(up)):
            answers.add(source)
        for name, answer in answers:
            if isinstance(answer, (Glance, str)):
                asked.discard(name)
            seen[name] = self._told(seen[name], answer)
        for name in asked:
            seen[name] = self._told(seen[name], SILENT)
        return list(seen.values())

    def _host(self, name: str) -> Host | None:
        """None for one that cannot be asked anything: the survey says why."""
        try:
            host = Host.load(self.store, name)
            _ = host.driver, host.engine
        except MachineError:
            return None
        return host

    def _states(self, hosts: Mapping[str, Host | None]) -> dict[str, Watched]:
        due = {name for name, host in hosts.items() if self._is_due(name, host)} - self._slow
        slow = {name for name in due & self._rows.keys() if self._rows[name][0].state in _LOST}
        self._survey(due - slow)
        if slow:
            self._slow |= slow
            threading.Thread(target=self._survey, args=(slow,), daemon=True).start()
        return {name: self._recorded(self._rows[name][0], host) for name, host in hosts.items()}

    def _survey(self, names: set[str]) -> None:
        for row in survey(self.store, names, timeout=SURVEY, engines=False):
            self._rows[row.name] = (row, Deadline(PROVIDER_LASTS))
        self._slow -= names

    def _is_due(self, name: str, host: Host | None) -> bool:
        """Whoever is on this computer is asked every time: it is one call for all of them. A cloud
        counts its calls, and for each to a host a process starts there."""
        row, deadline = self._rows.get(name, (None, None))
        if row is None or deadline is None or deadline.over or host is None:
            return True
        if host.driver.source in (Source.IMAGE, Source.ENGINE) or not host.block.journal.finished:
            return True
        engine = self._engines.get(name)
        return row.state is State.RUNNING and engine is not None and not engine.is_open

    def _recorded(self, row: Row, host: Host | None) -> Watched:
        """With how far its create is."""
        if host is None or host.block.journal.finished:
            return Watched(row)
        journal = host.block.journal
        held = self.store.is_held(row.name)
        return Watched(row, step=journal.step, done=tuple(journal.done), at_work=held)

    def _forget(self, up: Mapping[str, Host]) -> None:
        for lines in (self._engines, self._logins):
            for name in lines.keys() - up.keys():
                del lines[name]
        for name in [name for name in self._logins if not self.is_inside(name)]:
            del self._logins[name]
        for key in [key for key in self._samples if key[0] not in up]:
            del self._samples[key]

    def _engine_answers(
        self, up: Mapping[str, Host], asked: Iterable[str]
    ) -> Iterator[Iterator[tuple[str, Glance | str]]]:
        for name in asked:
            line = self._engines.setdefault(name, Line(glances))
            yield _answer(name, line, up[name], self.patience)

    def _usages(self, up: Mapping[str, Host]) -> Iterator[Iterator[tuple[str, Usage | NoLogin]]]:
        """Of those that say it themselves, and by provider of all others."""
        groups: dict[type[Driver[Any, Any]], list[Driver[Any, Any]]] = defaultdict(list)
        for name, host in up.items():
            if self.is_inside(name) and host.has_login:
                yield _said(
                    name,
                    self._logins.setdefault(name, Line(measure.usages, pause=LOGIN_PAUSE)),
                    host,
                )
            else:
                groups[type(host.driver)].append(host.driver)
        for cls, drivers in groups.items():
            yield _provided(cls, drivers)

    def _told(self, watched: Watched, answer: Answer) -> Watched:
        row = watched.row
        match answer:
            case Usage():
                share = self._share(row.name, answer)
                cpus, memory, disk = answer.cpus, answer.memory, answer.disk
                return replace(watched, cpu=share, cpus=cpus, memory=memory, disk=disk)
            case NoLogin(why):
                return replace(watched, no_login=why)
            case Glance(standing, containers):
                row = replace(row, engine_version=standing.version, swarm=standing.role)
                return replace(watched, row=row, containers=containers)
            case _:
                return replace(watched, row=replace(row, error=row.error or answer))

    def _share(self, name: str, usage: Usage) -> float | None:
        """None at the first time, and after a restart."""
        if usage.cpu_seconds is None or not usage.cpus:
            return None
        key, now = (name, self.is_inside(name)), time.monotonic()
        at, before = self._samples.get(key, (now, usage.cpu_seconds))
        self._samples[key] = (now, usage.cpu_seconds)
        if now <= at or usage.cpu_seconds < before:
            return None
        return (usage.cpu_seconds - before) / (now - at) / usage.cpus


def _answer(
    name: str, line: Line[Glance], host: Host, wait: float
) -> Iterator[tuple[str, Glance | str]]:
    try:
        yield name, line.ask(host, wait=wait)
    except MachineError as exc:
        yield name, exc.brief
    except Exception as exc:  # noqa: BLE001 - what is wrong with an engine costs its own row
        yield name, str(exc) or type(exc).__name__


def _said(name: str, line: Line[Usage], host: Host) -> Iterator[tuple[str, Usage | NoLogin]]:
    try:
        yield name, line.ask(host)
    except MachineError as exc:
        yield name, NoLogin(exc.brief)
    except Exception as exc:  # noqa: BLE001 - likewise
        yield name, NoLogin(str(exc) or type(exc).__name__)


def _provided(
    cls: type[Driver[Any, Any]], drivers: Sequence[Driver[Any, Any]]
) -> Iterator[tuple[str, Usage]]:
    with suppress(Exception):  # a provider that cannot tell shows no figures
        yield from cls.usage(drivers).items()
