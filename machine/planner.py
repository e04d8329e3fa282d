"""From machines as they shall be, and as they are seen, to the steps between. Nobody is asked here."""

from __future__ import annotations

import graphlib
import heapq
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum
from typing import Final


class Role(StrEnum):
    """What a machine is in a Swarm."""

    NONE = "none"
    WORKER = "worker"
    MANAGER = "manager"


class Condition(StrEnum):
    """What is seen of a machine of the store."""

    READY = "ready"
    STOPPED = "stopped"
    UNFINISHED = "unfinished"  # its create has not ended
    GONE = "gone"  # at its provider
    UNKNOWN = "unknown"  # its provider cannot be asked


class Kind(StrEnum):
    """What happens to a machine, in one word."""

    CREATE = "create"
    RESUME = "resume"
    CHANGE = "change"
    REPLACE = "replace"
    REMOVE = "remove"


class Action(StrEnum):
    DEMOTE = "demote"
    LEAVE = "leave"
    REMOVE = "remove"
    CREATE = "create"
    RESUME = "resume"
    START = "start"
    CHANGE = "change"
    PUSH = "push"
    INIT = "swarm-init"
    JOIN = "swarm-join"
    PROMOTE = "promote"
    LABEL = "label"


class Touch(StrEnum):
    """What a step is to the Swarm's managers; one that disturbs them is done beside none that asks."""

    NOTHING = ""
    ASKS = "asks"
    DISTURBS = "disturbs"


@dataclass(frozen=True, slots=True)
class Traits:
    """What machines are compared by. Values are as a user reads them."""

    fixed: Mapping[str, str] = field(default_factory=dict)  # another one needs another host
    loose: Mapping[str, str] = field(default_factory=dict)  # is changed in place
    role: Role | None = None  # wanted: None leaves it alone; seen: None is not known
    node_labels: Mapping[str, str] = field(default_factory=dict)
    images: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Wanted:
    name: str
    traits: Traits
    needs: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Seen:
    name: str
    traits: Traits
    condition: Condition = Condition.READY
    outlives: bool = False  # its host stays as it is when the machine is removed
    needs: tuple[str, ...] = ()  # where it is known what of the removed ones needed what


