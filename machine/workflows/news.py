"""What has changed between two looks at the machines, in words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from machine.model import State
from machine.workflows.watch import Watched


def changes(
    before: Mapping[str, Watched], after: Mapping[str, Watched]
) -> Iterator[tuple[str, str]]:
    """Names of machines, and what is new with them, a line each."""
    for name in before.keys() - after.keys():
        yield name, "is removed"
    for name, now in after.items():
        if name in before:
            yield from ((name, text) for text in _changed(before[name], now))
        else:
            yield name, f"is new: {now.row.state}"


def _changed(was: Watched, now: Watched) -> Iterator[str]:
    if was.row.state != now.row.state:
        yield f"{was.row.state} -> {now.row.state}"
    if now.step != was.step and now.step:
        yield f"its create is at: {now.step}"
    if was.step and not now.step:
        yield "its create has ended"
    if now.row.error != was.row.error and now.row.error and not now.step:
        yield now.row.error
    recovered = was.row.error and not now.row.error and not was.step
    if recovered and now.row.state is State.RUNNING:
        yield "answers again"
    if was.containers is not None and now.containers is not None and was.row.swarm != now.row.swarm:
        yield f"in the swarm: {was.row.swarm or 'not'} -> {now.row.swarm or 'not'}"
    if was.containers is not None and now.containers is not None:
        yield from _of_containers(was.containers, now.containers)


def _of_containers(was: Mapping[str, str], now: Mapping[str, str]) -> Iterator[str]:
    for name in sorted(was.keys() - now.keys()):
        yield f"container {name} is removed"
    for name, state in sorted(now.items()):
        if was.get(name) != state:
            yield f"container {name} is {state}"
