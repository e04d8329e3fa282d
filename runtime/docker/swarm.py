"""Docker's Swarm mode, as one engine of it tells and does by its API (version 1.41 and later)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final

from machine.runtime.docker.client import Saying
from machine.swarm import (
    PORT,
    Availability,
    Certificates,
    Cluster,
    Entrance,
    Membership,
    Node,
    Role,
    Swarm,
)

if TYPE_CHECKING:
    from docker import APIClient

LISTEN: Final = f"0.0.0.0:{PORT}"
ENDED: Final = frozenset({"complete", "shutdown", "failed", "rejected", "remove", "orphaned"})
"""States of tasks that run no more (API reference: TaskState)."""


class DockerSwarm(Swarm):
    def __init__(self, client: APIClient) -> None:
        self._client: Any = Saying(client)

    def membership(self) -> Membership:
        return membership(self._client.info())

    def init(self, entrance: Entrance, cluster: Cluster) -> None:
        pools = {"default_addr_pool": list(cluster.pools), "subnet_size": cluster.subnet_bits}
        self._client.init_swarm(
            advertise_addr=entrance.address,
            listen_addr=LISTEN,
            data_path_addr=entrance.data_path or entrance.address,
            data_path_port=cluster.data_path_port or None,
            force_new_cluster=cluster.from_its_state,
            swarm_spec={"EncryptionConfig": {"AutoLockManagers": cluster.autolock}},
            **(pools if cluster.pools else {}),
        )

    def join(self, entrance: Entrance, managers: Sequence[str], token: str) -> None:
        self._client.join_swarm(
            remote_addrs=[f"{address}:{PORT}" for address in managers],
            join_token=token,
            advertise_addr=entrance.address,
            listen_addr=LISTEN,
            data_path_addr=entrance.data_path or entrance.address,
        )

    def leave(self, *, force: bool) -> None:
        self._client.leave_swarm(force=force)

    def nodes(self) -> Sequence[Node]:
        return [node(each) for each in self._client.nodes()]

    def change(
        self,
        node: str,
        *,
        role: Role | None = None,
        availability: Availability | None = None,
        labels: Mapping[str, str] | None = None,
    ) -> None:
        found = self._client.inspect_node(node)
        spec = dict(found["Spec"])
        wanted = {
            "Role": role or spec["Role"],
            "Availability": availability or spec["Availability"],
            "Labels": {**spec.get("Labels", {}), **(labels or {})},
        }
        if any(spec.get(key) != value for key, value in wanted.items()):
            self._client.update_node(node, found["Version"]["Index"], {**spec, **wanted})

    def remove(self, node: str) -> None:
        if any(each["ID"] == node for each in self._client.nodes()):
            self._client.remove_node(node, force=True)

    def tasks(self) -> Mapping[str, int]:
        return Counter(
            task["NodeID"]
            for task in self._client.tasks()
            if task.get("NodeID") and task["Status"]["State"] not in ENDED
        )

    def waiting(self) -> Sequence[str]:
        wanted = (
            task["Status"] for task in self._client.tasks(filters={"desired-state": "running"})
        )
        return [
            status.get("Err", "") if status["State"] == "pending" else ""
            for status in wanted
            if status["State"] != "running"
        ]

    def token(self, role: Role, *, rotate: bool = False) -> str:
        if rotate:
            found = self._client.inspect_swarm()
            self._client.update_swarm(
                found["Version"]["Index"],
                swarm_spec=found["Spec"],
                rotate_manager_token=role is Role.MANAGER,
                rotate_worker_token=role is Role.WORKER,
            )
        tokens = self._client.inspect_swarm()["JoinTokens"]
        return str(tokens[role.capitalize()])

    def unlock_key(self, *, rotate: bool = False) -> str:
        if rotate:
            found = self._client.inspect_swarm()
            self._client.update_swarm(
                found["Version"]["Index"],
                swarm_spec=found["Spec"],
                rotate_manager_unlock_key=True,
            )
        return str(self._client.get_unlock_key().get("UnlockKey") or "")

    def unlock(self, key: str) -> None:
        self._client.unlock_swarm(key)

    def certificates(self) -> Certificates:
        told = self._client.inspect_swarm()
        valid = timedelta(microseconds=told["Spec"]["CAConfig"]["NodeCertExpiry"] / 1000)
        return Certificates(told["TLSInfo"]["TrustRoot"].encode(), valid.days)


def membership(info: Mapping[str, Any]) -> Membership:
    """Of GET /info."""
    told, folder = info["Swarm"], f"{info['DockerRootDir']}/swarm"
    state = told.get("LocalNodeState") or "inactive"
    role = Role.MANAGER if told.get("ControlAvailable") else Role.WORKER
    return Membership(
        state=state,
        node=told.get("NodeID") or "",
        role=role if state == "active" else None,
        cluster=(told.get("Cluster") or {}).get("ID") or "",
        address=told.get("NodeAddr") or "",
        managers=tuple(each["Addr"] for each in told.get("RemoteManagers") or ()),
        problem=told.get("Error") or "",
        folder=folder,
        certificate=f"{folder}/certificates/swarm-node.crt",
    )


def node(told: Mapping[str, Any]) -> Node:
    """Of an element of GET /nodes."""
    spec, description = told["Spec"], told.get("Description") or {}
    manager = told.get("ManagerStatus") or {}
    return Node(
        id=told["ID"],
        name=description.get("Hostname") or "",
        role=Role(spec["Role"]),
        availability=Availability(spec["Availability"]),
        state=told["Status"]["State"],
        address=(told["Status"].get("Addr") or "").partition(":")[0],
        leader=bool(manager.get("Leader")),
        reachable=manager.get("Reachability") == "reachable",
        version=(description.get("Engine") or {}).get("EngineVersion") or "",
        labels=spec.get("Labels") or {},
    )
