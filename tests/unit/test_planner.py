"""The planner's promises, for fleets of any kind: a plan that is carried out leaves nothing to plan,
steps come behind what they rest on, and never are two managers down at once."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st

from machine.planner import (
    DOWN,
    MEMBER,
    UP,
    Action,
    Change,
    Condition,
    Kind,
    Plan,
    Role,
    Seen,
    Step,
    Traits,
    Wanted,
    plan,
)

NAMES = ("a", "b", "c", "d", "e")


@st.composite
def traits(draw: st.DrawFn, role: Role | None) -> Traits:
    few = st.sampled_from(("1", "2"))
    is_member = role in (Role.WORKER, Role.MANAGER)
    return Traits(
        fixed={"image": draw(few)},
        loose={"labels": draw(few)},
        role=role,
        node_labels={"zone": draw(few)} if is_member and draw(st.booleans()) else {},
        images=frozenset(draw(st.sets(few))),
    )


@st.composite
def wanted_fleets(draw: st.DrawFn) -> list[Wanted]:
    names = draw(st.permutations(draw(st.lists(st.sampled_from(NAMES), unique=True))))
    roles = {each: draw(st.sampled_from((None, *Role))) for each in names}
    if Role.WORKER in roles.values() and Role.MANAGER not in roles.values():
        roles[names[0]] = Role.MANAGER
    return [
        Wanted(
            name,
            draw(traits(roles[name])),
            tuple(draw(st.lists(st.sampled_from(names[:at]), unique=True))) if at else (),
        )
        for at, name in enumerate(names)
    ]


@st.composite
def seen_fleets(draw: st.DrawFn) -> list[Seen]:
    """Of which every role is known, as where a Swarm's manager answers."""
    names = draw(st.permutations(draw(st.lists(st.sampled_from(NAMES), unique=True))))
    found = []
    for at, name in enumerate(names):
        condition = draw(st.sampled_from(Condition))
        member = condition is not Condition.UNFINISHED
        role = draw(st.sampled_from(Role)) if member else Role.NONE
        needs = tuple(draw(st.lists(st.sampled_from(names[:at]), unique=True))) if at else ()
        found.append(Seen(name, draw(traits(role)), condition, draw(st.booleans()), needs))
    return found


FLEETS = (wanted_fleets(), seen_fleets())


class World:
    """Machines that do what steps say, and complain of a step that cannot be."""

    def __init__(self, wanted: list[Wanted], seen: list[Seen]) -> None:
        self.wanted = {each.name: each for each in wanted}
        self.machines = {each.name: each for each in seen}
        self.swarm = {each.name for each in seen if each.traits.role is not Role.NONE}
        self.down: set[str] = set()  # managers that the plan took down, and that are not back

    def managers(self) -> set[str]:
        return {
            name
            for name in self.swarm
            if self.machines[name].traits.role is Role.MANAGER
            and self.machines[name].condition is not Condition.GONE
        }

    def do(self, step: Step) -> None:
        name, target = step.name, self.wanted.get(step.name)
        machine = self.machines.get(name)
        if step.action is Action.CREATE:
            assert machine is None and target is not None
            own = replace(target.traits, role=Role.NONE, node_labels={}, images=frozenset())
            self.machines[name] = Seen(name, own)
            return
        assert machine is not None, f"{step} of a machine that is not there"
        if step.action is Action.REMOVE:
            assert not (name in self.swarm and machine.outlives)
            del self.machines[name]
            self.swarm.discard(name)
            return
        had = machine.traits
        match step.action:
            case Action.RESUME:
                assert machine.condition is Condition.UNFINISHED
                machine = replace(machine, condition=Condition.READY)
            case Action.START:
                assert machine.condition is Condition.STOPPED
                machine = replace(machine, condition=Condition.READY)
            case Action.CHANGE:
                assert target and target.traits.loose != had.loose
                machine = replace(machine, traits=replace(had, loose=target.traits.loose))
            case Action.PUSH:
                assert target
                images = had.images | target.traits.images
                machine = replace(machine, traits=replace(had, images=images))
            case Action.INIT:
                assert not self.managers(), "a second Swarm"
                self.swarm = {name}
                machine = replace(machine, traits=replace(had, role=Role.MANAGER))
            case Action.JOIN:
                assert self.managers() and had.role is Role.NONE
                self.swarm.add(name)
                machine = replace(machine, traits=replace(had, role=step.role))
            case Action.PROMOTE:
                assert had.role is Role.WORKER and self.managers()
                machine = replace(machine, traits=replace(had, role=Role.MANAGER))
            case Action.DEMOTE:
                assert had.role is Role.MANAGER and self.managers() - {name}, "the last manager"
                machine = replace(machine, traits=replace(had, role=Role.WORKER))
            case Action.LEAVE:
                assert had.role is not Role.NONE
                self.swarm.discard(name)
                left = replace(had, role=Role.NONE, node_labels={})
                machine = replace(machine, traits=left)
            case Action.LABEL:
                assert target and name in self.swarm and self.managers()
                labels = target.traits.node_labels
                machine = replace(machine, traits=replace(had, node_labels=labels))
        self.machines[name] = machine

    def settled(self) -> list[Seen]:
        """As they are seen next; a host whose provider could not be asked is believed to be fine."""
        return [
            replace(each, condition=Condition.READY)
            if each.condition is Condition.UNKNOWN
            else each
            for each in self.machines.values()
        ]


