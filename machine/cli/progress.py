"""Events of the core as rows, plain lines or JSON, and workflows that Ctrl-C ends within two seconds."""

from __future__ import annotations

import dataclasses
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import partial
from typing import TYPE_CHECKING, Final, TypeVar

from machine.cli import output
from machine.errors import MachineError, gathered
from machine.events import Emit, Event, Note, Progress, Question, StepEnded, StepStarted

if TYPE_CHECKING:
    from machine.cli.live import Display
    from machine.store import Store

T = TypeVar("T")
BETWEEN: Final = 3.0
"""Seconds between two plain lines of a transfer."""

_displays: list[Display] = []


def sink(*, as_json: bool, prefix: bool = False) -> Emit:
    """Where events go until ``run`` ends. ``prefix`` says that several machines are worked on."""
    if as_json:
        return _json
    if not _on_terminal():
        return Lines(prefix=prefix)
    from machine.cli.live import Display

    _displays.append(Display(several=prefix))
    return _displays[-1]


def _on_terminal() -> bool:
    """Whether rows can be redrawn where standard error goes. The logs of a CI that lends its jobs
    a terminal are read as text later."""
    movable = os.environ.get("TERM", "dumb") not in ("dumb", "unknown")
    return sys.stderr.isatty() and movable and not os.environ.get("CI")


def _close() -> None:
    for display in _displays:
        display.close()
    _displays.clear()


class Lines:
    """One line a step when it ends, with its seconds; a transfer that takes long says how far it is
    every few seconds."""

    def __init__(self, *, prefix: bool) -> None:
        self._prefix = prefix
        self._titles: dict[tuple[str, str], str] = {}
        self._said: dict[tuple[str, str], float] = {}
        self._lock = threading.Lock()

    def __call__(self, event: Event) -> None:
        with self._lock:
            name = f"({event.host}) " if self._prefix and event.host else ""
            match event:
                case StepStarted(host, step, title):
                    self._titles[host, step] = title
                    output.say(f"{name}{title} ...")
                case StepEnded(host, step, seconds, error):
                    title = self._titles.pop((host, step), step)
                    word = "failed after" if error else "done in"
                    output.say(f"{name}{title}: {word} {seconds:.1f} s")
                case Progress(host, step, done, total, unit):
                    self._progress(name, (host, step), done, total, unit)
                case Note(_, text, warning):
                    output.say(f"{name}{'Warning: ' if warning else ''}{text}")
                case Question():
                    output.question(event, name)

    def _progress(
        self, name: str, key: tuple[str, str], done: int, total: int | None, unit: str
    ) -> None:
        now = time.monotonic()
        if now - self._said.setdefault(key, now) < BETWEEN:
            return
        self._said[key] = now
        size, suffix = (1 << 20, " MiB") if unit == "B" else (1, "")
        of = f" of {total // size}" if total else ""
        output.say(f"{name}  {done // size}{of}{suffix}")


def _json(event: Event) -> None:
    if isinstance(event, Question):  # a program reads this: there is nobody to ask
        return
    output.json_line(type(event).__name__, dataclasses.asdict(event))


def run(
    jobs: Mapping[str, Callable[[], T]],
    *,
    parallel: int | None = None,
    done: Callable[[str, T], None] = lambda name, result: None,
    left: Callable[[str], str] | None = None,
) -> dict[str, T]:
    """Run one job per machine side by side, ``parallel`` at a time, or as many as there are
    processors. Every job is run to its end, and only then ``done`` is called for each that
    succeeded, in the order of the names, and what went wrong is raised: the one error, or Several.
    Ctrl-C ends the program at once, whatever C call a worker is in: what exists is on disk.
    ``left`` says, by machine, what exists now and what to type."""
    for display in _displays:
        display.expect(jobs)
    pool = ThreadPoolExecutor(max_workers=parallel or max(2, os.cpu_count() or 2))
    try:
        futures: dict[str, Future[T]] = {name: pool.submit(job) for name, job in jobs.items()}
        pending = set(futures.values())
        while pending:
            _, pending = wait(pending, timeout=0.2)
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # a second one must not cut the messages off
        _close()
        output.say("\nInterrupted.")
        for name in jobs:
            if left:
                output.say(left(name))
        sys.stdout.flush()
        os._exit(130)
    _close()
    pool.shutdown()
    errors = {name: exc for name, each in futures.items() if (exc := each.exception())}
    results = {name: each.result() for name, each in futures.items() if name not in errors}
    for name, result in results.items():
        done(name, result)
    if errors:
        raise _gathered(errors)
    return results


def each(
    store: Store,
    names: Sequence[str],
    work: Callable[..., T],
    *,
    as_json: bool,
    parallel: int | None = None,
    done: Callable[[str, T], None] = lambda name, result: None,
    left: Callable[[str], str] | None = None,
) -> dict[str, T]:
    """``run`` a workflow for every machine: ``work`` is called with the store, a name, and where its
    events go."""
    emit = sink(as_json=as_json, prefix=len(names) > 1)
    jobs = {name: partial(work, store, name, emit) for name in names}
    return run(jobs, parallel=parallel, done=done, left=left)


def _gathered(errors: Mapping[str, BaseException]) -> BaseException:
    """A bug of ours is raised as it is, when the others have been told."""
    told = {name: exc for name, exc in errors.items() if isinstance(exc, MachineError)}
    bugs = [exc for exc in errors.values() if not isinstance(exc, MachineError)]
    if bugs and told:
        output.error(gathered(told))
    return bugs[0] if bugs else gathered(told)