@dataclass(frozen=True, slots=True)
class Change:
    key: str
    before: str
    after: str


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is to become of one machine, and why."""

    name: str
    kind: Kind
    changes: tuple[Change, ...] = ()
    loses: bool = False  # its disk, and everything on it


StepId = tuple[str, Action]


@dataclass(frozen=True, slots=True)
class Step:
    name: str  # of the machine
    action: Action
    after: frozenset[StepId] = frozenset()  # what it rests on
    turn: frozenset[StepId] = (
        frozenset()
    )  # what it waits for, so that one manager is down at a time
    role: Role = Role.NONE  # that it is to have, of JOIN
    touch: Touch = Touch.NOTHING
    force: bool = False  # of LEAVE: nobody is left to be told, and nothing to be kept

    @property
    def id(self) -> StepId:
        return (self.name, self.action)


@dataclass(frozen=True, slots=True)
class Plan:
    verdicts: tuple[Verdict, ...] = ()
    steps: tuple[Step, ...] = ()  # in an order in which they could be done one by one
    swarm_ends: bool = False  # its last manager goes before there is another

    @property
    def loses(self) -> bool:
        return self.swarm_ends or any(each.loses for each in self.verdicts)


def plan(wanted: Sequence[Wanted], seen: Sequence[Seen]) -> Plan:
    """Machines of ``seen`` that are not wanted are removed. Wanted ones must not need each other in
    a ring (graphlib.CycleError)."""
    return _Planner(wanted, seen).plan()


class _Phase(IntEnum):
    """Managers' turns, where the machines' needs leave a choice: what is down comes up first, then
    there may be more of them, then those that stay are worked on, then others go."""

    OTHER = 0
    REPAIR = 1
    GROWTH = 2
    WORK = 3
    SHRINK = 4


DOWN: Final = (Action.DEMOTE, Action.LEAVE, Action.REMOVE)
UP: Final = (Action.CREATE, Action.RESUME, Action.START, Action.CHANGE, Action.PUSH)
MEMBER: Final = (Action.INIT, Action.JOIN, Action.PROMOTE)


class _Planner:
    def __init__(self, wanted: Sequence[Wanted], seen: Sequence[Seen]) -> None:
        self._wanted = {each.name: each for each in wanted}
        self._seen = {each.name: each for each in seen}
        self._verdicts = {
            name: found
            for name in dict.fromkeys([*self._wanted, *sorted(self._seen)])
            if (found := verdict(self._wanted.get(name), self._seen.get(name)))
        }
        self._order = self._ordered()
        self._founder, self._alone = self._succession()
        self._anew = bool(self._founder) and any(
            self._was(name) is not Role.NONE and self._stays(name) for name in self._order
        )

    @property
    def _goes_on(self) -> bool:
        """Whether anybody is in the Swarm afterwards."""
        return any(self._will(each) is not Role.NONE for each in self._order)

    def plan(self) -> Plan:
        own = {name: self._own(name) for name in self._order}
        after: dict[StepId, set[StepId]] = {}
        for name, actions in own.items():
            for before, action in zip([None, *actions], actions, strict=False):
                after[name, action] = {(name, before)} if before else set()
        self._rest_on_needs(own, after)
        self._rest_on_founder(own, after)
        turn = self._turns(own)
        graph = {each: after[each] | turn.get(each, set()) for each in after}
        steps = [
            Step(
                name,
                action,
                frozenset(after[name, action]),
                frozenset(turn.get((name, action), ())),
                self._will(name) if action is Action.JOIN else Role.NONE,
                self._touch(name, action),
                action is Action.LEAVE and (self._anew or name in self._alone or not self._goes_on),
            )
            for name, action in graphlib.TopologicalSorter(graph).static_order()
        ]
        there = [each for each in self._alone if self._seen[each].condition is not Condition.GONE]
        return Plan(tuple(self._verdicts.values()), tuple(steps), self._anew or bool(there))

    def _touch(self, name: str, action: Action) -> Touch:
        is_manager = Role.MANAGER in (self._was(name), self._will(name))
        if is_manager and action in (*DOWN, *MEMBER, Action.CHANGE):
            return Touch.DISTURBS
        asks = (*MEMBER, Action.DEMOTE, Action.LEAVE, Action.LABEL)
        return Touch.ASKS if action in asks else Touch.NOTHING

    def _was(self, name: str) -> Role:
        """Its role now. One that cannot be asked is taken for what it should be."""
        seen = self._seen.get(name)
        if seen is None:
            return Role.NONE
        if seen.traits.role is not None:
            return seen.traits.role
        if seen.condition in (Condition.GONE, Condition.UNFINISHED) or name not in self._wanted:
            return Role.NONE
        return self._wanted[name].traits.role or Role.NONE

    def _will(self, name: str) -> Role:
        wanted = self._wanted.get(name)
        if wanted is None:
            return Role.NONE
        if wanted.traits.role is not None:
            return wanted.traits.role
        return self._was(name) if self._stays(name) else Role.NONE

    def _stays(self, name: str) -> bool:
        """Whether its host is there before and after."""
        made = self._verdicts.get(name)
        anew = (Kind.CREATE, Kind.REPLACE, Kind.REMOVE)
        return name in self._seen and (made is None or made.kind not in anew)

    def _goes(self, name: str) -> bool:
        return name in self._seen and not self._stays(name)

    def _steps_down(self, name: str) -> bool:
        """Whether it ceases to be a manager, and stays: for that there is time until the end."""
        was, will = self._was(name), self._will(name)
        return self._stays(name) and was is Role.MANAGER and will is not Role.MANAGER

    def _phase(self, name: str) -> _Phase:
        was, will = self._was(name), self._will(name)
        if Role.MANAGER not in (was, will) or (name not in self._verdicts and was is will):
            return _Phase.OTHER
        if was is not Role.MANAGER:
            return _Phase.GROWTH
        if will is not Role.MANAGER and self._goes(name):
            return _Phase.SHRINK
        ready = self._seen[name].condition in (Condition.READY, Condition.UNKNOWN)
        return _Phase.WORK if ready else _Phase.REPAIR

    def _ordered(self) -> list[str]:
        """All machines, each behind what it needs; of removed ones each before what it needs. The
        managers' turns go by it."""
        before: dict[str, set[str]] = {name: set() for name in {**self._wanted, **self._seen}}
        for name, each in self._wanted.items():
            before[name] |= set(each.needs) & set(self._wanted)
        for name, one in self._seen.items():
            if name not in self._wanted:
                for need in one.needs:
                    if need in self._seen and need not in self._wanted:
                        before[need].add(name)
        rank = {name: at for at, name in enumerate(before)}
        return _by_rank(before, {name: (self._phase(name), rank[name]) for name in before})

    def _succession(self) -> tuple[str, frozenset[str]]:
        """Who begins a Swarm ("" where one goes on), and who is its last manager when it goes."""
        up = {
            name
            for name, each in self._seen.items()
            if self._was(name) is Role.MANAGER and each.condition is not Condition.GONE
        }
        founder, alone = "", set()
        for name in [
            *(each for each in self._order if not self._steps_down(each)),
            *filter(self._steps_down, self._order),
        ]:
            was, will = (role is Role.MANAGER for role in (self._was(name), self._will(name)))
            if was and (self._goes(name) or not will):
                up.discard(name)
                if not up:
                    alone.add(name)
            if will and (not was or self._goes(name)):
                founder = founder or ("" if up else name)
                up.add(name)
        return founder, frozenset(alone)

    def _own(self, name: str) -> list[Action]:
        """The steps of one machine, in their order."""
        was, will, found = self._was(name), self._will(name), self._verdicts.get(name)
        if found is None and not (self._anew and was is not Role.NONE):
            return []
        steps: list[Action] = []
        if self._goes(name):
            steps += self._departure(name)
            steps.append(Action.REMOVE)
            was = Role.NONE
        elif self._anew and was is not Role.NONE:
            steps.append(Action.LEAVE)
            was = Role.NONE
        if found is not None:
            steps += self._rise(name, found)
        steps += self._membership(name, was, will)
        return steps

    def _departure(self, name: str) -> list[Action]:
        """Out of the Swarm, where that goes on or the host does."""
        if self._was(name) is Role.NONE:
            return []
        if name in self._alone or self._anew or not self._goes_on:
            return [Action.LEAVE] if self._seen[name].outlives else []
        demoted = [Action.DEMOTE] if self._was(name) is Role.MANAGER else []
        return [*demoted, Action.LEAVE]

    def _rise(self, name: str, found: Verdict) -> list[Action]:
        wanted, seen = self._wanted.get(name), self._seen.get(name)
        if wanted is None:
            return []
        push = bool(wanted.traits.images)
        if found.kind in (Kind.CREATE, Kind.REPLACE):
            return [Action.CREATE, *([Action.PUSH] if push else [])]
        assert seen is not None
        steps = {Condition.UNFINISHED: [Action.RESUME], Condition.STOPPED: [Action.START]}.get(
            seen.condition, []
        )
        if wanted.traits.loose != seen.traits.loose:
            steps = [*steps, Action.CHANGE]
        if wanted.traits.images - seen.traits.images:
            steps = [*steps, Action.PUSH]
        return steps

    def _membership(self, name: str, was: Role, will: Role) -> list[Action]:
        """From one role to another, of a machine that is up."""
        wanted, seen = self._wanted.get(name), self._seen.get(name)
        if wanted is None or wanted.traits.role is None:
            return [Action.JOIN] if was is not will else []
        steps: list[Action] = []
        if was is not will:
            if will is Role.NONE:
                steps = self._leave(name, was)
            elif was is Role.NONE:
                steps = [Action.INIT if name == self._founder else Action.JOIN]
            else:
                steps = [Action.PROMOTE if will is Role.MANAGER else Action.DEMOTE]
        labels = seen.traits.node_labels if seen and was is not Role.NONE else {}
        if will is not Role.NONE and labels != wanted.traits.node_labels:
            unknown = seen is not None and seen.traits.role is None and was is will
            steps += [] if unknown else [Action.LABEL]
        return steps

    def _leave(self, name: str, was: Role) -> list[Action]:
        if was is Role.MANAGER and name not in self._alone:
            return [Action.DEMOTE, Action.LEAVE]
        return [Action.LEAVE]

    def _rest_on_needs(
        self, own: Mapping[str, Sequence[Action]], after: dict[StepId, set[StepId]]
    ) -> None:
        for name, wanted in self._wanted.items():
            first = next((each for each in own[name] if each in UP), None)
            for need in wanted.needs if first else ():
                last = [each for each in own.get(need, ()) if each in UP][-1:]
                after[name, first] |= {(need, each) for each in last}  # type: ignore[index]
        for name, seen in self._seen.items():
            for need in seen.needs if name not in self._wanted else ():
                if need in self._seen and need not in self._wanted:
                    after[need, own[need][0]].add((name, Action.REMOVE))

    def _rest_on_founder(
        self, own: Mapping[str, Sequence[Action]], after: dict[StepId, set[StepId]]
    ) -> None:
        if not self._founder:
            return
        for name, actions in own.items():
            if Action.JOIN in actions:
                after[name, Action.JOIN].add((self._founder, Action.INIT))

    def _turns(self, own: Mapping[str, Sequence[Action]]) -> dict[StepId, set[StepId]]:
        """What touches managers, one after the other."""
        turns: dict[StepId, set[StepId]] = {}
        last: StepId | None = None
        units = [(name, self._unit(name, own[name])) for name in self._order]
        units += [
            (name, [each for each in own[name] if each in DOWN])
            for name in filter(self._steps_down, self._order)
        ]
        for name, actions in units:
            if not actions:
                continue
            if last is not None:
                turns[name, actions[0]] = {last}
            last = (name, actions[-1])
        return turns

    def _unit(self, name: str, actions: Sequence[Action]) -> list[Action]:
        """The steps of a machine that no other manager's may be mixed with: of one that stays a
        manager everything, of one that goes that it goes, of a new one only that it becomes one."""
        was, will = (role is Role.MANAGER for role in (self._was(name), self._will(name)))
        if was and will:
            return [each for each in actions if each is not Action.LABEL]
        if was:
            kept = DOWN if self._goes(name) else UP
            return [each for each in actions if each in kept]
        return [each for each in actions if will and each in MEMBER]