def carried_out(found: Plan, world: World, choose: st.DataObject) -> list[Step]:
    """In any order that the steps allow."""
    left, done = {step.id: step for step in found.steps}, []
    while left:
        free = [each for each in left.values() if not (each.after | each.turn) & left.keys()]
        assert free, "the steps wait for each other"
        step = choose.draw(st.sampled_from(free))
        world.do(step)
        done.append(left.pop(step.id))
    return done


@settings(max_examples=100)
@given(*FLEETS, st.data())
def test_a_plan_that_is_carried_out_leaves_nothing(
    wanted: list[Wanted], seen: list[Seen], data: st.DataObject
) -> None:
    world = World(wanted, seen)
    carried_out(plan(wanted, seen), world, data)
    again = plan(wanted, world.settled())
    assert again == Plan()


@settings(max_examples=100)
@given(*FLEETS)
def test_steps_come_behind_what_they_rest_on(wanted: list[Wanted], seen: list[Seen]) -> None:
    found = plan(wanted, seen)
    place = {step.id: at for at, step in enumerate(found.steps)}
    assert len(place) == len(found.steps)
    for step in found.steps:
        assert all(place[each] < place[step.id] for each in step.after | step.turn)
    named = {step.name for step in found.steps}
    assert {each.name for each in found.verdicts} <= named
    for each in wanted:
        for need in each.needs:
            made = [at for (name, action), at in place.items() if name == need and action in UP]
            own = [at for (name, action), at in place.items() if name == each.name and action in UP]
            assert not made or not own or max(made) < min(own)
            rests_on = _closure(found, each.name)
            assert {(need, action) for name, action in place if name == need and action in UP} <= (
                rests_on if own else rests_on | place.keys()
            )


def _closure(found: Plan, name: str) -> set[tuple[str, Action]]:
    """Everything that a machine's making rests on."""
    steps = {step.id: step for step in found.steps}
    open_ = [each for each in steps if each[0] == name and each[1] in UP]
    seen: set[tuple[str, Action]] = set()
    while open_:
        for each in steps[open_.pop()].after - seen:
            seen.add(each)
            open_.append(each)
    return seen


@settings(max_examples=100)
@given(*FLEETS, st.data())
def test_never_two_managers_are_down_at_once(
    wanted: list[Wanted], seen: list[Seen], data: st.DataObject
) -> None:
    """A manager is down while its engine is changed, and from where its membership ends until it has
    it again, or has been removed. In every order that is allowed, with all steps at work that can be."""
    found = plan(wanted, seen)
    managers = {each.name for each in seen if each.traits.role is Role.MANAGER}
    stay = {each.name for each in wanted if each.traits.role is Role.MANAGER}
    down: set[str] = set()
    left, at_work = {step.id: step for step in found.steps}, []
    while left:
        for each in left.values():
            if not (each.after | each.turn) & left.keys() and each not in at_work:
                at_work.append(each)
                if each.name in managers and each.action in (*DOWN, Action.CHANGE):
                    down.add(each.name)
        assert len(down) <= 1, f"{down} at once"
        step = data.draw(st.sampled_from(at_work))
        at_work.remove(step)
        del left[step.id]
        to_come = {action for name, action in left if name == step.name}
        back = (*DOWN, *UP, *MEMBER) if step.name in stay else DOWN
        if step.action is Action.CHANGE or not to_come & set(back):
            down.discard(step.name)
        if step.action in DOWN and step.name not in stay and not to_come & set(DOWN):
            managers.discard(step.name)


