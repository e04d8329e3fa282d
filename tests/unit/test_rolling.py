"""In which order a Swarm's nodes are upgraded."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from machine.swarm import Availability, Node, Role
from machine.workflows.rolling import order

NAMES = st.lists(st.text("abc123-", min_size=1, max_size=4), unique=True, max_size=12)


def node(name: str, role: Role, *, leader: bool = False) -> Node:
    return Node(name, name, role, Availability.ACTIVE, "ready", leader=leader, reachable=True)


def test_three_managers_and_two_workers() -> None:
    nodes = [
        node("m1", Role.MANAGER, leader=True),
        node("m2", Role.MANAGER),
        node("m3", Role.MANAGER),
        node("w1", Role.WORKER),
        node("w2", Role.WORKER),
    ]
    assert [each.name for each in order(nodes)] == ["w1", "w2", "m2", "m3", "m1"]
    assert [each.name for each in order(nodes, {"m2"})] == ["m2", "w1", "w2", "m3", "m1"]


@given(NAMES, st.data())
def test_workers_first_and_the_leader_last(names: list[str], data: st.DataObject) -> None:
    managers = data.draw(st.sets(st.sampled_from(names))) if names else set()
    leader = data.draw(st.sampled_from(sorted(managers))) if managers else ""
    nodes = [
        node(name, Role.MANAGER if name in managers else Role.WORKER, leader=name == leader)
        for name in names
    ]
    found = order(data.draw(st.permutations(nodes)))
    assert sorted(each.name for each in found) == sorted(names)
    roles = [each.role for each in found]
    assert roles == sorted(roles, reverse=True), "a manager comes before a worker"
    assert not leader or found[-1].leader
