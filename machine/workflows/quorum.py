"""How many managers a Swarm can do without: arithmetic of a majority, before anything is done."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from machine.errors import HostError
from machine.swarm import Node, Role


@dataclass(frozen=True, slots=True)
class Managers:
    """Those of a Swarm. More than half of ``total`` have to reach each other for anything of it to
    be changed, or any task to be moved (Raft)."""

    total: int
    reachable: int

    @classmethod
    def of(cls, nodes: Sequence[Node]) -> Managers:
        managers = [node for node in nodes if node.role is Role.MANAGER]
        return cls(len(managers), sum(node.reachable for node in managers))

    @property
    def needed(self) -> int:
        return self.total // 2 + 1

    @property
    def has_quorum(self) -> bool:
        return self.reachable >= self.needed

    @property
    def spare(self) -> int:
        """How many may fail now."""
        return self.reachable - self.needed

    @property
    def advice(self) -> str:
        """What is worth saying of their number; "" where it is good."""
        if self.total in (1, 2):
            count = "1 manager" if self.total == 1 else "2 managers"
            return f"A Swarm of {count} stands the loss of none; one of 3 stands the loss of 1"
        if self.total % 2 == 0:
            return f"{self.total} managers stand no more losses than {self.total - 1} would"
        return ""


def without(nodes: Sequence[Node], going: Collection[str], *, stays: bool) -> Managers:
    """What is left of the managers when the nodes with these ids are gone. ``stays``: they are off
    and will be back, and count as managers all the time."""
    now = Managers.of(nodes)
    leaving = [node for node in nodes if node.id in going and node.role is Role.MANAGER]
    reachable = now.reachable - sum(node.reachable for node in leaving)
    return Managers(now.total if stays else now.total - len(leaving), reachable)


def require(nodes: Sequence[Node], going: Collection[str], *, stays: bool) -> None:
    """Raises HostError, with the numbers and the way out, where those who are left would have no
    quorum; not where nobody is left, nor where there is none to be lost."""
    if {node.id for node in nodes} <= set(going) or not Managers.of(nodes).has_quorum:
        return
    left = without(nodes, going, stays=stays)
    if left.has_quorum and left.total:
        return
    names = ", ".join(node.name for node in nodes if node.id in going)
    raise HostError(
        f"Without {names} the Swarm would be left with {left.reachable} of {left.total} managers, "
        f"and needs {max(left.needed, 1)}",
        details="Its services would go on as they are, but no task could be moved or started, and "
        "nothing of it could be changed.",
        hint=_way_out(nodes, going, left),
    )


def _way_out(nodes: Sequence[Node], going: Collection[str], left: Managers) -> str:
    workers = sorted(
        n.name for n in nodes if n.role is Role.WORKER and n.state == "ready" and n.id not in going
    )
    lost = [n.name for n in nodes if n.role is Role.MANAGER and not n.reachable]
    ways = []
    if lost:
        ways.append(f"Bring back {', '.join(lost)} first: machine start {' '.join(lost)}")
    if workers:
        ways.append(f"Make another one a manager first: machine swarm promote {workers[0]}")
    ways.append("--force does it all the same")
    return "\n".join(ways)
