"""Steps side by side: their order, what a failure holds up, and what is done beside nothing else."""

from __future__ import annotations

import threading

import pytest

from machine.errors import HostError
from machine.planner import Action, Step, StepId, Touch
from machine.workflows.fleet_steps import Outcome, carry_out


def step(name: str, *after: str, turn: tuple[str, ...] = (), touch: Touch = Touch.NOTHING) -> Step:
    def ids(names: tuple[str, ...]) -> frozenset[StepId]:
        return frozenset((each, Action.CREATE) for each in names)

    return Step(name, Action.CREATE, ids(after), ids(turn), touch=touch)


def names(steps: list[Step]) -> list[str]:
    return [each.name for each in steps]


def test_what_waits_for_nothing_is_done_side_by_side() -> None:
    meeting = threading.Barrier(3, timeout=30)
    outcome = carry_out([step("a"), step("b"), step("c")], lambda _: meeting.wait(), 3)
    assert sorted(names(outcome.done)) == ["a", "b", "c"]


def test_one_at_a_time() -> None:
    at_work: list[str] = []
    most: list[int] = []

    def work(each: Step) -> None:
        at_work.append(each.name)
        most.append(len(at_work))
        at_work.remove(each.name)

    carry_out([step("a"), step("b"), step("c")], work, 1)
    assert most == [1, 1, 1]


def test_order() -> None:
    done: list[str] = []
    steps = [step("c", "b"), step("b", "a"), step("a"), step("d", turn=("c",))]
    carry_out(steps, lambda each: done.append(each.name), 4)
    assert done == ["a", "b", "c", "d"]


def test_a_failure_holds_up_what_waits_for_it_alone() -> None:
    def work(each: Step) -> None:
        if each.name == "b":
            raise HostError("no")

    steps = [
        step("a"),
        step("b"),
        step("c", "b"),
        step("d", "c"),
        step("e", turn=("b",)),
        step("f"),
    ]
    outcome = carry_out(steps, work, 2)
    assert sorted(names(outcome.done)) == ["a", "f"]
    assert sorted(names(outcome.skipped)) == ["c", "d", "e"]
    assert list(outcome.errors) == ["b"]


def test_a_bug_is_not_taken_for_a_failure() -> None:
    def work(each: Step) -> None:
        raise KeyError(each.name)

    with pytest.raises(KeyError):
        carry_out([step("a")], work)


def test_nobody_asks_managers_while_one_is_disturbed() -> None:
    lock = threading.Lock()
    asking = {each: step(each, touch=Touch.ASKS) for each in "abcdef"}
    at_work: set[str] = set()
    wrong: list[set[str]] = []

    def work(each: Step) -> None:
        with lock:
            at_work.add(each.name)
            if each.touch is Touch.DISTURBS and at_work & asking.keys():
                wrong.append(set(at_work))
        with lock:
            at_work.discard(each.name)

    disturbing = [step(f"m{at}", touch=Touch.DISTURBS) for at in range(6)]
    outcome = carry_out([*asking.values(), *disturbing], work, 6)
    assert len(outcome.done) == 12
    assert not wrong


def test_nothing_to_do() -> None:
    assert carry_out([], lambda _: None) == Outcome()