def test_what_is_as_it_shall_be_has_no_step() -> None:
    same = Traits(fixed={"image": "x"}, role=Role.MANAGER)
    assert plan([Wanted("m1", same)], [Seen("m1", same)]) == Plan()
    assert not plan([], []).steps


def test_a_swarm_of_new_machines() -> None:
    wanted = [
        Wanted("w1", Traits(role=Role.WORKER)),
        Wanted("m1", Traits(role=Role.MANAGER)),
        Wanted("m2", Traits(role=Role.MANAGER)),
    ]
    found = plan(wanted, [])
    steps = {step.id: step for step in found.steps}
    assert steps["m1", Action.INIT].after == {("m1", Action.CREATE)}
    assert steps["w1", Action.JOIN].after == {("w1", Action.CREATE), ("m1", Action.INIT)}
    assert steps["m2", Action.JOIN].role is Role.MANAGER
    assert all(not steps[name, Action.CREATE].after for name in ("m1", "m2", "w1"))
    assert not found.loses


def test_managers_are_replaced_one_after_the_other() -> None:
    new, old = (Traits(fixed={"cpus": each}, role=Role.MANAGER) for each in "21")
    found = plan([Wanted(name, new) for name in ("m1", "m2")], [Seen("m1", old), Seen("m2", old)])
    assert [(step.name, step.action) for step in found.steps] == [
        (name, action)
        for name in ("m1", "m2")
        for action in (Action.DEMOTE, Action.LEAVE, Action.REMOVE, Action.CREATE, Action.JOIN)
    ]
    assert found.verdicts[0].changes == (Change("cpus", "1", "2"),)
    assert found.loses
    assert not found.swarm_ends


def test_the_only_manager_cannot_be_replaced_without_an_end_of_its_swarm() -> None:
    new, old = (Traits(fixed={"cpus": each}, role=Role.MANAGER) for each in "21")
    worker = Traits(role=Role.WORKER)
    wanted = [Wanted("m1", new), Wanted("w1", worker)]
    found = plan(wanted, [Seen("m1", old), Seen("w1", worker)])
    assert found.swarm_ends
    steps = {step.id: step for step in found.steps}
    assert steps["w1", Action.JOIN].after == {("w1", Action.LEAVE), ("m1", Action.INIT)}
    more = plan([*wanted, Wanted("m2", new)], [Seen("m1", old), Seen("w1", worker)])
    assert not more.swarm_ends
    assert not any(step.name == "w1" for step in more.steps)


def test_what_needs_another_goes_before_it() -> None:
    seen = [Seen("db", Traits()), Seen("web", Traits(), needs=("db",))]
    found = plan([], seen)
    assert [step.id for step in found.steps] == [("web", Action.REMOVE), ("db", Action.REMOVE)]


def test_a_machine_that_is_gone_costs_no_data() -> None:
    found = plan([Wanted("m1", Traits())], [Seen("m1", Traits(), Condition.GONE)])
    assert found.verdicts[0].kind is Kind.REPLACE
    assert not found.loses
    assert [step.action for step in found.steps] == [Action.REMOVE, Action.CREATE]


def test_an_unfinished_one_is_made_ready_and_then_changed() -> None:
    wanted = Wanted("m1", Traits(loose={"labels": "new"}))
    seen = Seen("m1", Traits(loose={"labels": "old"}), Condition.UNFINISHED)
    found = plan([wanted], [seen])
    assert [step.action for step in found.steps] == [Action.RESUME, Action.CHANGE]
    assert found.verdicts[0].kind is Kind.RESUME


def test_roles_that_nobody_told_are_left_alone() -> None:
    wanted = Wanted("m1", Traits(role=Role.MANAGER, node_labels={"a": "b"}))
    assert plan([wanted], [Seen("m1", Traits(role=None), Condition.UNKNOWN)]) == Plan()
