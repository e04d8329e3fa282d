"""The only place that sleeps: one loop, short waits first, under one limit."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

from machine.errors import TimedOut

T = TypeVar("T")


class Deadline:
    """A moment on the monotonic clock, handed down so that nested waits share one limit."""

    __slots__ = ("at", "seconds")

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.at = time.monotonic() + seconds

    @property
    def left(self) -> float:
        return max(0.0, self.at - time.monotonic())

    @property
    def over(self) -> bool:
        return time.monotonic() >= self.at


def pause(seconds: float) -> None:
    time.sleep(seconds)


def until(
    what: str,
    check: Callable[[], T | None],
    *,
    timeout: float,
    first: float = 0.05,
    most: float = 1.0,
    hint: str = "",
    last_answer: Callable[[], str] | None = None,
) -> T:
    """Call ``check`` until it answers something true, and return that.

    The pause starts at ``first`` seconds and grows by half each time up to ``most``.
    Raises TimedOut after ``timeout`` seconds, with ``last_answer()`` as its details.
    """
    deadline = Deadline(timeout)
    step = first
    while True:
        answer = check()
        if answer:
            return answer
        if deadline.over:
            details = last_answer() if last_answer else ""
            raise TimedOut(
                f"Waited {timeout:.0f} s for {what}, without success",
                details=details,
                hint=hint,
            )
        pause(min(step, deadline.left))
        step = min(step * 1.5, most)
