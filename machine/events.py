"""What the core says while it works; only ``machine.cli`` turns these into text."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class StepStarted:
    host: str
    step: str
    title: str


@dataclass(frozen=True, slots=True)
class StepEnded:
    host: str
    step: str
    seconds: float
    error: str = ""


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a step is; ``total`` is None where it is not known. ``unit`` is "B" for bytes."""

    host: str
    step: str
    done: int
    total: int | None
    unit: str = "B"


@dataclass(frozen=True, slots=True)
class Note:
    """One line worth knowing; ``warning`` when the user may want to act on it."""

    host: str
    text: str
    warning: bool = False


@dataclass(slots=True)
class Question:
    """Something that only the user knows. A sink that has the user before it sets ``answer``, and
    returns then; None: there is nobody to ask."""

    host: str
    text: str
    hidden: bool = False  # a secret: not shown while it is typed
    answer: str | None = None


Event = StepStarted | StepEnded | Progress | Note | Question
Emit = Callable[[Event], None]


def ignore(event: Event) -> None:
    """The sink for callers that do not show progress."""


@dataclass(frozen=True, slots=True)
class Reporter:
    """One host's (or one job's) line to the sink; every service that takes long is given one."""

    emit: Emit = ignore
    host: str = ""

    @contextmanager
    def step(self, step: str, title: str) -> Iterator[None]:
        """Say that a step starts, and that it ended, with its time and its error if it raised."""
        started = time.monotonic()
        self.emit(StepStarted(self.host, step, title))
        try:
            yield
        except BaseException as exc:
            elapsed = time.monotonic() - started
            self.emit(StepEnded(self.host, step, elapsed, str(exc) or type(exc).__name__))
            raise
        self.emit(StepEnded(self.host, step, time.monotonic() - started))

    def progress(self, step: str, done: int, total: int | None, unit: str = "B") -> None:
        self.emit(Progress(self.host, step, done, total, unit))

    def note(self, text: str) -> None:
        self.emit(Note(self.host, text))

    def ask(self, text: str, *, hidden: bool = False) -> str | None:
        """What the user types; None where there is no user. ``hidden`` for secrets."""
        question = Question(self.host, text, hidden)
        self.emit(question)
        return question.answer

    def confirm(self, text: str) -> bool | None:
        """Whether the user says yes; None where there is no user."""
        answer = self.ask(f"{text} (y/n)")
        return None if answer is None else answer.strip().lower() in ("y", "yes")

    def warn(self, text: str) -> None:
        self.emit(Note(self.host, text, warning=True))
