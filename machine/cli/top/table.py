"""What `machine top` says of a machine: columns, which of them a terminal has room for, cells."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

from machine.model import Amount
from machine.workflows.watch import Watched

GAP: Final = 2
"""Blanks between two columns."""
LONGEST_NAME: Final = 24


@dataclass(frozen=True, slots=True)
class Column:
    """``width`` is of its content; 0 for what takes the room that is left."""

    head: str
    width: int
    cell: Callable[[Watched], str]
    rank: int  # the higher, the sooner a narrow terminal does without it


def cpu(watched: Watched) -> str:
    return "-" if watched.cpu is None else f"{100 * watched.cpu:.0f}%"


def containers(watched: Watched) -> str:
    """Those that run, of all."""
    if watched.containers is None:
        return "-"
    return f"{watched.running}/{len(watched.containers)}"


def state(watched: Watched) -> str:
    return "Creating" if watched.at_work else str(watched.row.state)


def note(watched: Watched) -> str:
    """What its create is at, or what is wrong."""
    if watched.at_work:
        return f"create: {watched.step} ({len(watched.done)} done)"
    if watched.step:
        return f"create cut off at {watched.step}: machine create --resume {watched.name}"
    return watched.row.error


def amount(given: Amount | None) -> str:
    if given is None:
        return "-"
    return size(given.used) + (f"/{size(given.total)}" if given.total else "")


def size(number: int) -> str:
    """In four characters: 812M, 1.2G, 20G."""
    value, letters = float(number), "BKMGTP"
    while value >= 999.5:
        value, letters = value / 1024, letters[1:]
    digits = 1 if value < 9.95 and letters[0] != "B" else 0
    return f"{value:.{digits}f}{letters[0]}"


COLUMNS: Final = (
    Column("NAME", 8, lambda watched: watched.name, 0),
    Column("STATE", 9, state, 1),
    Column("CPU", 4, cpu, 2),
    Column("MEMORY", 9, lambda watched: amount(watched.memory), 4),
    Column("DISK", 9, lambda watched: amount(watched.disk), 5),
    Column("CONT", 5, containers, 3),
    Column("SWARM", 7, lambda watched: watched.row.swarm or "-", 6),
    Column("DRIVER", 12, lambda watched: watched.row.driver, 8),
    Column("ENGINE", 12, lambda watched: watched.row.engine_version or "-", 9),
    Column("NOTE", 0, note, 7),
)
FULL: Final = ("NAME", "STATE", "CPU", "MEMORY", "DISK", "CONT", "SWARM", "NOTE")
"""Of the table of `--once`."""
LEAST_NOTE: Final = 8
GOOD_NOTE: Final = 24
"""Columns that a note has before less important columns are shown."""


def fitting(width: int, machines: Sequence[Watched]) -> list[Column]:
    """The columns that ``width`` has room for, the most important first to be kept, each as wide as
    it will be."""
    longest = max((len(each.name) for each in machines), default=0)
    chosen: list[Column] = []
    left = width
    for column in sorted(COLUMNS, key=lambda each: each.rank):
        wanted = column.width
        if column.head == "NAME":
            wanted = min(max(longest, wanted), LONGEST_NAME, max(width // 7, 10))
        needed = (wanted or LEAST_NOTE) + GAP
        spare = GOOD_NOTE - LEAST_NOTE if any(each.head == "NOTE" for each in chosen) else 0
        if needed + spare > left and chosen:
            break
        left -= needed
        chosen.append(dataclasses.replace(column, width=wanted))
    heads = [each.head for each in COLUMNS]
    chosen.sort(key=lambda each: heads.index(each.head))
    return [
        each if each.width else dataclasses.replace(each, width=LEAST_NOTE + left)
        for each in chosen
    ]


def cut(text: str, width: int) -> str:
    line = " ".join(text.split())
    return line if len(line) <= width else f"{line[: max(width - 1, 0)]}…"


def cut_name(name: str, width: int) -> str:
    """In its middle: what names have in common is at their start, what tells them apart at the end."""
    if len(name) <= width:
        return name
    end = width // 2
    return f"{name[: width - end - 1]}…{name[-end:]}"


def rows(machines: Sequence[Watched]) -> list[list[str]]:
    columns = [each for each in COLUMNS if each.head in FULL]
    return [[column.cell(each) for column in columns] for each in machines]


def matches(watched: Watched, words: str) -> bool:
    """Whether each of the words is somewhere in what is said of the machine."""
    row = watched.row
    text = " ".join((watched.name, state(watched), row.driver, row.swarm, *row.labels)).lower()
    return all(word in text for word in words.lower().split())


def summary(machines: Sequence[Watched], shown: int, interval: float, words: str) -> str:
    if not machines:
        return "There are no machines yet: machine create NAME"
    up = sum(state(each) == "Running" for each in machines)
    counts = f"{len(machines)} machine{'s' if len(machines) != 1 else ''}, {up} running"
    only = f", {shown} with {words!r}" if words else ""
    return f"{counts}{only}   every {interval:g} s"


def details(watched: Watched, *, inside: bool) -> str:
    """Everything that is known of one machine, in lines."""
    return "\n".join(f"{head:<11}{text}" for head, text in _details(watched, inside) if text)


def _details(watched: Watched, inside: bool) -> Iterator[tuple[str, str]]:
    row = watched.row
    yield watched.name, f"{state(watched)}, {row.driver}, {row.url or 'no URL'}"
    if row.engine_version:
        yield "engine", f"{row.engine_version}, {row.swarm or 'in no swarm'}"
    yield from _in_use(watched, inside)
    if watched.containers is not None:
        names = [f"{name} ({word})" for name, word in sorted(watched.containers.items())]
        yield "containers", ", ".join(names) or "none"
    if watched.step:
        yield "create", f"at {watched.step}, after {', '.join(watched.done) or 'nothing'}"
    yield "note", note(watched)


def _in_use(watched: Watched, inside: bool) -> Iterator[tuple[str, str]]:
    if watched.no_login:
        yield "in use", f"it cannot say: {watched.no_login}"
    if watched.memory is None and watched.cpus is None:
        return
    of = f" of {watched.cpus}" if watched.cpus else ""
    used = f"cpu {cpu(watched)}{of}, memory {amount(watched.memory)}, disk {amount(watched.disk)}"
    yield "in use", f"{used} ({'as it says itself' if inside else 'as its provider says'})"


def data(watched: Watched) -> dict[str, Any]:
    """As --output json has it."""
    mine = dataclasses.asdict(watched)
    row = mine.pop("row")
    del row["raw"], row["response_seconds"]
    return {**row, **mine}
