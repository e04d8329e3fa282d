"""A project of containers on a machine: while its command runs, its files are there, its ports here."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Final

from machine import command, watch
from machine.errors import MachineError, PortTaken
from machine.events import Reporter
from machine.forward import LOOPBACK, Rule
from machine.host import Host
from machine.model import Project, Published
from machine.store import Store
from machine.sync import Outcome, Synced
from machine.tree import Rules
from machine.workflows import forwards, managers

SHOWN: Final = 5
"""Paths that one warning names."""


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the user chose."""

    also: tuple[Path, ...] = ()  # to be sent, besides what is mounted of the project's folder
    delete: bool = False
    overwrite: bool = False
    back: bool = False


USUAL: Final = Wishes()


@dataclass
class Composition:
    """One command of one project on one machine."""

    host: Host  # whose engine the client talks to
    project: Project
    wishes: Wishes = USUAL
    others: Sequence[Host] = ()  # of its Swarm, which have the files, too
    _sending: threading.Lock = field(default_factory=threading.Lock, init=False)
    _warned: set[str] = field(default_factory=set, init=False)

    @property
    def hosts(self) -> list[Host]:
        return [self.host, *self.others]

    def send(self, host: Host, report: Reporter, *, quietly: bool = False) -> None:
        """Bring what is mounted to a machine. Twice is fine. Raises GuestError, HostNotRunning."""
        places = self.synced()
        if not places:
            return
        host.require_running()
        with _files(), host.guest() as guest:
            for each in places:
                with _told(report, f"Comparing {each.root}", quietly=quietly):
                    outcome = each.send(
                        guest,
                        delete=self.wishes.delete,
                        overwrite=self.wishes.overwrite,
                        progress=partial(report.progress, "sync"),
                    )
                self._tell(report, host, each.root, outcome, "sent")

    def fetch(self, host: Host, report: Reporter) -> None:
        """Bring here what was changed or made on a machine. Raises GuestError."""
        with _files(), host.guest() as guest:
            for each in self.synced():
                with report.step("fetch", f"Comparing {each.root}"):
                    outcome = each.fetch(guest)
                self._tell(report, host, each.root, outcome, "fetched")

    def synced(self) -> list[Synced]:
        """Of what is mounted the outermost folders that are the project's own, or asked for."""
        wanted = {each for each in self.project.mounts if self._is_own(each)} | {*self.wishes.also}
        outermost = sorted(
            each for each in wanted if not any(above in wanted for above in each.parents)
        )
        return [Synced(each, self._rules(each)) for each in outermost if self._is_sent(each)]

    def foreign(self) -> list[Path]:
        """What is mounted and is not sent: it is the machine's own."""
        sent = [each.root for each in self.synced()]
        return [
            each
            for each in self.project.mounts
            if not any(each.is_relative_to(root) for root in sent)
        ]

    @contextmanager
    def forwarded(self, report: Reporter) -> Iterator[None]:
        """The project's ports, open on this computer meanwhile."""
        with ExitStack() as stack:
            for port in self.project.ports:
                if port.protocol != "tcp":
                    report.warn(f"{port.service}: {port.protocol} {port.port} is not forwarded")
                    continue
                before = {each.control for each in forwards.of(self.host.block.id)}
                opened = self._open(port)
                if opened.control not in before:
                    stack.callback(forwards.close, opened)
                report.note(f"{port.service}: {opened.rule.here}{_instead(opened.rule, port)}")
            yield

    @contextmanager
    def watched(self, report: Reporter) -> Iterator[None]:
        """Send what changes meanwhile; what goes wrong with that is told, and tried again at the next
        change."""
        stop = threading.Event()
        threads = [
            threading.Thread(target=self._watch, args=(seen, report), daemon=True)
            for seen in self._watching(stop)
        ]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            stop.set()
            for thread in threads:
                thread.join()

    def run(self) -> int:
        """The client's program; answers its code."""
        return command.foreground(*self.project.argv, env=self.host.client_env())

    def _watching(self, stop: threading.Event) -> Iterator[Iterator[None]]:
        """Of a single file its folder is watched: editors put a new file in its place."""
        roots = [each.root for each in self.synced()]
        if folders := [each for each in roots if each.is_dir()]:
            yield watch.changes(folders, stop)
        if files := {each.parent for each in roots if each.is_file()}:
            yield watch.changes(sorted(files), stop, deep=False)

    def _watch(self, seen: Iterator[None], report: Reporter) -> None:
        try:
            for _ in seen:
                with self._sending:  # folders and single files have a thread each
                    for host in self.hosts:
                        self._send_change(host, report)
        except OSError as exc:
            report.warn(f"Changes are not noticed: {exc}")

    def _send_change(self, host: Host, report: Reporter) -> None:
        try:
            self.send(host, report, quietly=True)
        except MachineError as exc:
            report.warn(f"What changed was not sent to {host.name}: {exc.line}")

    def _open(self, port: Published) -> forwards.Forward:
        rule = Rule(port.port, port.port, port.host or LOOPBACK)
        with suppress(PortTaken):
            return forwards.open_(self.host, rule, owner=os.getpid())
        return forwards.open_(self.host, replace(rule, local=0), owner=os.getpid())

    def _tell(self, report: Reporter, host: Host, root: Path, outcome: Outcome, verb: str) -> None:
        """What was done; a warning once."""
        if outcome.moved:
            report.note(f"{_listed(root, sorted(outcome.moved))} {verb}")
        if outcome.removed:
            report.note(f"{_listed(root, outcome.removed)} removed from {host.name}")
        for text in _warnings(root, outcome, host.name):
            if text not in self._warned:
                self._warned.add(text)
                report.warn(text)

    def _is_own(self, path: Path) -> bool:
        folder = self.project.folder
        return folder != Path("/") and path.is_relative_to(folder)

    def _is_sent(self, path: Path) -> bool:
        """A folder that the project's rules leave out is left out as a mount, too; a single file is
        not: a container cannot do without it."""
        return path in self.wishes.also or not (path.is_dir() and self._is_ignored(path))

    def _is_ignored(self, path: Path) -> bool:
        folder = self.project.folder
        return (
            path != folder and self._is_own(path) and self.project.ignore(str(self._within(path)))
        )

    def _within(self, path: Path) -> Path:
        return path.relative_to(self.project.folder)

    def _rules(self, root: Path) -> Rules:
        """The project's, which are about paths in its own folder."""
        project = self.project
        if not self._is_own(root) or self._is_ignored(root):  # and is sent: it was asked for
            return Rules(lambda path: False)
        prefix = str(self._within(root))
        prefix = "" if prefix == "." else f"{prefix}/"
        return Rules(lambda path: project.ignore(prefix + path), project.ignore_is_final)


