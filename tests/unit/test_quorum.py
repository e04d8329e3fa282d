from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from machine.errors import HostError
from machine.swarm import Availability, Node, Role
from machine.workflows import quorum


def node(name: str, role: Role = Role.MANAGER, *, reachable: bool = True) -> Node:
    is_manager = role is Role.MANAGER
    return Node(
        id=f"id-{name}",
        name=name,
        role=role,
        availability=Availability.ACTIVE,
        state="ready" if reachable else "down",
        reachable=reachable and is_manager,
    )


NODES = st.lists(st.tuples(st.sampled_from(Role), st.booleans()), min_size=1, max_size=9).map(
    lambda kinds: [node(f"n{at}", role, reachable=up) for at, (role, up) in enumerate(kinds)]
)


@pytest.mark.parametrize(
    ("total", "needed", "spare"), [(1, 1, 0), (2, 2, 0), (3, 2, 1), (4, 3, 1), (5, 3, 2), (7, 4, 3)]
)
def test_a_majority_is_needed(total: int, needed: int, spare: int) -> None:
    managers = quorum.Managers(total, total)
    assert (managers.needed, managers.spare, managers.has_quorum) == (needed, spare, True)
    assert not quorum.Managers(total, needed - 1).has_quorum


@given(NODES, st.data())
def test_what_is_allowed_leaves_a_quorum(nodes: list[Node], data: st.DataObject) -> None:
    going = data.draw(st.sets(st.sampled_from([each.id for each in nodes])))
    stays = data.draw(st.booleans())
    had = quorum.Managers.of(nodes).has_quorum
    everybody = going == {each.id for each in nodes}
    left = quorum.without(nodes, going, stays=stays)
    try:
        quorum.require(nodes, going, stays=stays)
    except HostError as exc:
        assert had
        assert not everybody
        assert not (left.has_quorum and left.total)
        assert "--force" in exc.hint
    else:
        assert everybody or not had or (left.has_quorum and left.total)


def test_workers_may_always_go() -> None:
    nodes = [node("m1"), node("w1", Role.WORKER), node("w2", Role.WORKER)]
    quorum.require(nodes, {"id-w1", "id-w2"}, stays=False)


def test_one_of_three_may_go_and_a_second_may_not() -> None:
    nodes = [node("m1"), node("m2"), node("m3")]
    quorum.require(nodes, {"id-m1"}, stays=True)
    with pytest.raises(HostError, match=r"left with 1 of 3 managers, and needs 2"):
        quorum.require(nodes, {"id-m1", "id-m2"}, stays=True)
    nodes[2] = node("m3", reachable=False)
    with pytest.raises(HostError, match=r"Without m1 .* 1 of 3") as told:
        quorum.require(nodes, {"id-m1"}, stays=True)
    assert "machine start m3" in told.value.hint


def test_a_lost_manager_may_be_taken_off() -> None:
    """It leaves fewer to be more than half of."""
    nodes = [node("m1"), node("m2"), node("m3", reachable=False)]
    quorum.require(nodes, {"id-m3"}, stays=False)


def test_advice() -> None:
    assert "the loss of none" in quorum.Managers(1, 1).advice
    assert "the loss of none" in quorum.Managers(2, 2).advice
    assert quorum.Managers(3, 3).advice == ""
    assert "no more losses than 3" in quorum.Managers(4, 4).advice
