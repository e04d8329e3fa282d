"""How often something is run, and how a row of figures is printed."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Row:
    """One figure. ``target`` bounds the ratio where there is one, else the amount."""

    name: str
    amount: float
    unit: str = "s"
    ratio: float | None = None
    target: float | None = None

    @property
    def reached(self) -> bool | None:
        """None where there is no target."""
        if self.target is None:
            return None
        return (self.amount if self.ratio is None else self.ratio) <= self.target


def median(work: Callable[[], object], runs: int) -> float:
    """Seconds."""
    return statistics.median(seconds(work) for _ in range(runs))


def medians(works: Mapping[str, Callable[[], object]], runs: int) -> dict[str, float]:
    """Seconds of each, run in turn, so that what else the computer does meets them all alike."""
    times = [{name: seconds(work) for name, work in works.items()} for _ in range(runs)]
    return {name: statistics.median(each[name] for each in times) for name in works}


def seconds(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def row(name: str, took: float, base: float | None = None, target: float | None = None) -> Row:
    """A time, and how many times the base's it is."""
    return shown(Row(name, took, ratio=None if base is None else took / base, target=target))


def shown(row: Row) -> Row:
    """Print it."""
    if row.unit == "s" and row.amount < 10:
        amount = f"{row.amount * 1000:8.0f} ms"
    else:
        amount = f"{row.amount:8.{1 if row.unit == 's' else 0}f} {row.unit}"
    ratio = "" if row.ratio is None else f"{row.ratio:6.2f}"
    target = "" if row.target is None else f"  (target: {row.target:g})"
    print(f"{row.name:<44} {amount:<12}{ratio:>7}{target}".rstrip(), flush=True)
    return row
