"""A project of containers on a machine: while its command runs, its files are there, its ports here."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

from machine import command, watch
from machine.errors import MachineError, PortTaken
from machine.events import Reporter
from machine.forward import LOOPBACK, Rule
from machine.host import Host
from machine.model import Project, Published
from machine.sync import Outcome, Synced
from machine.tree import Rules
from machine.workflows import forwards

SHOWN: Final = 5
"""Paths that one warning names."""


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the user chose."""

    also: tuple[Path, ...] = ()  # to be sent, besides what is mounted of the project's folder
    delete: bool = False
    overwrite: bool = False
    back: bool = False


@dataclass
class Composition:
    """One command of one project on one machine."""

    host: Host
    project: Project
    wishes: Wishes = field(default_factory=Wishes)
    _sending: threading.Lock = field(default_factory=threading.Lock, init=False)

    def send(self, report: Reporter, *, quietly: bool = False) -> None:
        """Bring what is mounted to the machine. Twice is fine. Raises GuestError."""
        places = self.synced()
        if not places:
            return
        with self._sending, _files(), self.host.guest() as guest:
            for each in places:
                with _told(report, f"Sending {each.root}", quietly=quietly):
                    outcome = each.send(
                        guest,
                        delete=self.wishes.delete,
                        overwrite=self.wishes.overwrite,
                        progress=partial(report.progress, "sync"),
                    )
                _tell(report, each.root, outcome, self.host.name)

    def fetch(self, report: Reporter) -> None:
        """Bring here what was changed or made on the machine. Raises GuestError."""
        with _files(), self.host.guest() as guest:
            for each in self.synced():
                with report.step("fetch", f"Fetching {each.root}"):
                    outcome = each.fetch(guest)
                _tell(report, each.root, outcome, self.host.name)

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
        return command.attached(*self.project.argv, env=self.host.client_env())

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
                try:
                    self.send(report, quietly=True)
                except MachineError as exc:
                    report.warn(f"What changed was not sent: {exc.line}")
        except OSError as exc:
            report.warn(f"Changes are not noticed: {exc}")

    def _open(self, port: Published) -> forwards.Forward:
        rule = Rule(port.port, port.port, port.host or LOOPBACK)
        with suppress(PortTaken):
            return forwards.open_(self.host, rule)
        return forwards.open_(self.host, Rule(0, port.port, rule.host))

    def _is_own(self, path: Path) -> bool:
        folder = self.project.folder
        return folder != Path("/") and path.is_relative_to(folder)

    def _is_sent(self, path: Path) -> bool:
        """A folder that the project's rules leave out is left out as a mount, too; a single file is
        not: a container cannot do without it."""
        if path in self.wishes.also or not self._is_own(path) or not path.is_dir():
            return path.exists()
        return not self._rules(self.project.folder).ignore(str(self._within(path)))

    def _within(self, path: Path) -> Path:
        return path.relative_to(self.project.folder)

    def _rules(self, root: Path) -> Rules:
        """The project's, which are about paths in its own folder."""
        project = self.project
        if not root.is_relative_to(project.folder):
            return Rules(lambda path: False)
        prefix = str(self._within(root))
        prefix = "" if prefix == "." else f"{prefix}/"
        return Rules(lambda path: project.ignore(prefix + path), project.ignore_is_final)


def plan(
    host: Host, arguments: Sequence[str], exclude: Sequence[str], wishes: Wishes
) -> Composition:
    """Raises PreflightError, EngineError, HostNotRunning."""
    project = host.engine.project(arguments, host.client_env(), exclude)
    host.require_running()
    host.driver.connect()
    return Composition(host, project, wishes)


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


def _tell(report: Reporter, root: Path, outcome: Outcome, name: str) -> None:
    warnings: dict[str, Sequence[str]] = {
        f"changed here and on {name}, and left as it is on both (--overwrite sends it)": (
            outcome.clash
        ),
        "changes all the time, and was not sent": outcome.restless,
        "cannot be read, and was not sent": outcome.unreadable,
        f"leads out of {root}, and what it names has to be on {name}": [
            f"{path} -> {target}" for path, target in outcome.leaving
        ],
    }
    for what, paths in warnings.items():
        if paths:
            report.warn(f"{_listed(root, paths)}: {what}")


def _listed(root: Path, paths: Sequence[str]) -> str:
    shown = ", ".join(repr(str(root / each))[1:-1] for each in paths[:SHOWN])
    more = len(paths) - SHOWN
    return f"{shown} and {more} more" if more > 0 else shown


def _instead(rule: Rule, port: Published) -> str:
    return "" if rule.local == port.port else f" ({port.port} is in use here)"
