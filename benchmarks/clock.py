"""How often something is run, and how a row of figures is printed."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable


def median(work: Callable[[], object], runs: int) -> float:
    """Seconds."""
    return statistics.median(seconds(work) for _ in range(runs))


def seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def row(name: str, took: float, base: float | None = None) -> None:
    """A time, and how many times the base's it is."""
    shown = f"{took * 1000:8.0f} ms" if took < 10 else f"{took:8.1f} s "
    print(f"{name:<44} {shown} {'' if base is None else f'{took / base:6.2f}'}", flush=True)