def verdict(wanted: Wanted | None, seen: Seen | None) -> Verdict | None:
    """What is to become of one machine; None where it is as it shall be."""
    if seen is None:
        return Verdict(wanted.name, Kind.CREATE) if wanted else None
    loses = not seen.outlives and seen.condition is not Condition.GONE
    if wanted is None:
        return Verdict(seen.name, Kind.REMOVE, loses=loses)
    if seen.condition is Condition.GONE:
        gone = Change("state", "gone at its provider", "running")
        return Verdict(seen.name, Kind.REPLACE, (gone,))
    fixed = changes(seen.traits.fixed, wanted.traits.fixed)
    loose = (
        *changes(seen.traits.loose, wanted.traits.loose),
        *_of_node(wanted.traits, seen.traits),
        *(Change("push", "", image) for image in sorted(wanted.traits.images - seen.traits.images)),
    )
    if fixed:
        return Verdict(seen.name, Kind.REPLACE, (*fixed, *loose), loses)
    if seen.condition is Condition.UNFINISHED:
        return Verdict(seen.name, Kind.RESUME, loose)
    if seen.condition is Condition.STOPPED:
        loose = (Change("state", "stopped", "running"), *loose)
    return Verdict(seen.name, Kind.CHANGE, loose) if loose else None


