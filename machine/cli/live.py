"""Progress on a terminal: a line for every finished step, and moving rows for those at work."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from rich.console import Console, ConsoleRenderable, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.spinner import Spinner
from rich.table import Table
from rich.text import Text

from machine.cli import output
from machine.events import Event, Note, Progress, Question, StepEnded, StepStarted
from machine.redaction import redact

TICK = 0.1
"""Seconds between two drawings."""
MARGIN = 3
"""Columns that stay empty, so that the ^C which a terminal echoes does not begin a new line."""
BAR = 20
WIDE = 64
"""Columns that a bar with its figures needs."""


@dataclass(slots=True)
class Transfer:
    """How far a step is; its speed counts from the first event, so a resumed one is right too."""

    began: float
    first: int
    done: int
    total: int | None
    unit: str

    def figures(self, now: float) -> list[str]:
        """Amount, speed and the time that is left, as far as they are known."""
        size, suffix = _scale(self.total or self.done) if self.unit == "B" else (1, self.unit)
        total = "" if self.total is None else f"/{self.total // size}"
        shown = [f"{self.done // size}{total} {suffix}".rstrip()]
        speed = (self.done - self.first) / max(now - self.began, TICK)
        if speed and self.unit == "B":
            size, suffix = _scale(int(speed))
            shown.append(f"{speed / size:.1f} {suffix}/s")
        if speed and self.total is not None:
            shown.append(f"{(self.total - self.done) / speed:.0f} s left")
        return shown


@dataclass(slots=True)
class Step:
    """One step and those inside it; ``seconds`` is None while it runs."""

    name: str
    title: str
    began: float
    seconds: float | None = None
    ending: str = ""  # "failed after", "stopped after"
    inner: list[Step] = field(default_factory=list)
    transfer: Transfer | None = None

    @property
    def moving(self) -> Transfer | None:
        """What is still to be transferred; a step may have other work before and after it."""
        transfer = self.transfer
        if self.seconds is not None or transfer is None or transfer.done == transfer.total:
            return None
        return transfer


class Display:
    """The sink for a terminal. Draws from the first step on, until ``close``. Everything that is
    drawn is drawn under one lock, so that lines and rows never meet."""

    def __init__(self, *, several: bool) -> None:
        self._several = several
        self._running: dict[str, list[Step]] = {}  # by machine, the outermost first
        self._console = Console(
            stderr=True, force_terminal=True, force_interactive=True, highlight=False
        )
        self._live = Live(
            console=self._console,
            get_renderable=self._rows,
            auto_refresh=False,
            transient=True,
            redirect_stdout=False,
        )
        drawn = self._console.encoding.startswith("utf")
        self._spinner = Spinner("dots" if drawn else "line", style="cyan")
        self._marks = ("✓", "✗") if drawn else ("+", "x")
        self._lock = threading.RLock()
        self._closed = threading.Event()

    def expect(self, names: Iterable[str]) -> None:
        """The machines that will be worked on, in the order of their rows."""
        with self._lock:
            self._running.update((name, []) for name in names)

    def __call__(self, event: Event) -> None:
        with self._lock:
            if self._closed.is_set():
                return
            match event:
                case StepStarted(host, name, title):
                    self._begin(host, Step(name, title, time.monotonic()))
                case StepEnded(host, name, seconds, error):
                    self._end(host, name, seconds, "failed after" if error else "")
                case Progress(host, name, done, total, unit):
                    self._move(host, name, done, total, unit)
                case Note(host, text, warning):
                    style = "yellow" if warning else ""
                    said = f"{self._label(host)}{'Warning: ' if warning else ''}{text}"
                    self._console.print(Text(redact(said), style))
                case Question(host):
                    self._ask(event, self._label(host))

    def close(self) -> None:
        """Leave the terminal as it was found, with a line for what was still running. Twice is
        fine; later events are not shown."""
        with self._lock:
            if self._closed.is_set():
                return
            for host, steps in self._running.items():
                for step in reversed(steps):
                    self._end(host, step.name, time.monotonic() - step.began, "stopped after")
            self._closed.set()
            self._live.stop()

    def _ask(self, question: Question, label: str) -> None:
        """The rows are gone while the user types."""
        drawing = self._live.is_started
        self._live.stop()
        output.question(question, label)
        if drawing:
            self._live.start(refresh=True)

    def _begin(self, host: str, step: Step) -> None:
        steps = self._running.setdefault(host, [])
        if steps:
            steps[-1].inner.append(step)
        steps.append(step)
        if not self._live.is_started:
            self._live.start(refresh=True)
            threading.Thread(target=self._tick, daemon=True).start()

    def _end(self, host: str, name: str, seconds: float, ending: str) -> None:
        steps = self._running.get(host, [])
        step = next((each for each in reversed(steps) if each.name == name), None)
        if step is None:
            return
        steps.remove(step)
        step.seconds, step.ending = seconds, ending
        if not steps:
            for line in self._lines(host, step):
                self._console.print(line)

    def _move(self, host: str, name: str, done: int, total: int | None, unit: str) -> None:
        for step in self._running.get(host, []):
            if step.name != name:
                continue
            going = step.transfer
            if (
                going is None or going.total != total or going.done > done
            ):  # a step may have several
                step.transfer = going = Transfer(time.monotonic(), done, done, total, unit)
            going.done = done

    def _tick(self) -> None:
        while not self._closed.wait(TICK):
            with self._lock:
                if not self._closed.is_set():
                    self._live.refresh()

    def _rows(self) -> Group:
        rows: list[ConsoleRenderable] = []
        for host, steps in self._running.items():
            if self._several:
                rows.extend(self._row(host, step) for step in steps[-1:])
            elif steps:
                rows.extend(self._lines(host, steps[0]))
        return Group(*rows)

    def _lines(self, host: str, step: Step, depth: int = 0) -> Iterator[ConsoleRenderable]:
        """A step, how far it is, and the steps inside it."""
        yield self._row(host, step, depth)
        if moving := step.moving:
            yield self._bar(moving, depth + 1)
        for each in step.inner:
            yield from self._lines(host, each, depth + 1)

    def _row(self, host: str, step: Step, depth: int = 0) -> Text:
        good, bad = self._marks
        if step.seconds is None:
            mark, after = self._frame(), f"{time.monotonic() - step.began:.0f} s"
        elif step.ending:
            mark, after = Text(bad, "red"), f"{step.ending} {step.seconds:.1f} s"
        else:
            mark, after = Text(good, "green"), f"{step.seconds:.1f} s"
        if self._several and (moving := step.moving) and moving.total:
            after += f"  {100 * moving.done // moving.total} %"
        row = Text.assemble(self._label(host) + "  " * depth, mark, " ", step.title)
        self._fit(row, len(after) + 2)
        return row.append("  ").append(after, "dim")

    def _bar(self, transfer: Transfer, depth: int) -> ConsoleRenderable:
        indent = "  " * depth
        figures = "  ".join(transfer.figures(time.monotonic()))
        if self._console.width < WIDE or not transfer.total:
            row = Text(indent + figures)
            self._fit(row)
            return row
        grid = Table.grid(padding=(0, 2, 0, 0))
        grid.add_row(indent[2:], ProgressBar(transfer.total, transfer.done, width=BAR), figures)
        return grid

    def _fit(self, row: Text, room: int = 0) -> None:
        """Cut a row so that it and ``room`` further columns fit on one line."""
        row.truncate(max(self._console.width - MARGIN - room, 1), overflow="ellipsis")

    def _frame(self) -> Text:
        frame = self._spinner.render(time.monotonic())
        assert isinstance(frame, Text)
        return frame

    def _label(self, host: str) -> str:
        if not self._several or not host:
            return ""
        widest = max(map(len, self._running), default=0)
        return f"{host:<{widest}}  "


def _scale(number: int) -> tuple[int, str]:
    """The unit in which an amount of bytes has the fewest digits but more than one."""
    for power, suffix in ((30, "GiB"), (20, "MiB"), (10, "KiB")):
        if number >= 10 << power:
            return 1 << power, suffix
    return 1, "B"