def plan(
    host: Host,
    arguments: Sequence[str],
    exclude: Sequence[str] = (),
    wishes: Wishes = USUAL,
    others: Sequence[Host] = (),
) -> Composition:
    """Raises PreflightError, EngineError, HostNotRunning."""
    project = host.engine.project(arguments, host.client_env(), exclude)
    host.require_running()
    host.driver.connect()
    return Composition(host, project, wishes, others)


def of_swarm(store: Store, name: str) -> tuple[Host, list[Host]]:
    """The first manager that answers of the Swarm that a machine is in, and its other machines.
    Raises HostError, SwarmUnreachable."""
    with managers.managed(store, name) as lead:
        first, names = lead.host, managers.machines(store, lead).values()
    return first, [Host.load(store, each) for each in sorted(names) if each != first.name]


@contextmanager
def _files() -> Iterator[None]:
    """What this computer refuses is an error of its user's, not of ours."""
    try:
        yield
    except OSError as exc:
        raise MachineError(
            f"The files of this computer cannot be used: {exc.strerror or exc}",
            details=str(exc.filename or ""),
        ) from exc


@contextmanager
def _told(report: Reporter, title: str, *, quietly: bool) -> Iterator[None]:
    if quietly:
        yield
        return
    with report.step("sync", title):
        yield


def _listed(root: Path, paths: Sequence[str]) -> str:
    shown = ", ".join(repr(str(root / each))[1:-1] for each in paths[:SHOWN])
    more = len(paths) - SHOWN
    return f"{shown} and {more} more" if more > 0 else shown


def _instead(rule: Rule, port: Published) -> str:
    return "" if rule.local == port.port else f" ({port.port} is not free here)"


def _warnings(root: Path, outcome: Outcome, name: str) -> Iterator[str]:
    leaving = [f"{path} -> {target}" for path, target in outcome.leaving]
    for what, paths in (
        (f"changed here and on {name}: left as it is (--overwrite sends it)", outcome.clash),
        ("changed whenever it was read: not sent", outcome.restless),
        ("cannot be read: not sent", outcome.unreadable),
        (f"leads out of {root}: what it names has to be on {name}", leaving),
    ):
        if paths:
            yield f"{_listed(root, paths)}: {what}"