def changes(before: Mapping[str, str], after: Mapping[str, str]) -> tuple[Change, ...]:
    keys = [*after, *(key for key in before if key not in after)]
    return tuple(
        Change(key, before.get(key, ""), after.get(key, ""))
        for key in keys
        if before.get(key, "") != after.get(key, "")
    )


def _of_node(wanted: Traits, seen: Traits) -> tuple[Change, ...]:
    """Of a node's role and labels, where they are wanted and known."""
    if wanted.role is None or seen.role is None:
        return ()
    role = (Change("swarm", seen.role, wanted.role),) if seen.role is not wanted.role else ()
    labels = () if wanted.role is Role.NONE else changes(seen.node_labels, wanted.node_labels)
    return (*role, *(Change(f"node_labels.{each.key}", each.before, each.after) for each in labels))


def _by_rank(before: Mapping[str, Iterable[str]], rank: Mapping[str, tuple[int, int]]) -> list[str]:
    """In topological order; of those that are free the one of the lowest rank first."""
    sorter = graphlib.TopologicalSorter(before)
    sorter.prepare()
    free: list[tuple[tuple[int, int], str]] = []
    found: list[str] = []
    while sorter.is_active():
        for name in sorter.get_ready():
            heapq.heappush(free, (rank[name], name))
        _, name = heapq.heappop(free)
        found.append(name)
        sorter.done(name)
    return found
